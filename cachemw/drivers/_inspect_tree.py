"""Inspectors of the cache directory's build: its folders, what does not belong there, modes.

Imports: names, drivers._asking, drivers._deletions, drivers._lock, drivers._modes, drivers._tree,
drivers.faults.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from .. import names
from . import _asking, _deletions, _lock, _modes
from ._tree import Tree, scan_all
from .faults import Fault, Inspector

#: Files of ours beside the entries.
FILES = (
    _lock.NAME,
    _deletions.NAME,
    _asking.NAME,
    names.INDEX_NAME,
    f"{names.INDEX_NAME}-wal",
    f"{names.INDEX_NAME}-shm",
    f".broken-{names.INDEX_NAME}",
    ".verified",
)

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def what_is(status: os.stat_result) -> str:
    """Say in two words what has a name."""
    return next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "a device")


def status_of(path: str, tree: Tree) -> os.stat_result | None:
    """Look at what has a path; ``None``: nothing has."""
    directory, name = tree.place(path)
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Build(Inspector):
    """The folders, and that nothing else has the place of one or of a file of ours.

    Without it there may be no lock to be held.
    """

    needs_lock = False

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def suspects(self) -> Iterator[str]:
        yield from Tree.SUBDIRECTORIES
        yield from FILES

    def look(self, name: str) -> Fault | None:
        is_folder = name in Tree.SUBDIRECTORIES
        status = status_of(name, self._tree)
        if status is None:
            if not is_folder or not self._is_used():
                return None
            return Fault("folder", name, None, "is missing", "make it")
        if stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode):
            return None
        found = what_is(status)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            mend = "move it elsewhere by hand"
        else:
            mend = "remove it, and make a directory" if is_folder else "remove it"
        problem = f"is {found} in the place of {'a directory' if is_folder else 'a file'} of ours"
        return Fault("folder", name, None, problem, mend)

    def _is_used(self) -> bool:
        """Say whether a driver of ours was here; else there need not be all folders."""
        ours = (_lock.NAME, *(name for name in Tree.SUBDIRECTORIES if name.startswith(".")))
        return any(status_of(name, self._tree) is not None for name in ours)

    def mend(self, name: str) -> bool:
        status = status_of(name, self._tree)
        if status is not None:
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                return False
            os.unlink(name, dir_fd=self._tree.base)
        if name in Tree.SUBDIRECTORIES:
            os.mkdir(name, 0o700, dir_fd=self._tree.base)
            self._tree.look()
        return True


class Foreign(Inspector):
    """What is no regular file, and files whose names nothing of ours has."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def suspects(self) -> Iterator[str]:
        for name, status in scan_all(self._tree.base):
            is_own = name in Tree.SUBDIRECTORIES or name in FILES or name.startswith(".")
            if not is_own and not (stat.S_ISREG(status.st_mode) and names.is_entry_name(name)):
                yield name
        for folder in Tree.SUBDIRECTORIES:
            directory, _ = self._tree.place(f"{folder}/")
            for name, status in scan_all(directory):
                if not stat.S_ISREG(status.st_mode):
                    yield f"{folder}/{name}"

    def look(self, name: str) -> Fault | None:
        status = status_of(name, self._tree)
        if status is None:
            return None
        if "/" not in name and not names.is_entry_name(name):
            found = what_is(status)
            return Fault("foreign", name, None, f"is {found}, but no entry", "", is_damage=False)
        if stat.S_ISREG(status.st_mode):
            return None
        mend = "remove it"
        if stat.S_ISDIR(status.st_mode):
            mend = "remove it if it is empty, else move it elsewhere by hand"
        return Fault("foreign", name, None, f"is {what_is(status)}", mend)

    def mend(self, name: str) -> bool:
        directory, own = self._tree.place(name)
        status = status_of(name, self._tree)
        if status is None:
            return True
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(own, dir_fd=directory)
            return True
        try:
            os.rmdir(own, dir_fd=directory)
        except OSError as exc:
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True


class Modes(Inspector):
    """Files and directories that others than their owner may use, or that he may not."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def suspects(self) -> Iterator[str]:
        yield "."
        yield from Tree.SUBDIRECTORIES
        yield from FILES
        for name, status in scan_all(self._tree.base):
            if names.is_entry_name(name) and self._problem(name, status):
                yield name
        for folder in Tree.SUBDIRECTORIES:
            directory, _ = self._tree.place(f"{folder}/")
            for name, status in scan_all(directory):
                if self._problem(f"{folder}/{name}", status):
                    yield f"{folder}/{name}"

    def look(self, name: str) -> Fault | None:
        status = status_of(name, self._tree)
        problem = self._problem(name, status) if status is not None else ""
        if not problem:
            return None
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            problem += "; it is also a file elsewhere"
            return Fault("mode", name, None, problem, "", is_damage=False)
        right = self._right(name, status) if status is not None else 0
        return Fault("mode", name, None, problem, f"make it {right:04o}")

    def _problem(self, name: str, status: os.stat_result) -> str:
        is_folder = name == "." or name in Tree.SUBDIRECTORIES
        if not (stat.S_ISDIR(status.st_mode) if is_folder else stat.S_ISREG(status.st_mode)):
            return ""
        if name == ".":
            # Who may look into it is the operator's choice; who may write there is not.
            mode = stat.S_IMODE(status.st_mode)
            return f"has the mode {mode:04o}: others may write there" if mode & 0o022 else ""
        return _modes.problem(status)

    def _right(self, name: str, status: os.stat_result) -> int:
        if name == ".":
            return stat.S_IMODE(status.st_mode) & ~0o022
        return _modes.right_mode(status)

    def mend(self, name: str) -> bool:
        status = status_of(name, self._tree)
        if status is None:
            return True
        directory, own = self._tree.place(name)
        _modes.change(own, directory, self._right(name, status))
        return True
