"""One fill for everybody: who leads it, and who follows.

Imports: concurrency, core.asked, core.body, core.capacity, core.checksum, core.declined,
core.entries, core.fill, core.fills, core.growing, core.reader, drivers.base, errors,
metrics.counters, metrics.declared.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .. import concurrency
from ..drivers.base import Driver, Entry, MemoryEntry, Record
from ..errors import DriverError, FillUnderWay
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import DRIVER_SECONDS, FILLS_RESUMED
from .asked import Asked
from .body import Chunk
from .capacity import Capacity, Room
from .checksum import Checksum
from .declined import Declined
from .entries import Entries
from .fill import NEVER, Fill
from .fills import Fills
from .growing import Growing, GrowingReader
from .reader import Reader

#: Seconds before who could neither lead nor follow looks again.
_MOMENT = 0.01


class Joined(NamedTuple):
    """Who has an image: an entry, a fill under way (with a reader), or the caller, who leads."""

    entry: Entry | MemoryEntry | None = None
    growing: Growing | None = None
    reader: GrowingReader | None = None
    lead: Fill | None = None


class FillOvertaken(DriverError):
    """The image was deleted after the app was asked for it."""


class Sharing:
    """Has everybody who wants an image read what one asked the app for. Threads may share it.

    :param fills: those that are under way.
    :param entries: where an image is looked for that was stored meanwhile.
    :param counters: count what is gone on with.
    """

    def __init__(
        self,
        driver: Driver,
        capacity: Capacity,
        fills: Fills,
        entries: Entries,
        counters: Counters = NOBODY,
    ) -> None:
        #: Images of which nobody waits for somebody else's answer.
        self.declined = Declined()
        self._driver = driver
        self._capacity = capacity
        self._fills = fills
        self._entries = entries
        self.counters = counters

    def is_filling(self, image_id: str, selects: Callable[[Record], bool]) -> bool:
        """Say whether what is asked for may be on its way here, and nothing else is stored.

        It looks at no file: of many threads that come at once each would have to wait for its
        turn after every system call.
        """
        return any(
            fill.is_first and (fill.record is None or selects(fill.record))
            for fill in self._fills.own(image_id)
        )

    def join(
        self,
        image_id: str,
        selects: Callable[[Record], bool],
        *,
        patience: float,
        may_lead: bool,
        finish_from: float = NEVER,
        is_movable: bool = False,
    ) -> Joined:
        """Find who has an image that is not stored: a fill under way, or the caller.

        :param selects: whether an image, or a variant of it, is the one that is asked for.
        :param patience: seconds to wait for the app's answer to somebody else.
        :param may_lead: whether the caller will ask the app, and have its answer stored.
        :param finish_from: as for :class:`~cachemw.core.fill.Fill`, if it does.
        :return: what was found; empty: the caller asks the app for himself.
        """
        deadline = time.monotonic() + patience
        while True:
            under_way = self._fills.under_way(image_id)
            for growing in under_way:
                joined = self._follow(growing, selects, deadline if may_lead else 0.0)
                if joined is not None:
                    return joined
            if not may_lead:
                # What has just ended may be an entry.
                return Joined(entry=self._entries.lookup(image_id, selects))
            claimed = self._fills.claim(image_id, finish_from=finish_from, is_movable=is_movable)
            if isinstance(claimed, Fill):
                return self._lead(claimed, selects)
            left = deadline - time.monotonic()
            if left <= 0:
                return Joined()
            if isinstance(claimed, Asked):
                claimed.wait(left)
            else:
                concurrency.Waiter().wait(_MOMENT)

    def _lead(self, claimed: Fill, selects: Callable[[Record], bool]) -> Joined:
        """Have the caller lead, unless the image was stored since it looked."""
        is_first = True

        def select(record: Record) -> bool:
            nonlocal is_first
            is_first = False
            return selects(record)

        try:
            entry = self._entries.lookup(claimed.image_id, select)
        except BaseException:
            claimed.decline("")
            raise
        if entry is None:
            claimed.is_first = is_first
            return Joined(lead=claimed)
        claimed.decline("")
        return Joined(entry=entry)

    def _follow(
        self, growing: Growing, selects: Callable[[Record], bool], deadline: float
    ) -> Joined | None:
        """Follow a fill if it is the one that is asked for.

        :return: ``None``: it ended, and left nothing to be known of the image.
        """
        reader = growing.reader()
        has_ended = True
        try:
            # Else it ended since it was found under way, and its file may be closed by now.
            if growing.is_current():
                growing.wait_for_record(max(deadline - time.monotonic(), 0.0))
                record = growing.record
                # It may have been deleted while the app was about to answer.
                is_right = not growing.declined and not growing.is_overtaken()
                if record is not None and is_right and selects(record):
                    return Joined(growing=growing, reader=reader)
                has_ended = growing.is_overtaken() or (record is None and growing.is_over)
        except BaseException:
            reader.close()
            raise
        reader.close()
        if has_ended and not growing.declined:
            return None
        return Joined(entry=self._entries.lookup(growing.image_id, selects))

    def start_fill(
        self,
        image_id: str,
        source: Iterable[Chunk],
        record: Record,
        *,
        lead: Fill | None = None,
        length: int | None = None,
        expected: tuple[Checksum, ...] = (),
        is_resumable: bool = False,
        keep: bool = False,
        mark: bytes | None = None,
    ) -> Reader:
        """Begin to store what an app sends.

        :param source: its chunks, and parts that are kept; closed by the fill.
        :param record: what is known before the first byte; size and checksum are filled in.
        :param lead: the fill that the caller has claimed; ended here if this raises.
        :param length: bytes promised, or ``None``.
        :param expected: checksums promised, the strongest first.
        :param is_resumable: whether the app can be asked for the rest of this version.
        :param keep: whether it goes on with what is kept, of which ``source`` has the parts.
        :param mark: what ``ImageCache.mark_of_deletion`` gave before the app was asked, if it did.
        :return: the leading reader.
        :raises FillOvertaken: the image was deleted since then.
        :raises CacheFull: there is no room for it.
        :raises DriverError: somebody else fills it, or it cannot be written.
        """
        fill = lead or self._fills.claim(image_id)
        if not isinstance(fill, Fill):
            raise FillUnderWay(image_id, "is being filled already")
        try:
            concurrency.run_blocking(self._make_ready, fill, record, length, keep, mark)
        except BaseException as exc:
            fill.decline(exc.reason if isinstance(exc, DriverError) else "error")
            raise
        self.declined.forget(image_id)
        reader = fill.begin(
            source,
            record,
            length=length,
            expected=expected,
            make_record=_completing(record),
            is_resumable=is_resumable,
        )
        self._fills.begun(fill)
        return reader

    def _make_ready(
        self, fill: Fill, record: Record, length: int | None, keep: bool, mark: bytes | None
    ) -> None:
        """Have a fill's file ready for what the app answered."""
        sink = fill.sink
        if sink is not None and record.variant:
            # What is kept is of another variant.
            sink.leave()
            sink.close()
            sink = None
        if sink is None:
            began = time.perf_counter()
            sink = fill.sink = self._driver.start_fill(fill.image_id, record.variant)
            self.counters.observe(DRIVER_SECONDS, time.perf_counter() - began, "start")
        # Between the two: whoever deletes leaves the mark first, and then looks for the files.
        if mark is not None and self._driver.mark_of_deletion(fill.image_id) != mark:
            raise FillOvertaken(fill.image_id, "changed while the app answered")
        sink.announce(record, length, keep)
        parts = sink.kept.parts if keep and sink.kept is not None else ()
        kept = sum(stop - start for start, stop in parts)
        fill.room = Room(self._capacity, fill.image_id, length, kept)
        fill.room.begin(sink)
        if keep:
            self.counters.add(FILLS_RESUMED)

    def decline(self, lead: Fill, word: str, is_lasting: bool, keeps: bool = False) -> None:
        """End a fill whose answer is not stored.

        :param is_lasting: whether other answers for it will not be either, for a while.
        :param keeps: whether what is kept of the image stays.
        """
        if is_lasting:
            self.declined.add(lead.image_id)
        lead.decline(word, keeps)

    def verifying(
        self,
        source: Iterable[bytes],
        record: Record,
        *,
        length: int | None,
        expected: tuple[Checksum, ...],
    ) -> Reader:
        """Give what reads an image, and holds its end back until it was found right; it is not
        stored."""
        room = Room(self._capacity, record.image_id, None)
        fill = Fill(record.image_id, None, room, counters=self.counters)
        return fill.begin(
            source, record, length=length, expected=expected, make_record=_completing(record)
        )


def _completing(record: Record) -> Callable[[int, str], Record]:
    """Give what makes a record whole once size (bytes) and checksum are known."""
    return lambda size, checksum: dataclasses.replace(record, size=size, checksum=checksum)
