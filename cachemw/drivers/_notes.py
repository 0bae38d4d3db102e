"""``queue/.<entry>.json``: what is known of a queued image besides its id.

A note can be lost without harm: the image is then fetched as one that was
never tried, by the path that its id gives.

Imports: drivers._tree, drivers.queued.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from typing import Any

from ._tree import scan
from .queued import Note

#: A longer file is no note (bytes).
_LONGEST = 64 * 1024

#: Longest reason that is kept, in characters.
_LONGEST_REASON = 500

#: A note without its image may be one that is just being queued (seconds).
_GRACE = 3600

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


#: Of an image of which nothing is known.
BLANK = Note()


def name_of(entry: str) -> str:
    """Give the name of an entry's note."""
    return f".{entry}.json"


def read(entry: str, queue: int) -> Note:
    """Read an entry's note; one that cannot be read says nothing.

    :param queue: descriptor of ``queue/``, here and below.
    """
    try:
        fd = os.open(name_of(entry), _READ, dir_fd=queue)
        try:
            values = json.loads(os.read(fd, _LONGEST))
        finally:
            os.close(fd)
    except (OSError, ValueError, RecursionError):
        return BLANK
    return _checked(values) if isinstance(values, dict) else BLANK


def _checked(values: dict[str, Any]) -> Note:
    url, tries, after = values.get("url"), values.get("tries"), values.get("after")
    reason, set_aside = values.get("reason"), values.get("set_aside")
    is_time = isinstance(after, int | float) and 0 <= after < math.inf
    return Note(
        url=url if isinstance(url, str) and url else None,
        tries=tries if type(tries) is int and tries >= 0 else 0,
        after=float(after or 0.0) if is_time else 0.0,
        reason=reason if isinstance(reason, str) else "",
        set_aside=set_aside is True,
    )


def write(entry: str, note: Note, queue: int) -> None:
    """Put a note in the place of the one there is; a blank one is none.

    :raises OSError: it cannot be written; the one there was is still there.
    """
    if note == BLANK:
        remove(entry, queue)
        return
    note = dataclasses.replace(note, reason=note.reason[:_LONGEST_REASON])
    content = json.dumps(dataclasses.asdict(note)).encode("ascii")
    half = f"{name_of(entry)}.{os.urandom(4).hex()}"
    fd = os.open(half, _NEW, 0o600, dir_fd=queue)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        os.rename(half, name_of(entry), src_dir_fd=queue, dst_dir_fd=queue)
    except BaseException:
        os.unlink(half, dir_fd=queue)
        raise


def remove(entry: str, queue: int) -> None:
    """Remove an entry's note, if it has one.

    :raises OSError: it cannot be removed.
    """
    try:
        os.unlink(name_of(entry), dir_fd=queue)
    except FileNotFoundError:
        pass


def reap(queue: int) -> None:
    """Remove notes of what is not in the queue any more, and halves of notes.

    :raises OSError: the directory cannot be read.
    """
    statuses = dict(scan(queue))
    kept = {name_of(name) for name in statuses if not name.startswith(".")}
    now = time.time()
    for name, status in statuses.items():
        if name.startswith(".") and name not in kept and now - status.st_mtime > _GRACE:
            try:
                os.unlink(name, dir_fd=queue)
            except FileNotFoundError:
                pass
