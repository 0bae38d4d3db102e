"""The xattr driver: no index, everything is in the files.

Hits are in the attribute ``user.hits`` and the last access is the file's
access time, as Glance's driver of that name has them, except that both are
written by us alone (once a second), so ``noatime`` and ``relatime`` mounts do
no harm. Listing and evicting scan the directory: once for each prune, and
the scan is kept for as long as its order is still true.

Imports: concurrency, drivers._checking, drivers._files, drivers._hits, drivers._lock,
drivers._tree, drivers._xattrs, drivers.base, drivers.faults, errors, names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from .. import concurrency, names
from ..errors import BadDriverConfiguration, DriverError
from . import _xattrs
from ._checking import CheckingFiles
from ._files import names_of
from ._hits import Gathered
from ._lock import NAME as LOCK_NAME
from ._tree import scan
from .base import Record
from .faults import Fault, Inspector

log = concurrency.get_logger(__name__)

_HITS = "user.hits"


class Driver(CheckingFiles):
    """Images as files with extended attributes; for up to some ten thousand of them.

    See :class:`~cachemw.drivers.base.Driver` for the promises.
    """

    name = "xattr"

    def __init__(
        self, directory: str, *, durability: str = "data", stall_time: float = 86400
    ) -> None:
        super().__init__(directory, durability=durability, stall_time=stall_time)
        #: Entries by access time as last scanned: (nanoseconds, name, bytes).
        self._scanned: deque[tuple[int, str, int]] = deque()
        self._scan_lock = concurrency.Lock()

    def _set_up(self) -> None:
        probe = f".probe-{os.getpid()}"
        directory = self.tree.incomplete
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(probe, flags, 0o600, dir_fd=directory)
        try:
            _xattrs.set(fd, _HITS, b"0")
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            raise BadDriverConfiguration(
                self.name,
                self.directory,
                "its file system has no extended attributes (user.*)",
                "mount it with user_xattr, or set driver = sqlite",
            ) from exc
        finally:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe, dir_fd=directory)

    # Totals, kept in the lock's file

    def _repair(self, entries: Collection[str] | None) -> None:
        self.lock.state.total = self._measured()

    def _entered(self, name: str, record: Record, old: os.stat_result | None) -> None:
        self._add(record.size - (old.st_size if old else 0))

    def _left(self, gone: Sequence[tuple[str, int]]) -> None:
        self._add(-sum(size for _, size in gone))

    def _add(self, size: int) -> None:
        if self.lock.state.total is not None:
            self.lock.state.total += size

    def _total(self) -> int:
        if self.lock.state.total is None:
            self._repair(None)
        return self.lock.state.total or 0

    def get_cache_size(self) -> int:
        with self.exclusive(), self.lock.changing([]):
            self._repair(None)
            return self._total()

    def _inspectors_of_totals(self) -> Sequence[Inspector]:
        return [_Total(self)]

    def miscount(self) -> int:
        """Give by how much the total is more than the sum of the entries' bytes; 0 too where it
        is to be summed up anyway. Lock held."""
        state = self.lock.state
        if state.total is None or state.changing != []:
            return 0
        return state.total - self._measured()

    def count_again(self) -> None:
        """Sum up the entries' bytes; lock held."""
        with self.lock.changing([]):
            self._repair(None)

    # Listing

    def get_cached_images(self) -> list[dict[str, Any]]:
        self.flush_hits()
        with self.exclusive():
            every = [name for name, _ in scan(self.tree.base) if names.is_entry_name(name)]
            images = [
                {
                    "image_id": found.image_id,
                    "size": found.status.st_size,
                    "hits": self._read_hits(found.name),
                    "last_accessed": found.status.st_atime,
                    "last_modified": found.status.st_mtime,
                    "checksum": found.record.checksum if found.record else None,
                }
                for found in map(self._found, every)
                if found is not None and found.image_id is not None
            ]
        return sorted(images, key=lambda image: image["image_id"])

    # Hits

    def _before_commit(self, fd: int, name: str) -> None:
        # An image that is replaced keeps its hits, and what is stored counts as read just now.
        _xattrs.set(fd, _HITS, b"%d" % self._read_hits(name))
        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))

    def get_hit_count(self, image_id: str) -> int:
        self.flush_hits()
        return sum(map(self._read_hits, names_of(image_id)))

    def _read_hits(self, name: str) -> int:
        try:
            fd = self._open_file(name)
            try:
                return _hits_of(fd)
            finally:
                os.close(fd)
        except OSError:
            return 0

    def _write_hits(self, gathered: Gathered) -> None:
        for name, (hits, last) in gathered.items():
            try:
                self._add_hits(name, hits, last)
            except FileNotFoundError:
                continue
            except OSError as exc:
                # Raising would count the others twice.
                log.warning("%d hits of %s are lost: %s", hits, name, exc)

    def _add_hits(self, name: str, hits: int, last: float) -> None:
        fd = self._open_file(name)
        try:
            # The lock makes reading and writing one step for other processes.
            fcntl.flock(fd, fcntl.LOCK_EX)
            _xattrs.set(fd, _HITS, b"%d" % (_hits_of(fd) + hits))
            status = os.fstat(fd)
            accessed = max(status.st_atime_ns, int(last * 1e9))
            os.utime(fd, ns=(accessed, status.st_mtime_ns))
        finally:
            # A child that was just forked has the descriptor too, and with it the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    # Eviction

    def _oldest(self, limit: int) -> list[tuple[str, str, int]]:
        """An access time only grows, so an entry that still has the one it was scanned with is
        older than all behind it, and than all that came since."""
        with self._scan_lock:
            oldest = self._still_oldest(limit)
            if len(oldest) < limit:
                self._scanned = self._scan()
                oldest = self._still_oldest(limit)
        return [(name, self._id_of(name), size) for name, size in oldest]

    def _scan(self) -> deque[tuple[int, str, int]]:
        every = sorted(
            (status.st_atime_ns, name, status.st_size)
            for name, status in scan(self.tree.base)
            if names.is_entry_name(name)
        )
        # The time to notice what others removed by hand.
        self.lock.state.total = sum(size for _, _, size in every)
        return deque(every)

    def _still_oldest(self, limit: int) -> list[tuple[str, int]]:
        oldest: list[tuple[str, int]] = []
        keep: list[tuple[int, str, int]] = []
        while self._scanned and len(oldest) < limit:
            accessed, name, size = self._scanned.popleft()
            status = self._status(name)
            if status is not None and status.st_atime_ns == accessed:
                oldest.append((name, size))
                keep.append((accessed, name, size))
        # Whoever asked may not delete them all.
        self._scanned.extendleft(reversed(keep))
        return oldest


def _hits_of(fd: int) -> int:
    """Read a file's hits; 0 where there are none or they are no number.

    :raises OSError: they could not be read.
    """
    try:
        return int(_xattrs.get(fd, _HITS) or 0)
    except ValueError:
        return 0


class _Total(Inspector):
    """The total in the lock's file."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def suspects(self) -> Iterator[str]:
        yield LOCK_NAME

    def look(self, name: str) -> Fault | None:
        try:
            with self._driver.looking():
                miscount = self._driver.miscount()
        except DriverError:
            return None  # without a lock, there is no total either
        if not miscount:
            return None
        problem = f"its total is {miscount:+d} bytes off"
        return Fault("total", name, None, problem, "sum up the entries")

    def mend(self, name: str) -> bool:
        self._driver.count_again()
        return True
