"""The sqlite driver: images as files, listed and evicted by an index.

The default: lookups cost the same at a thousand entries and at a million, and
it works on every file system. A hit does not touch the index.

Imports: concurrency, drivers._checking, drivers._files, drivers._hits, drivers._index,
drivers._inspect_index, drivers._lock, drivers._tree, drivers._xattrs, drivers.base,
drivers.faults, drivers.listing, errors, names.
"""

from __future__ import annotations

import dataclasses
import heapq
import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from .. import concurrency, names
from ..errors import BadDriverConfiguration, DriverError
from . import _index, _inspect_index, _xattrs
from ._checking import CheckingFiles
from ._files import names_of
from ._hits import Gathered
from ._lock import EVERYTHING
from ._tree import scan
from .base import Record
from .faults import Fault, Inspector
from .listing import Query, lost_marker

log = concurrency.get_logger(__name__)

T = TypeVar("T")

#: Rows written in one transaction when the index is made again: many, and in the
#: order of the index, so that each of its pages is written a few times and not for each row.
_BATCH = 20_000


class Driver(CheckingFiles):
    """Images as files, and ``cache.db`` beside them.

    See :class:`~cachemw.drivers.base.Driver` for the promises.
    """

    name = "sqlite"

    def __init__(
        self, directory: str, *, durability: str = "data", stall_time: float = 86400
    ) -> None:
        super().__init__(directory, durability=durability, stall_time=stall_time)
        path = os.path.join(directory, names.INDEX_NAME)
        #: Whether the index is being made from the entries; lock held.
        self._is_filling = False
        self._healed: list[Fault] = []
        self.index = _index.Index(path, durable=durability == "full")

    def _set_up(self) -> None:
        if os.path.islink(self.index.path):
            raise BadDriverConfiguration(
                self.name, self.directory, f"{names.INDEX_NAME} is a symbolic link", "remove it"
            )
        try:
            # Under the lock, since two processes cannot both begin a write-ahead log.
            with self.lock.hold():
                self._ask(self.index.total)
        except DriverError as exc:
            raise BadDriverConfiguration(
                self.name, self.directory, exc.reason, "free space or mend its permissions"
            ) from exc
        # A server may fork after this; the index is opened again where it is used.
        self.index.close()

    def close(self) -> None:
        super().close()
        self.index.close()

    def _ask(self, work: Callable[[], T]) -> T:
        """Call the index; where it is new or broken, make it from the entries first."""
        try:
            return work()
        except (_index.IndexNew, _index.IndexBroken):
            with self.exclusive():
                if self._is_filling:
                    raise  # broken again while it is being made: its device is
                self._fill_index()
        return work()

    def _fill_index(self) -> None:
        """Make a new or broken index from the entries, unless somebody has done it; lock held."""
        try:
            self.index.total()
            return
        except _index.IndexNew:
            if self.lock.last_writer() == self.name:
                self._heal("is missing, or was never filled")
        except _index.IndexBroken as exc:
            log.warning("the index is made again from the files: %s", exc.reason)
            self._heal(f"is damaged: {exc.reason}")
            self.index.set_aside()
        self._repair(None)

    def _heal(self, problem: str) -> None:
        mend = "make it again from the files"
        self._healed.append(Fault("index", names.INDEX_NAME, None, problem, mend))
        del self._healed[:-10]

    def healed(self) -> list[Fault]:
        healed, self._healed = self._healed, []
        return healed

    def make_index_again(self) -> None:
        """Make the index from the entries, whatever there is; lock held. An index that is there
        is kept aside."""
        log.warning("the index is made again from the files")
        with self.exclusive():
            self.index.set_aside()
            self._repair(None)

    # Check

    def _inspectors_of_totals(self) -> Sequence[Inspector]:
        return [_inspect_index.IndexFile(self)]

    def _inspectors_of_rows(self) -> Sequence[Inspector]:
        return [_inspect_index.IndexRows(self)]

    def _names_after(self, after: str, limit: int) -> list[str]:
        return self._ask(lambda: self.index.names(after, limit))

    # Keeping the index right

    def _repair(self, entries: Collection[str] | None) -> None:
        if entries is None:
            self._repair_all()
            return
        present = [row for name in entries if (row := self._row(name)) is not None]
        gone = set(entries) - {row[0] for row in present}
        self._ask(lambda: self.index.remove(gone))
        self._ask(lambda: self.index.put(present))

    def _row(self, name: str) -> _index.Row | None:
        """Make the row of an entry's file, if there is one; lock held."""
        found = self._found(name)
        if found is None:
            return None
        if found.image_id is None:
            log.warning("%s is deleted: its record is lost, so it cannot be served", name)
            os.unlink(name, dir_fd=self.tree.base)
            return None
        checksum = found.record.checksum if found.record else None
        return _index.row(name, found.image_id, found.status, checksum, found.status.st_atime)

    def _repair_all(self) -> None:
        self._is_filling = True
        try:
            with self.index.filling():
                self._put_missing_rows()
        finally:
            self._is_filling = False

    def _put_missing_rows(self) -> None:
        stamps = self._ask(self.index.stamps)
        gone = set(stamps)
        counted = self._ask(self.index.glance_rows)
        batch: list[str] = []
        for name, status in scan(self.tree.base):
            if not names.is_entry_name(name):
                continue
            gone.discard(name)
            if stamps.get(name) != (status.st_size, status.st_mtime):
                batch.append(name)
            if len(batch) == _BATCH:
                self._put_rows(batch, stamps, counted)
                batch = []
        self._put_rows(batch, stamps, counted)
        if gone:
            self._ask(lambda: self.index.remove(gone))

    def _put_rows(
        self,
        batch: Sequence[str],
        known: Collection[str],
        counted: dict[str, tuple[int, float]],
    ) -> None:
        """Make rows of entries' files; one that has a row already keeps its hits."""
        rows, hits = [], []
        for name in sorted(batch):
            row = self._row(name)
            if row is None:
                continue
            if name not in known:
                count, last = counted.get(name, (self._attribute_hits(name), row[3]))
                row = (*row[:3], last, *row[4:])
                hits.append((name, count))
            rows.append(row)
        self._ask(lambda: self.index.put(rows))
        self._ask(lambda: self.index.set_hits(hits))
        self._checkpoint()

    def _attribute_hits(self, name: str) -> int:
        """Give the hits that an xattr driver, ours or Glance's, counted."""
        try:
            fd = self._open_file(name)
            try:
                return int(_xattrs.get(fd, "user.hits") or 0)
            finally:
                os.close(fd)
        except (OSError, ValueError):
            return 0

    def _entered(self, name: str, record: Record, old: os.stat_result | None) -> None:
        status = self._status(name)
        if status is None:
            return
        row = _index.row(name, record.image_id, status, record.checksum, time.time())
        self._ask(lambda: self.index.put([row]))
        self._checkpoint()

    def _left(self, gone: Sequence[tuple[str, int]]) -> None:
        self._ask(lambda: self.index.remove([name for name, _ in gone]))
        self._checkpoint()

    def _missing(self, name: str) -> None:
        try:
            if self.index.has(name):
                with self.exclusive():
                    self._repair([name])
        except (_index.IndexNew, _index.IndexBroken):
            pass  # a miss does not wait until it is made
        except DriverError as exc:
            log.warning("the index could not be mended for %s: %s", name, exc.reason)

    # Questions

    def _total(self) -> int:
        behind = self.lock.state.changing
        if behind is not EVERYTHING:
            try:
                total = self._ask(self.index.total)
                return total + sum(map(self._unknown_bytes, set(behind)))
            except DriverError as exc:
                log.warning("the entries are counted without the index: %s", exc)
        return self._measured()

    def _unknown_bytes(self, name: str) -> int:
        """Give by how much an entry is larger than the index knows."""
        status = self._status(name)
        return (status.st_size if status else 0) - self._ask(lambda: self.index.size(name))

    def get_cache_size(self) -> int:
        with self.exclusive():
            return self._total()

    def get_cached_images(self) -> list[dict[str, Any]]:
        self.flush_hits()
        return self._ask(self.index.listing)

    def _find(self, query: Query) -> list[dict[str, Any]]:
        self.flush_hits()
        if query.marker is not None and query.marker_value is None and query.sort != "image_id":
            value = self._ask(lambda: self.index.marker_value(query))
            if value is None:
                raise lost_marker(query)
            query = dataclasses.replace(query, marker_value=value)
        return query.page(self._ask(lambda: self.index.find(query)))

    def count_images(self, search: str = "") -> int:
        return self._ask(lambda: self.index.count(search))

    def find_image(self, image_id: str) -> list[dict[str, Any]]:
        self.flush_hits()
        return self._ask(lambda: self.index.images(image_id))

    def get_hit_count(self, image_id: str) -> int:
        self.flush_hits()
        return sum(self._ask(lambda: [self.index.hits(name) for name in names_of(image_id)]))

    def _oldest(self, limit: int) -> list[tuple[str, str, int]]:
        """On a full disk the index may not know what came and went lately, or not be there."""
        behind = self.lock.state.changing
        if behind is not EVERYTHING:
            try:
                rows = self._ask(lambda: self.index.oldest(limit + len(behind)))
                known = [row for row in rows if row[0] not in behind]
                return [*known, *self._unknown_entries(behind)][:limit]
            except DriverError as exc:
                log.warning("the oldest entries are found without the index: %s", exc)
        return self._oldest_files(limit)

    def _unknown_entries(self, behind: Sequence[str]) -> list[tuple[str, str, int]]:
        """Describe those that were changed last and are there."""
        present = [(name, self._status(name)) for name in dict.fromkeys(behind)]
        return [
            (name, self._id_of(name), status.st_size)
            for name, status in present
            if status is not None
        ]

    def _oldest_files(self, limit: int) -> list[tuple[str, str, int]]:
        """Go by when they were stored: nothing else is known without the index."""
        files = (
            (status.st_mtime, name, status.st_size)
            for name, status in scan(self.tree.base)
            if names.is_entry_name(name)
        )
        oldest = heapq.nsmallest(limit, files)
        return [(name, self._id_of(name), size) for _, name, size in oldest]

    def _write_hits(self, gathered: Gathered) -> None:
        strangers = self._ask(lambda: self.index.add_hits(gathered))
        # Nothing below may raise: the hits of the others would be counted twice.
        try:
            if strangers:
                with self.exclusive():
                    self._repair(strangers)
                self._ask(lambda: self.index.add_hits({n: gathered[n] for n in strangers}))
        except DriverError as exc:
            log.warning("hits of %d entries are lost: %s", len(strangers), exc)
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Keep the write-ahead log short, also where nothing but hits is written."""
        try:
            if self.index.wants_checkpoint():
                with self.exclusive():
                    self.index.checkpoint()
        except DriverError as exc:
            log.warning("the index could not be checkpointed: %s", exc.reason)
