"""What the drivers that keep one file an image have in common: upkeep, room, the queue.

``docs/formats/cache-directory.rst`` is the authority for the layout.

Imports: drivers._changes, drivers._claims, drivers._entries, drivers._fills, drivers._invalid,
drivers._lock, drivers._notes, drivers._queue, drivers._records, drivers._sums, drivers._translate,
drivers._tree, drivers.base, drivers.queued, names.
"""

from __future__ import annotations

import contextlib
import os
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
from .base import OnVictim, Victim
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

    def evict(self, wanted: int, note: OnVictim | None = None) -> tuple[int, int]:
        count = 0
        with translating("eviction"), self.lock.hold():
            freed = self._free_debris(wanted, note)
            while freed < wanted:
                batch = self._victims(wanted - freed, MOST_NAMES)
                if not batch:
                    break
                gone = self._remove(list(batch))
                count += len(gone)
                freed += sum(size for _, size in gone)
                if note is not None:
                    for name, size in gone:
                        note(Victim("image", batch[name].image_id, size))
        return count, freed

    def plan_eviction(self, wanted: int) -> list[Victim]:
        plan: list[Victim] = []
        with translating("eviction"), self.lock.hold():
            for victim in self._debris():
                if wanted <= 0:
                    return plan
                plan.append(victim)
                wanted -= victim.size
            limit = MOST_NAMES
            while len(batch := self._victims(wanted, limit)) == limit:
                limit *= 4
        return plan + list(batch.values())

    def _victims(self, wanted: int, limit: int) -> dict[str, Victim]:
        """Give what goes first, by entry name; no more than ``limit``; lock held."""
        batch = {}
        for name, image_id, size in self._oldest(limit) if wanted > 0 else ():
            if wanted <= 0:
                break
            batch[name] = Victim("image", image_id, size)
            wanted -= size
        return batch

    def _free_debris(self, wanted: int, note: OnVictim | None) -> int:
        freed = 0
        for name, size in _invalid.oldest(self.tree.invalid):
            if freed >= wanted:
                return freed
            victim = None if note is None else self._failed(name, size)
            _invalid.drop(name, self.tree.invalid)
            freed += size
            if note is not None and victim is not None:
                note(victim)
        _fills.reap_debris(self.tree.incomplete)
        for name, status in list(scan(self.tree.incomplete)):
            if freed >= wanted:
                return freed
            if not _fills.is_fill(name):
                continue
            size = _fills.occupied(name, status, self.tree.incomplete)
            if size and self._reap(name, status, note):
                freed += size
        return freed

    def _debris(self) -> Iterator[Victim]:
        """Give what :meth:`_free_debris` would remove, if asked for all; lock held."""
        for name, size in _invalid.oldest(self.tree.invalid):
            yield self._failed(name, size)
        for name, status in list(scan(self.tree.incomplete)):
            if _fills.is_fill(name) and _claims.is_abandoned(name, self.tree.incomplete):
                victim = self._abandoned(name, status)
                if victim.size:
                    yield victim

    def _failed(self, name: str, size: int) -> Victim:
        """Describe a file in ``invalid/``."""
        return Victim("invalid", _invalid.image_of(name, self.tree.invalid), size)

    def _abandoned(self, name: str, status: os.stat_result) -> Victim:
        """Describe a file in ``incomplete/``."""
        image_id = _fills.image_of(name, status, self.tree.incomplete)
        return Victim("fill", image_id, _fills.occupied(name, status, self.tree.incomplete))

    def _reap(self, name: str, status: os.stat_result, note: OnVictim | None) -> bool:
        """Remove a fill's files that nobody holds; lock held. :return: whether they were."""
        victim = None if note is None else self._abandoned(name, status)
        is_reaped = _fills.reap(name, self.tree.incomplete)
        if is_reaped and note is not None and victim is not None:
            note(victim)
        return is_reaped

    def reap_invalid(self, grace: float | None = None, note: OnVictim | None = None) -> int:
        with translating("invalid images"):
            old = _invalid.older(self.tree.invalid, grace)
            for name, status in old:
                victim = None if note is None else self._failed(name, status.st_size)
                _invalid.unlink(name, self.tree.invalid)
                if note is not None and victim is not None and not name.startswith("."):
                    note(victim)
        return sum(not name.startswith(".") for name, _ in old)

    def reap_stalled(self, grace: float | None = None, note: OnVictim | None = None) -> int:
        reaped = 0
        with translating("abandoned fills"):
            for name, status in self._stalled(grace):
                with self.lock.hold():
                    reaped += self._reap(name, status, note)
            with self.lock.hold():
                _fills.reap_debris(self.tree.incomplete)
                _sums.reap(self.tree.sums, self.tree.base)
            self._reap_records()
            _notes.reap(self.tree.queue)
        return reaped

    def plan_cleaning(self, stall_time: float | None = None) -> list[Victim]:
        grace = self.stall_time if stall_time is None else stall_time
        with translating("cleaning"), self.lock.hold():
            failed = [
                self._failed(name, status.st_size)
                for name, status in _invalid.older(self.tree.invalid, None)
                if not name.startswith(".")
            ]
            abandoned = [
                self._abandoned(name, status)
                for name, status in self._stalled(grace)
                if _claims.is_abandoned(name, self.tree.incomplete)
            ]
        return failed + abandoned

    def _stalled(self, grace: float | None) -> list[tuple[str, os.stat_result]]:
        """Look for fills that nobody has written to for ``grace`` seconds, held or not."""
        now = time.time()
        return [
            (name, status)
            for name, status in scan(self.tree.incomplete)
            if not _fills.belongs_to_fill(name) and (not grace or now - status.st_mtime > grace)
        ]

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
