"""What the drivers that keep one file an image have in common.

An image grows in ``incomplete/``, locked by its writer, and is renamed into
the cache directory when its bytes and record are safe, or into ``invalid/``
with a reason. The directory is the truth: a subclass keeps whatever makes
listing and evicting quick, and is told of every change.

``docs/formats/cache-directory.rst`` is the authority for the layout.

Imports: concurrency, errors, names, drivers.base, drivers._claims,
drivers._deletions, drivers._hits, drivers._invalid, drivers._lock,
drivers._memory, drivers._queue, drivers._records, drivers._sink,
drivers._tree, drivers._writeback.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from .. import concurrency, names
from ..errors import BadDriverConfiguration, DriverError, ImageCorrupt, ImageNotFound
from . import _claims, _deletions, _invalid, _queue, _records, _writeback
from ._hits import Gathered, HitCounter
from ._lock import MOST_NAMES, DirectoryLock
from ._memory import Identity, RecordMemory, identity
from ._sink import FileSink
from ._tree import Tree, scan
from .base import MOST_VARIANTS, Driver, Entry, Record, Sink

log = concurrency.get_logger(__name__)

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOATIME = getattr(os, "O_NOATIME", 0)

#: Nothing is wrong with the file.
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Found(NamedTuple):
    """An entry met in a scan; without an id, its record is lost and so is the entry."""

    name: str
    image_id: str | None
    status: os.stat_result
    record: Record | None


class FileDriver(Driver):
    """One file an image; see :class:`~cachemw.drivers.base.Driver` for the promises."""

    def __init__(
        self, directory: str, *, durability: str = "data", stall_time: float = 86400
    ) -> None:
        super().__init__(directory, durability=durability, stall_time=stall_time)
        self.tree = Tree(directory)
        self.lock = DirectoryLock(self.name, lambda: self.tree.base, self._repair)
        self.memory = RecordMemory()
        self.hits = HitCounter(self._write_hits)

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
            raise _translated(image_id, exc) from exc

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

    # Writing

    def start_fill(self, image_id: str, variant: int = 0) -> Sink:
        name = names.entry_name(image_id, variant)
        try:
            fd = _claims.claim(name, self.tree.incomplete)
        except FileNotFoundError:
            # Somebody removed the directories under us.
            fd = self._claim_in_new_tree(name, image_id)
        except BlockingIOError as exc:
            raise DriverError(image_id, "is being filled already") from exc
        except OSError as exc:
            raise _translated(image_id, exc) from exc
        return FileSink(self, image_id, name, fd)

    def _claim_in_new_tree(self, name: str, image_id: str) -> int:
        with _translating(image_id):
            self.tree.open()
            try:
                self._set_up()
            except BadDriverConfiguration as exc:
                raise DriverError(image_id, f"{exc.reason}; {exc.mend}") from exc
            try:
                return _claims.claim(name, self.tree.incomplete)
            except BlockingIOError as exc:
                raise DriverError(image_id, "is being filled already") from exc

    def publish(self, sink: FileSink, record: Record) -> None:
        """Rename a finished fill into place and tell the subclass. Called by the sink."""
        name = sink.name
        renamed = False
        try:
            with self.lock.changing([name]):
                if not sink.is_named():
                    raise DriverError(sink.image_id, "deleted or changed while it was filled")
                old = self._status(name)
                if old is not None:
                    # Syncing may have taken long, and the old one may have been read meanwhile.
                    self._before_commit(sink.fd, name)
                os.rename(name, name, src_dir_fd=self.tree.incomplete, dst_dir_fd=self.tree.base)
                renamed = True
                self._finish_record(name, os.fstat(sink.fd), sink.aside)
                if self.durability == "full":
                    os.fsync(self.tree.base)
                if old is None:
                    self.hits.forget(name)
                self._entered(name, record, old)
        except (OSError, DriverError) as exc:
            if not renamed:
                raise
            log.warning("%s: stored, to be indexed later: %s", sink.image_id, exc)
        self._drop_queued(names.entry_name(sink.image_id))

    def _finish_record(self, name: str, status: os.stat_result, aside: bool) -> None:
        if aside:
            _records.finish(name, status, self.tree.records)
        else:
            _records.remove(name, self.tree.records)

    def _drop_queued(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.tree.queue)
        except OSError:
            pass  # mostly: it was not queued

    def describe(self, image_id: str, sink: Sink) -> Record:
        assert isinstance(sink, FileSink)
        digest = hashlib.sha256(usedforsecurity=False)
        position = 0
        with _translating(image_id):
            # The file may be longer, by what was reserved.
            while block := os.pread(sink.fd, min(2**20, sink.written - position), position):
                digest.update(block)
                position += len(block)
        checksum = f"sha256:{digest.hexdigest()}"
        return Record(image_id, sink.written, checksum, stored=time.time())

    def adopt(self, entry: Entry, record: Record) -> None:
        if self.durability != "none":
            # Whoever wrote it may not have.
            with _translating(record.image_id):
                _writeback.sync(entry.fileno())
        entry.record = record
        self.update(entry, record)

    def update(self, entry: Entry, record: Record) -> bool:
        name = names.entry_name(record.image_id, record.variant)
        fd = entry.fileno()
        with _translating(record.image_id), self.lock.changing([name]):
            status = os.fstat(fd)
            if not self._is_named(name, status):
                return False
            sync = self.durability != "none"
            aside = _records.write(fd, name, record, self.tree.records, sync)
            self._finish_record(name, status, aside)
            if aside:
                # Whoever remembers the old record goes by the file's change time.
                os.fchmod(fd, stat.S_IMODE(status.st_mode))
            self._entered(name, record, status)
        return True

    # Removing

    def invalidate(self, image_id: str, reason: str, variant: int = 0) -> None:
        name = names.entry_name(image_id, variant)
        try:
            fd = self._open_file(name)
        except OSError:
            return
        try:
            self._invalidate(name, image_id, reason, fd)
        finally:
            os.close(fd)

    def _invalidate(self, name: str, image_id: str, reason: str, fd: int) -> None:
        log.warning("%s: %s; moved to invalid/", image_id, reason)
        with _translating(image_id), self.lock.changing([name]):
            status = os.fstat(fd)
            if not self._is_named(name, status):
                return  # replaced meanwhile
            _invalid.put(fd, name, image_id, reason, self.tree.base, self.tree.invalid)
            _records.remove(name, self.tree.records)
            self._left([(name, status.st_size)])

    def delete_cached_image(self, image_id: str) -> bool:
        every = names_of(image_id)
        # First, since a fill that begins later is not voided here. On a full disk it must
        # go all the same.
        with contextlib.suppress(OSError):
            _deletions.leave_mark(image_id, self.tree.base)
        if not any(map(self._has_files, every)):
            # Changes of what is no image come here too, and need not wait for a prune.
            self._missing(every[0])
            return False
        with _translating(image_id), self.lock.hold():
            for name in every:
                self._void_fill(name)
            present = [name for name in every if self._status(name) is not None]
            with self.lock.changing(present):
                return bool(self._remove(present))

    def _has_files(self, name: str) -> bool:
        """Say whether anything has an entry's name, here or in ``incomplete/``."""
        return any(
            os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False)
            for directory in (self.tree.base, self.tree.incomplete)
        )

    def mark_of_deletion(self, image_id: str) -> bytes:
        return _deletions.mark_of(image_id, self.tree.base)

    def delete_all_cached_images(self) -> int:
        deleted = 0
        with _translating("all images"), self.lock.hold():
            every = [name for name, _ in scan(self.tree.base) if names.is_entry_name(name)]
            for start in range(0, len(every), MOST_NAMES):
                batch = every[start : start + MOST_NAMES]
                with self.lock.changing(batch):
                    deleted += len(self._remove(batch))
        return deleted

    def _remove(self, batch: Sequence[str]) -> list[tuple[str, int]]:
        """Unlink entries; lock held. :return: names and bytes of those that were there."""
        gone = []
        for name in batch:
            status = self._status(name)
            if status is not None:
                os.unlink(name, dir_fd=self.tree.base)
                _records.remove(name, self.tree.records)
                gone.append((name, status.st_size))
            self.hits.forget(name)
        removed = dict(gone)
        self._left([(name, removed.get(name, 0)) for name in batch])
        return gone

    def _void_fill(self, name: str) -> None:
        """Take a fill's file from its writer, which then cannot commit; lock held."""
        try:
            os.unlink(name, dir_fd=self.tree.incomplete)
        except FileNotFoundError:
            pass

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

    def get_image_filepath(self, image_id: str, cache_status: str = "active") -> str:
        name = names.entry_name(image_id)
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
        with _translating("invalid images"):
            return _invalid.listing(self.tree.invalid)

    def _found(self, name: str) -> Found | None:
        """Look at one entry's file: ``None`` if there is none that can be opened.

        :raises OSError: it may be there, but the process has no descriptor or memory left.
        """
        try:
            fd = self._open_file(name)
        except OSError as exc:
            if exc.errno in _SHORTAGE:
                raise
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            record = _records.read(fd, name, status, self.tree.records)
        except OSError as exc:
            if exc.errno in _SHORTAGE:
                raise
            record = None
        finally:
            os.close(fd)
        if record is not None and names.entry_name(record.image_id, record.variant) == name:
            return Found(name, record.image_id, status, record)
        return Found(name, name if names.is_safe_name(name) else None, status, None)

    # Use

    def record_hit(self, image_id: str, when: float, variant: int = 0) -> None:
        self.hits.count(names.entry_name(image_id, variant), when)

    def flush_hits(self) -> None:
        # Another thread's flush may be waiting for the directory's lock.
        self.hits.flush(wait=not self.lock.is_mine())

    # Room

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with _translating("the cache directory's lock"), self.lock.hold():
            yield

    def get_usage(self) -> int:
        with _translating("the cache's size"), self.lock.hold():
            fills = sum(status.st_size for _, status in scan(self.tree.incomplete))
            failed = sum(status.st_size for _, status in scan(self.tree.invalid))
            return self._total() + fills + failed

    def get_least_recently_accessed(self) -> tuple[str, int] | None:
        self.flush_hits()
        with self.exclusive():
            for _, image_id, size in self._oldest(1):
                return image_id, size
        return None

    def evict(self, wanted: int) -> tuple[int, int]:
        count = 0
        with _translating("eviction"), self.lock.hold():
            freed = self._free_debris(wanted)
            while freed < wanted:
                batch = self._victims(wanted - freed)
                if not batch:
                    break
                with self.lock.changing(batch):
                    gone = self._remove(batch)
                count += len(gone)
                freed += sum(size for _, size in gone)
        return count, freed

    def _victims(self, wanted: int) -> list[str]:
        batch = []
        for name, _, size in self._oldest(MOST_NAMES):
            if wanted <= 0:
                break
            batch.append(name)
            wanted -= size
        return batch

    def _free_debris(self, wanted: int) -> int:
        freed = 0
        for name, size in _invalid.oldest(self.tree.invalid):
            if freed >= wanted:
                return freed
            _invalid.drop(name, self.tree.invalid)
            freed += size
        for name, status in list(scan(self.tree.incomplete)):
            if freed >= wanted:
                return freed
            if status.st_size and _claims.reap(name, self.tree.incomplete):
                freed += status.st_size
        return freed

    def reap_invalid(self, grace: float | None = None) -> int:
        with _translating("invalid images"):
            return _invalid.reap(self.tree.invalid, grace)

    def reap_stalled(self, grace: float | None = None) -> int:
        now = time.time()
        reaped = 0
        with _translating("abandoned fills"):
            for name, status in list(scan(self.tree.incomplete)):
                if not grace or now - status.st_mtime > grace:
                    with self.lock.hold():
                        reaped += _claims.reap(name, self.tree.incomplete)
            self._reap_records()
        return reaped

    def _reap_records(self) -> None:
        """Remove records kept aside that are no entry's (any more), and halves of records."""
        with self.lock.hold():
            for name, _ in list(scan(self.tree.records)):
                entry = _records.entry_of(name)
                if not _claims.is_claimed(entry, self.tree.incomplete):
                    self._reap_record(name, entry)

    def _reap_record(self, name: str, entry: str) -> None:
        status = self._status(entry)
        if status is not None and (
            name == entry or _records.finish(entry, status, self.tree.records)
        ):
            return
        _records.remove(name, self.tree.records)

    # Queue

    def queue_image(self, image_id: str) -> bool:
        if not self.is_cacheable(image_id):
            return False
        with _translating(image_id):
            return _queue.put(image_id, self.tree.queue)

    def is_queued(self, image_id: str) -> bool:
        return _queue.has(image_id, self.tree.queue)

    def get_queued_images(self) -> list[str]:
        with _translating("the queue"):
            return _queue.listing(self.tree.queue)

    def delete_queued_image(self, image_id: str) -> bool:
        with _translating(image_id):
            return _queue.remove(image_id, self.tree.queue)

    def delete_all_queued_images(self) -> int:
        with _translating("the queue"):
            return _queue.clear(self.tree.queue)


def names_of(image_id: str) -> list[str]:
    """Give the entry names that an image's variants may have."""
    return [names.entry_name(image_id, variant) for variant in range(MOST_VARIANTS)]


def _translated(subject: str, exc: OSError) -> DriverError:
    return DriverError(subject, (exc.strerror or str(exc)).lower())


@contextlib.contextmanager
def _translating(subject: str) -> Iterator[None]:
    """Let an OSError leave as DriverError about ``subject``."""
    try:
        yield
    except OSError as exc:
        raise _translated(subject, exc) from exc
