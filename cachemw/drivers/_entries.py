"""Reading a directory that keeps one file an image.

The directory is the truth: a subclass keeps whatever makes listing and
evicting quick, and is told of every change.

``docs/formats/cache-directory.rst`` is the authority for the layout.

Imports: concurrency, errors, names, drivers.base, drivers._asking, drivers._claims, drivers._fills,
drivers._hits, drivers._invalid, drivers._lock, drivers._memory, drivers._records,
drivers._sums, drivers._tail, drivers._translate, drivers._tree.
"""

from __future__ import annotations

import abc
import errno
import os
import stat
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from .. import concurrency, names
from ..errors import BadDriverConfiguration, DriverError, ImageCorrupt, ImageNotFound
from . import _claims, _fills, _invalid, _records, _sums
from ._asking import Asking
from ._hits import Gathered, HitCounter
from ._lock import DirectoryLock
from ._memory import Identity, RecordMemory, identity
from ._tail import open_tail
from ._translate import translated, translating
from ._tree import Tree, scan
from .base import MOST_VARIANTS, Driver, Entry, Record, Sums, Tail

log = concurrency.get_logger(__name__)

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOATIME = getattr(os, "O_NOATIME", 0)

#: Nothing is wrong with the file, but the process lacks something.
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Found(NamedTuple):
    """An entry met in a scan; without an id, its record is lost and so is the entry."""

    name: str
    image_id: str | None
    status: os.stat_result
    record: Record | None


