"""Changing a directory that keeps one file an image.

An image grows in ``incomplete/``, locked by its writer, and is renamed into
the cache directory when its bytes and record are safe, or into ``invalid/``
with a reason.

``docs/formats/cache-directory.rst`` is the authority for the layout.

Imports: concurrency, errors, names, drivers.base, drivers._deletions,
drivers._entries, drivers._fills, drivers._invalid, drivers._lock, drivers._queue, drivers._records,
drivers._sink, drivers._statefile, drivers._sums, drivers._translate, drivers._tree,
drivers._writeback.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Sequence

from .. import concurrency, names
from ..errors import BadDriverConfiguration, DriverError, FillUnderWay
from . import _deletions, _fills, _invalid, _queue, _records, _statefile, _sums, _writeback
from ._entries import EntryFiles, names_of
from ._lock import MOST_NAMES
from ._sink import FileSink
from ._translate import translated, translating
from ._tree import scan
from .base import Entry, Record, Sink

log = concurrency.get_logger(__name__)


class ChangingFiles(EntryFiles):
    """Filling, replacing and removing."""

    # Writing

    def start_fill(self, image_id: str, variant: int = 0) -> Sink:
        name = names.entry_name(image_id, variant)
        try:
            try:
                begun = _fills.begin(image_id, name, variant, self.tree.incomplete)
            except FileNotFoundError:
                # Somebody removed the directories under us.
                self._make_tree_again(image_id)
                begun = _fills.begin(image_id, name, variant, self.tree.incomplete)
        except BlockingIOError as exc:
            raise FillUnderWay(image_id, "is being filled already") from exc
        except OSError as exc:
            raise translated(image_id, exc) from exc
        return FileSink(self, image_id, name, begun)

    def _make_tree_again(self, image_id: str) -> None:
        self.tree.open()
        try:
            self._set_up()
        except BadDriverConfiguration as exc:
            raise DriverError(image_id, f"{exc.reason}; {exc.mend}") from exc

    def enter(self, sink: FileSink, record: Record) -> None:
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
                sink.tell_committed(record.size)
                self._keep_sums(sink, old)
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

    def _keep_sums(self, sink: FileSink, old: os.stat_result | None) -> None:
        """Let the fill's state file become the checksums of the entry, or go."""
        try:
            if sink.has_sums:
                _sums.keep(sink.state, sink.name, self.tree.incomplete, self.tree.sums)
                return
            _statefile.remove(sink.state.name, self.tree.incomplete)
            if old is not None:
                _sums.remove(sink.name, old.st_size, self.tree.sums)
        except OSError as exc:
            # What is left fits no image any more.
            log.warning("%s: without checksums of its chunks: %s", sink.image_id, exc)

    def _finish_record(self, name: str, status: os.stat_result, aside: bool) -> None:
        if aside:
            _records.finish(name, status, self.tree.records)
        else:
            _records.remove(name, self.tree.records)

    def _drop_queued(self, name: str) -> None:
        try:
            _queue.drop(name, self.tree.queue)
        except OSError:
            pass  # mostly: it was not queued

    def describe(self, image_id: str, sink: Sink) -> Record:
        assert isinstance(sink, FileSink)
        digest = hashlib.sha256(usedforsecurity=False)
        position = 0
        with translating(image_id):
            while block := sink.pread(2**20, position):
                digest.update(block)
                position += len(block)
        checksum = f"sha256:{digest.hexdigest()}"
        return Record(image_id, position, checksum, stored=time.time())

    def adopt(self, entry: Entry, record: Record) -> None:
        if self.durability != "none":
            # Whoever wrote it may not have.
            with translating(record.image_id):
                _writeback.sync(entry.fileno())
        entry.record = record
        self.update(entry, record)

    def update(self, entry: Entry, record: Record) -> bool:
        name = names.entry_name(record.image_id, record.variant)
        fd = entry.fileno()
        with translating(record.image_id), self.lock.changing([name]):
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
        with translating(image_id), self.lock.changing([name]):
            status = os.fstat(fd)
            if not self._is_named(name, status):
                return  # replaced meanwhile
            _invalid.put(fd, name, image_id, reason, self.tree.base, self.tree.invalid)
            _records.remove(name, self.tree.records)
            _sums.remove(name, status.st_size, self.tree.sums)
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
        with translating(image_id), self.lock.hold():
            for name in every:
                _fills.void(name, self.tree.incomplete)
            present = [name for name in every if self._status(name) is not None]
            return bool(self._remove(present))

    def _has_files(self, name: str) -> bool:
        """Say whether anything has an entry's name, here or in ``incomplete/``."""
        # In this order: what is renamed meanwhile is found in the second place.
        return any(
            os.access(name, os.F_OK, dir_fd=directory, follow_symlinks=False)
            for directory in (self.tree.incomplete, self.tree.base)
        )

    def mark_of_deletion(self, image_id: str) -> bytes:
        return _deletions.mark_of(image_id, self.tree.base)

    def delete_all_cached_images(self) -> int:
        deleted = 0
        with translating("all images"), self.lock.hold():
            every = [name for name, _ in scan(self.tree.base) if names.is_entry_name(name)]
            for start in range(0, len(every), MOST_NAMES):
                batch = every[start : start + MOST_NAMES]
                deleted += len(self._remove(batch))
        return deleted

    def _remove(self, batch: Sequence[str]) -> list[tuple[str, int]]:
        """Remove entries; lock held. :return: names and bytes of those that were there.

        :raises OSError: one could not be unlinked.
        """
        gone: list[tuple[str, int]] = []
        # Telling the index takes room, which a full disk has only once these are gone. The
        # lock remembers whom it does not know of.
        with contextlib.suppress(DriverError), self.lock.changing(batch):
            self._unlink(batch, gone)
            removed = dict(gone)
            self._left([(name, removed.get(name, 0)) for name in batch])
        return gone

    def _unlink(self, batch: Sequence[str], gone: list[tuple[str, int]]) -> None:
        for name in batch:
            status = self._status(name)
            if status is not None:
                os.unlink(name, dir_fd=self.tree.base)
                gone.append((name, status.st_size))
                _records.remove(name, self.tree.records)
                _sums.remove(name, status.st_size, self.tree.sums)
            self.hits.forget(name)
