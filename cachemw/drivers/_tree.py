"""The directories of a cache directory, held open.

Everything below is opened, renamed and removed relative to these descriptors
with O_NOFOLLOW, so that a symbolic link planted in the cache directory, or in
place of one of its directories, leads nowhere.

Imports: drivers._records.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Generator, Iterator

from . import _records

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """Descriptors of the cache directory and of the directories inside.

    The numbers stay the same for the life of the object, also when the
    directories were removed and are made again, so threads may go on using them.

    :param directory: the cache directory; itself may be a symbolic link.
    """

    SUBDIRECTORIES = ("incomplete", "invalid", "queue", _records.DIRECTORY, ".sums")

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.base = self.incomplete = self.invalid = self.queue = -1
        self.records = self.sums = -1

    def open(self) -> None:
        """Make what is missing (mode 0700) and open it; again: what was replaced.

        :raises OSError: something cannot be made or opened, or is a symbolic link.
        """
        os.makedirs(self.directory, 0o700, exist_ok=True)
        base = os.open(os.path.realpath(self.directory), _OPEN)
        self.base = _take_place(base, self.base)
        for name in self.SUBDIRECTORIES:
            try:
                os.mkdir(name, 0o700, dir_fd=self.base)
            except FileExistsError:
                pass
            fd = os.open(name, _OPEN, dir_fd=self.base)
            attribute = name.removeprefix(".")
            setattr(self, attribute, _take_place(fd, getattr(self, attribute)))

    def look(self) -> None:
        """Open what is there, and make nothing; what is no directory is as an empty one.

        :raises OSError: the cache directory cannot be opened.
        """
        base = os.open(os.path.realpath(self.directory), _OPEN)
        self.base = _take_place(base, self.base)
        for name in self.SUBDIRECTORIES:
            try:
                fd = os.open(name, _OPEN, dir_fd=self.base)
            except OSError:
                fd = _nowhere()
            attribute = name.removeprefix(".")
            setattr(self, attribute, _take_place(fd, getattr(self, attribute)))

    def place(self, path: str) -> tuple[int, str]:
        """Give the descriptor of the directory that a path under the cache directory is in, and
        the name in it."""
        folder, _, name = path.rpartition("/")
        return (getattr(self, folder.removeprefix(".")) if folder else self.base), name

    def close(self) -> None:
        """Close the descriptors. May be called twice."""
        for name in ("base", "incomplete", "invalid", "queue", "records", "sums"):
            fd = getattr(self, name)
            if fd != -1:
                os.close(fd)
                setattr(self, name, -1)


def _take_place(new: int, old: int) -> int:
    """Let ``new`` take over the number of ``old``, if there is one."""
    if old == -1:
        return new
    os.dup2(new, old, inheritable=False)
    os.close(new)
    return old


def _nowhere() -> int:
    """Open a directory that is gone: nothing is in it, and nothing can be made there."""
    path = tempfile.mkdtemp(prefix="cachemw-")
    try:
        return os.open(path, _OPEN)
    finally:
        os.rmdir(path)


def scan(directory_fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """Go through the regular files of a directory: names and stats, in no order.

    As :func:`scan_all` otherwise.
    """
    with contextlib.closing(scan_all(directory_fd)) as everything:
        for name, status in everything:
            if stat.S_ISREG(status.st_mode):
                yield name, status


def scan_all(directory_fd: int) -> Generator[tuple[str, os.stat_result], None, None]:
    """Go through all that is in a directory: names and stats, in no order.

    Files that vanish meanwhile are left out. A descriptor of its own keeps two
    scans from sharing one position.

    :raises OSError: the directory cannot be read.
    """
    fd = os.open(".", _OPEN, dir_fd=directory_fd)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield entry.name, status
    finally:
        os.close(fd)