class EntryFiles(Driver):
    """What is there, and what others have under way."""

    def __init__(
        self, directory: str, *, durability: str = "data", stall_time: float = 86400
    ) -> None:
        super().__init__(directory, durability=durability, stall_time=stall_time)
        self.tree = Tree(directory)
        self.lock = DirectoryLock(self.name, lambda: self.tree.base, self._repair)
        self.memory = RecordMemory()
        self.hits = HitCounter(self._write_hits)
        self.asking = Asking(lambda: self.tree.base)

    # What a subclass keeps

    @abc.abstractmethod
    def _set_up(self) -> None:
        """Make ready what is kept beside the files; the directories are open.

        :raises BadDriverConfiguration: it cannot work here.
        """

    @abc.abstractmethod
    def _repair(self, entries: Collection[str] | None) -> None:
        """Make what is kept agree with the directory for some names (``None``: all)."""

    @abc.abstractmethod
    def _entered(self, name: str, record: Record, old: os.stat_result | None) -> None:
        """An entry was renamed into place, over ``old`` if there was one; lock held."""

    @abc.abstractmethod
    def _left(self, gone: Sequence[tuple[str, int]]) -> None:
        """Entries (names and bytes) were removed; lock held."""

    @abc.abstractmethod
    def _oldest(self, limit: int) -> list[tuple[str, str, int]]:
        """Give name, id and bytes of the entries read longest ago, oldest first; lock held."""

    @abc.abstractmethod
    def _total(self) -> int:
        """Give the bytes of all entries as kept; lock held."""

    @abc.abstractmethod
    def _write_hits(self, gathered: Gathered) -> None:
        """Store hits gathered by entry name."""

    def _missing(self, name: str) -> None:
        """An entry that was asked for has no file."""

    @abc.abstractmethod
    def _invalidate(self, name: str, image_id: str, reason: str, fd: int) -> None:
        """Take an entry's open file out of the cache, into ``invalid/``."""

    def _before_commit(self, fd: int, name: str) -> None:
        """A fill's file is about to be synced and renamed."""

    # Life

    def configure(self) -> None:
        try:
            self.tree.open()
            self._set_up()
            with self.lock.hold():
                pass  # taking the lock repairs what a crash or a power cut left
        except OSError as exc:
            self.close()
            mend = "make it a directory that the server's user owns, without symbolic links inside"
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                mend = "free space"
            raise BadDriverConfiguration(
                self.name,
                self.directory,
                f"{exc.strerror or exc}" + (f" ({exc.filename})" if exc.filename else ""),
                mend,
            ) from exc
        except DriverError as exc:
            self.close()
            raise BadDriverConfiguration(
                self.name, self.directory, exc.reason, "free space or mend its permissions"
            ) from exc
        except BadDriverConfiguration:
            self.close()
            raise

    def close(self) -> None:
        self.hits.stop()
        self.asking.close()
        self.tree.close()

    # Reading

    def open_for_read(self, image_id: str, variant: int = 0) -> Entry:
        name = names.entry_name(image_id, variant)
        try:
            while (entry := self._open(name, image_id, variant)) is None:
                pass  # replaced between opening it and reading its record
            return entry
        except FileNotFoundError:
            if not variant:
                self._missing(name)
            raise ImageNotFound(image_id, "not in the cache") from None
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO):
                raise ImageNotFound(image_id, "its entry is not a regular file") from exc
            raise translated(image_id, exc) from exc

    def _open(self, name: str, image_id: str, variant: int) -> Entry | None:
        """Open an entry; ``None`` if its record went while we looked, as it was replaced."""
        fd = self._open_file(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ImageNotFound(image_id, "its entry is not a regular file")
            record = self.memory.get(status)
            # What is remembered is old enough that no other file can look the same.
            known = None if record is None else identity(status)
            if record is None:
                record = _records.read(fd, name, status, self.tree.records)
                if record is not None:
                    self.memory.put(status, record)
            if record is None:
                named = os.stat(name, dir_fd=self.tree.base, follow_symlinks=False)
                if not os.path.samestat(named, status):
                    os.close(fd)
                    return None
                if name != image_id:
                    # Nothing tells whose it is, so it can never be verified again.
                    self._invalidate(name, image_id, "its record is lost", fd)
                    raise ImageNotFound(image_id, "its record is lost")
            elif record.image_id != image_id or record.variant != variant:
                raise ImageNotFound(image_id, "its entry belongs to another id")
            elif record.size != status.st_size:
                reason = f"{status.st_size} bytes long instead of {record.size}"
                self._invalidate(name, image_id, reason, fd)
                raise ImageCorrupt(image_id, reason)
            return Entry(fd, image_id, status.st_size, record, known)
        except BaseException:
            os.close(fd)
            raise

    def other_variants(self, image_id: str) -> list[int]:
        # Every miss asks, so without an exception for each that is not there.
        base = self.tree.base
        return [
            variant
            for variant in range(1, MOST_VARIANTS)
            if os.access(
                names.entry_name(image_id, variant), os.F_OK, dir_fd=base, follow_symlinks=False
            )
        ]

    def identity(self, image_id: str, variant: int = 0) -> Identity | None:
        name = names.entry_name(image_id, variant)
        try:
            status = os.stat(name, dir_fd=self.tree.base, follow_symlinks=False)
        except OSError:
            return None
        return identity(status)

    def _open_file(self, name: str) -> int:
        # Reading must not move the access time, which the xattr driver evicts by.
        try:
            return os.open(name, _READ | _NOATIME, dir_fd=self.tree.base)
        except PermissionError:
            return os.open(name, _READ, dir_fd=self.tree.base)

    def sums(self, entry: Entry) -> Sums | None:
        variant = 0 if entry.record is None else entry.record.variant
        try:
            return _sums.load(names.entry_name(entry.image_id, variant), entry, self.tree.sums)
        except OSError:
            return None

    def _status(self, name: str) -> os.stat_result | None:
        """Look at an entry's file: ``None`` if there is none, or something else has its name."""
        try:
            status = os.stat(name, dir_fd=self.tree.base, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _is_named(self, name: str, status: os.stat_result) -> bool:
        """Say whether an open file is the one under that name."""
        named = self._status(name)
        return named is not None and os.path.samestat(named, status)

    # What is there

    def is_cached(self, image_id: str) -> bool:
        try:
            self.open_any(image_id).close()
        except DriverError:
            return False
        return True

    def is_being_cached(self, image_id: str) -> bool:
        return any(_claims.is_claimed(name, self.tree.incomplete) for name in names_of(image_id))

    def begin_asking(self, image_id: str) -> bool:
        with translating(image_id):
            return self.asking.begin(image_id)

    def end_asking(self, image_id: str) -> None:
        self.asking.end(image_id)

    def is_asked_elsewhere(self, image_id: str) -> bool:
        try:
            return self.asking.is_asked_elsewhere(image_id)
        except OSError:
            return False

    def has_fill(self, image_id: str) -> bool:
        name = names.entry_name(image_id)
        return os.access(name, os.F_OK, dir_fd=self.tree.incomplete, follow_symlinks=False)

    def tail(self, image_id: str, variant: int = 0) -> Tail | None:
        with translating(image_id):
            return open_tail(image_id, names.entry_name(image_id, variant), self.tree.incomplete)

    def get_partial_images(self) -> list[dict[str, Any]]:
        with translating("partial images"):
            return _fills.partial_images(self.tree.incomplete)

    def get_image_filepath(
        self, image_id: str, cache_status: str = "active", variant: int = 0
    ) -> str:
        name = names.entry_name(image_id, variant)
        if cache_status == "active":
            return os.path.join(self.directory, name)
        if cache_status not in names.RESERVED_NAMES:
            raise ValueError(
                f"cache status {cache_status!r}: expected active, incomplete, invalid or queue"
            )
        return os.path.join(self.directory, cache_status, name)

    def get_image_size(self, image_id: str) -> int:
        with self.open_any(image_id) as entry:
            return entry.size

    def get_invalid_images(self) -> list[dict[str, Any]]:
        with translating("invalid images"):
            return _invalid.listing(self.tree.invalid)

    def _measured(self) -> int:
        """Give the bytes of all entries, by their files.

        :raises OSError: the directory cannot be read.
        """
        return sum(
            status.st_size for name, status in scan(self.tree.base) if names.is_entry_name(name)
        )

    def _id_of(self, name: str) -> str:
        """Give an entry's id; one whose record is lost goes by its file's name."""
        found = self._found(name)
        return found.image_id if found is not None and found.image_id is not None else name

    def _found(self, name: str) -> Found | None:
        """Look at one entry's file: ``None`` if there is none that can be opened.

        :raises OSError: it may be there, but the process has no descriptor or memory left.
        """
        try:
            fd = self._open_file(name)
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            record = _records.read(fd, name, status, self.tree.records)
            loose = None
            if record is None and not names.is_safe_name(name):
                # A check may find that it is right all the same.
                loose = _records.loose(fd, name, status, self.tree.records)
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            record = loose = None
        finally:
            os.close(fd)
        if record is not None and names.entry_name(record.image_id, record.variant) == name:
            return Found(name, record.image_id, status, record)
        if loose is not None and names.entry_name(loose.image_id, loose.variant) == name:
            return Found(name, loose.image_id, status, None)
        return Found(name, name if names.is_safe_name(name) else None, status, None)


def names_of(image_id: str) -> list[str]:
    """Give the entry names that an image's variants may have."""
    return [names.entry_name(image_id, variant) for variant in range(MOST_VARIANTS)]
