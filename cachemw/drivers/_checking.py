"""Checking a directory that keeps one file an image.

Imports: errors, names, drivers._entries, drivers._files, drivers._inspect_entries,
drivers._inspect_leftovers, drivers._inspect_tree, drivers._records, drivers._scrubbing,
drivers._translate, drivers._tree, drivers.base, drivers.faults.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import stat
import time
from collections.abc import Iterator, Sequence

from .. import names
from ..errors import BadDriverConfiguration
from . import _inspect_leftovers, _inspect_tree, _records, _scrubbing
from ._entries import SHORTAGE
from ._files import FileDriver
from ._inspect_entries import ChunkSums, Entries, Records, entry_names
from ._translate import translating
from ._tree import scan
from .base import Entry, Record
from .faults import Inspector


class CheckingFiles(FileDriver):
    """What is checked, opened and looked at as files."""

    def look(self) -> None:
        try:
            self.tree.look()
        except OSError as exc:
            raise BadDriverConfiguration(
                self.name, self.directory, f"{exc.strerror or exc}", "name a cache directory"
            ) from exc

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        with translating("the cache directory's lock"), self.lock.hold(mends=False):
            yield

    def inspectors(self) -> Sequence[Inspector]:
        return [
            _inspect_tree.Build(self.tree),
            _inspect_tree.Foreign(self.tree),
            _inspect_tree.Modes(self.tree),
            *self._inspectors_of_totals(),
            Entries(self),
            *self._inspectors_of_rows(),
            Records(self),
            ChunkSums(self),
            _inspect_leftovers.Fills(self.tree, self.stall_time),
            _inspect_leftovers.Failed(self.tree),
            _inspect_leftovers.Queued(self.tree),
        ]

    def _inspectors_of_totals(self) -> Sequence[Inspector]:
        """Give those of what is kept beside the files, as a whole."""
        return ()

    def _inspectors_of_rows(self) -> Sequence[Inspector]:
        """Give those of what is kept of each entry; what is wrong with entries is mended."""
        return ()

    # Entries

    def stored_names(self) -> Iterator[str]:
        with translating("the cache directory"):
            yield from entry_names(self)

    def stored_bytes(self) -> int:
        with translating("the cache directory"):
            return self._measured()

    def open_stored(self, name: str) -> Entry | None:
        try:
            fd = self._open_file(name)
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                os.close(fd)
                return None
            record = _records.read(fd, name, status, self.tree.records)
            if record is not None and names.entry_name(record.image_id, record.variant) != name:
                os.close(fd)
                return None
            image_id = name if record is None else record.image_id
            return Entry(fd, image_id, status.st_size, record)
        except BaseException:
            os.close(fd)
            raise

    def loose_record(self, name: str) -> Record | None:
        try:
            fd = self._open_file(name)
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            return None
        try:
            status = os.fstat(fd)
            if _records.read(fd, name, status, self.tree.records) is not None:
                return None
            record = _records.loose(fd, name, status, self.tree.records)
        finally:
            os.close(fd)
        if record is None or names.entry_name(record.image_id, record.variant) != name:
            return None
        return record if record.size == status.st_size else None

    def is_stored(self, entry: Entry, name: str) -> bool:
        return self._is_named(name, os.fstat(entry.fileno()))

    def condemn(self, entry: Entry, name: str, reason: str) -> bool:
        with self.looking():
            if not self.is_stored(entry, name):
                return False
            self._invalidate(name, entry.image_id, reason, entry.fileno())
        return True

    # Scrubbing

    def next_to_verify(self, limit: int) -> list[str]:
        place = _scrubbing.load(self.tree.base)
        with translating("the cache directory"):
            return self._names_after(place.name, limit)

    def _names_after(self, after: str, limit: int) -> list[str]:
        every = (name for name, _ in scan(self.tree.base) if names.is_entry_name(name))
        return heapq.nsmallest(limit, (name for name in every if name > after))

    def note_verified(self, name: str) -> None:
        place = _scrubbing.load(self.tree.base)
        if not name:
            place = _scrubbing.Place("", time.time(), place.began)
        began = place.began or time.time()
        with translating("what was verified"):
            _scrubbing.save(_scrubbing.Place(name, began, place.before), self.tree.base)
