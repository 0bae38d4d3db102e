"""Inspectors of what is not an entry: fills, failed fills, the queue.

Imports: names, drivers._claims, drivers._fills, drivers._invalid, drivers._queue, drivers._tree,
drivers.faults.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from .. import names
from . import _claims, _fills, _invalid, _queue
from ._tree import Tree, scan
from .faults import Fault, Inspector


class _Folder(Inspector):
    """What is in one folder of the cache directory."""

    folder: str

    settles = True

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @property
    def _fd(self) -> int:
        return self._tree.place(f"{self.folder}/")[0]

    def suspects(self) -> Iterator[str]:
        for name, _ in scan(self._fd):
            yield f"{self.folder}/{name}"

    def _is_there(self, own: str) -> bool:
        return os.access(own, os.F_OK, dir_fd=self._fd, follow_symlinks=False)

    def mend(self, name: str) -> bool:
        try:
            os.unlink(name.rpartition("/")[2], dir_fd=self._fd)
        except FileNotFoundError:
            pass
        return True


class Fills(_Folder):
    """Fills that nobody works on and nobody has written to for long, and what belongs to none.

    :param grace: seconds that an abandoned fill stays.
    """

    folder = "incomplete"

    def __init__(self, tree: Tree, grace: float) -> None:
        super().__init__(tree)
        self._grace = grace

    def look(self, name: str) -> Fault | None:
        own = name.rpartition("/")[2]
        try:
            status = os.stat(own, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not _fills.is_fill(own):
            if _fills.is_of_a_fill(own, self._fd):
                return None
            return Fault("fill", name, None, "belongs to no fill", "remove it")
        age = time.time() - status.st_mtime
        if age <= self._grace or _claims.is_claimed(own, self._fd):
            return None
        image_id = own if names.is_safe_name(own) else None
        problem = f"is a fill that nobody has written to for {age:.0f} seconds"
        return Fault("fill", name, image_id, problem, "remove it")

    def mend(self, name: str) -> bool:
        own = name.rpartition("/")[2]
        if _fills.is_fill(own):
            return _fills.reap(own, self._fd)
        return super().mend(name)


class Failed(_Folder):
    """What is in ``invalid/``, which is no damage, and reasons of what is not there any more."""

    folder = "invalid"

    def look(self, name: str) -> Fault | None:
        own = name.rpartition("/")[2]
        if not self._is_there(own):
            return None
        if not own.startswith("."):
            image_id, reason = _invalid.read(own, self._fd)
            return Fault("invalid", name, image_id, reason, "", is_damage=False)
        if own.endswith(".reason") and self._is_there(own[1:].removesuffix(".reason")):
            return None
        return Fault("invalid", name, None, "is the reason of nothing", "remove it")


class Queued(_Folder):
    """What is in ``queue/`` and names no image."""

    folder = "queue"

    def look(self, name: str) -> Fault | None:
        own = name.rpartition("/")[2]
        if not self._is_there(own):
            return None
        if own.startswith("."):
            if own.endswith(".json") and self._is_there(own[1:].removesuffix(".json")):
                return None
            return Fault("queue", name, None, "belongs to no image of the queue", "remove it")
        if _queue.id_of(own, self._fd) is not None:
            return None
        return Fault("queue", name, None, "names no image", "remove it")
