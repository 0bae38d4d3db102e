"""Answer a range of an image that is not cached from its parts: what is kept, or a part more.

The aligned part that is missing is fetched, kept, and answered from; parts add
up, and whoever fetches the whole image one day has only the holes sent.
Nobody holds the image's fill while a client reads.

Source: RFC 9110, sections 13.1.5, 14 and 15.3.7.

Imports: core.cache, core.fill, drivers.base, errors, web.conditional, web.exchange, web.fields,
web.ranges, web.respond.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from ..core.cache import ImageCache
from ..core.fill import Fill
from ..drivers.base import CHUNK, Kept, Part, Record, Sink
from ..errors import DriverError, LengthMismatch
from . import fields
from .exchange import Answer
from .ranges import parse_range

log = logging.getLogger(__name__)

Environ = dict[str, Any]

#: A longer part is not kept by itself (bytes): whoever wants so much soon has the whole.
MOST = 64 * 2**20

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class KeptEntry:
    """An image of which the parts that are asked for are there, as something to answer from.

    :param sink: not anybody's fill any more; closed with it.
    """

    data = None
    is_checked = False
    is_offloaded = True

    def __init__(self, record: Record, sink: Sink) -> None:
        self.record = record
        self._sink = sink

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``."""
        return self._sink.pread(size, position)

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("only parts are there")

    def close(self) -> None:
        """Let go of it; a second close does nothing."""
        self._sink.close()


class Slice:
    """The body of an answer that asks the app for a part, keeps it, and gives what is wanted.

    :param answer: of the app, with the bytes of ``part``.
    :param lead: the image's fill, claimed until the part is there; it may be over already.
    :param wanted: what the client gets, within ``part``.
    """

    def __init__(self, answer: Answer, lead: Fill, part: Part, wanted: Part) -> None:
        self._answer = answer
        self._lead = lead
        self._wanted = wanted
        self._part = part
        self._position = part.start
        self._chunks = iter(answer.body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self._position < self._part.stop:
            chunk = next(self._chunks, b"")
            start = self._position
            stop = start + len(chunk)
            if not chunk or stop > self._part.stop:
                raise LengthMismatch(self._lead.image_id, f"{stop} is not the end of {self._part}")
            self._keep(chunk, start)
            self._position = stop
            if stop == self._part.stop:
                self.close()  # before the client knows that it was all
            piece = chunk[max(self._wanted.start - start, 0) : max(self._wanted.stop - start, 0)]
            if piece:
                return piece
        raise StopIteration

    def _keep(self, chunk: bytes, start: int) -> None:
        sink = self._lead.sink
        if sink is None:
            return
        try:
            sink.write(chunk, start)
        except DriverError as exc:
            log.warning("%s: its part is not kept: %s", self._lead.image_id, exc.reason)
            self._lead.decline("")

    def close(self) -> None:
        """Close the app's answer, and let others have the image's fill."""
        try:
            self._answer.close()
        finally:
            self._lead.decline("")


def wanted_of(kept: Kept, value: str) -> list[Part] | None:
    """Give the parts that a Range field asks for; ``None``: it is to be ignored."""
    assert kept.length is not None
    slices = parse_range(value, kept.length)
    return None if slices is None else [Part(*ends) for ends in slices]


def is_there(kept: Kept, wanted: list[Part]) -> bool:
    """Say whether all of some parts is kept."""
    return all(
        any(part.start <= want.start and want.stop <= part.stop for part in kept.parts)
        for want in wanted
    )


def missing(kept: Kept, want: Part) -> Part:
    """Give the smallest aligned part that makes ``want`` whole."""
    assert kept.length is not None
    start, stop = want.start // CHUNK * CHUNK, min(-(-want.stop // CHUNK) * CHUNK, kept.length)
    for part in kept.parts:
        if part.start <= start < part.stop:
            start = part.stop
    for part in reversed(kept.parts):
        if part.start < stop <= part.stop:
            stop = part.start
    return Part(start, stop)


def aligned(value: str) -> str | None:
    """Give the Range field that asks for all chunks of a range, before anything is known.

    :return: ``None``: it is not a single range, or one of no known end.
    """
    match = _RANGE.fullmatch(value.strip(fields.OWS))
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return f"bytes=-{int(last) + CHUNK}" if last and 0 < int(last) <= MOST else None
    if not last or not int(first) <= int(last) < int(first) + MOST:
        return None
    start, stop = int(first) // CHUNK * CHUNK, -(-(int(last) + 1) // CHUNK) * CHUNK
    return f"bytes={start}-{stop - 1}"


def part_in(answer: Answer) -> tuple[Part, int] | None:
    """Give which part an answer has, and the length of the whole; ``None``: it is no part."""
    if answer.code != 206 or answer.written:
        return None
    match = _CONTENT_RANGE.fullmatch(fields.get(answer.headers, "content-range") or "")
    if match is None:
        return None
    first, last, length = map(int, match.groups())
    return (Part(first, last + 1), length) if first <= last < length else None


def make_room(cache: ImageCache, lead: Fill, kept: Kept | None, part: Part) -> None:
    """Have room for a part more of an image.

    :raises DriverError: there is none.
    """
    sink = lead.sink
    assert sink is not None
    there = sum(stop - start for start, stop in kept.parts) if kept is not None else 0
    more = part.stop - part.start
    cache.capacity.make_room(lead.image_id, sink, there + more, more)
