"""What the drivers that keep one file an image have in common: upkeep, room, the queue.

``docs/formats/cache-directory.rst`` is the authority for the layout.

Imports: names, drivers._changes, drivers._claims, drivers._entries, drivers._fills,
drivers._invalid, drivers._lock, drivers._notes, drivers._queue, drivers._records, drivers._sums,
drivers._translate, drivers._tree, drivers.queued.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Hashable, Iterator
from typing import Any

from .. import names
from . import _claims, _fills, _invalid, _notes, _queue, _records, _sums
from ._changes import ChangingFiles
from ._entries import names_of
from ._lock import MOST_NAMES
from ._translate import translating
from ._tree import scan
from .queued import Claim

__all__ = ["FileDriver", "names_of"]


class FileDriver(ChangingFiles):
    """One file an image; see :class:`~cachemw.drivers.base.Driver` for the promises."""

    # Use

    def record_hit(self, image_id: str, when: float, variant: int = 0) -> None:
        self.hits.count(names.entry_name(image_id, variant), when)

    def flush_hits(self) -> None:
        # Another thread's flush may be waiting for the directory's lock.
        self.hits.flush(wait=not self.lock.is_mine())

    # Room

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with translating("the cache directory's lock"), self.lock.hold():
            yield

    def get_usage(self) -> int:
        with translating("the cache's size"), self.lock.hold():
            fills = _fills.usage(self.tree.incomplete)
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
        with translating("eviction"), self.lock.hold():
            freed = self._free_debris(wanted)
            while freed < wanted:
                batch = self._victims(wanted - freed)
                if not batch:
                    break
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
        _fills.reap_debris(self.tree.incomplete)
        for name, status in list(scan(self.tree.incomplete)):
            if freed >= wanted:
                return freed
            if not _fills.is_fill(name):
                continue
            size = _fills.occupied(name, status, self.tree.incomplete)
            if size and _fills.reap(name, self.tree.incomplete):
                freed += size
        return freed

    def reap_invalid(self, grace: float | None = None) -> int:
        with translating("invalid images"):
            return _invalid.reap(self.tree.invalid, grace)

    def reap_stalled(self, grace: float | None = None) -> int:
        now = time.time()
        reaped = 0
        with translating("abandoned fills"):
            for name, status in list(scan(self.tree.incomplete)):
                if _fills.belongs_to_fill(name):
                    continue
                if not grace or now - status.st_mtime > grace:
                    with self.lock.hold():
                        reaped += _fills.reap(name, self.tree.incomplete)
            with self.lock.hold():
                _fills.reap_debris(self.tree.incomplete)
                _sums.reap(self.tree.sums, self.tree.base)
            self._reap_records()
            _notes.reap(self.tree.queue)
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
        if status is not None:
            if name == entry:
                return
            # That of the entry, which may be another than this one.
            _records.finish(entry, status, self.tree.records)
        _records.remove(name, self.tree.records)

    # Queue

    def queue_image(self, image_id: str, url: str | None = None, anew: bool = True) -> bool:
        if not self.is_cacheable(image_id):
            return False
        with translating(image_id):
            return _queue.put(image_id, self.tree.queue, url, anew)

    def is_queued(self, image_id: str) -> bool:
        return _queue.has(image_id, self.tree.queue)

    def get_queued_images(self) -> list[str]:
        with translating("the queue"):
            return _queue.listing(self.tree.queue)

    def get_queue(self) -> list[dict[str, Any]]:
        with translating("the queue"):
            return _queue.described(self.tree.queue)

    def queue_state(self) -> Hashable:
        with translating("the queue"):
            return _queue.state(self.tree.queue)

    def claim_queued(self, image_id: str) -> Claim | None:
        with translating(image_id):
            return _queue.claim(image_id, self.tree.queue)

    def delete_queued_image(self, image_id: str) -> bool:
        with translating(image_id):
            return _queue.drop(names.entry_name(image_id), self.tree.queue)

    def delete_all_queued_images(self) -> int:
        with translating("the queue"):
            return _queue.clear(self.tree.queue)
