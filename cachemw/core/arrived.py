"""The bytes of an image that have come: which are in memory, and which in its file.

What was pumped stays in memory until it is in the file, so that no reader waits for a device.

Imports: drivers.base.
"""

from __future__ import annotations

import bisect

from ..drivers.base import Part


class Arrived:
    """The bytes of one fill. Its owner sees that one thread uses it at a time."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._chunks: list[bytes] = []
        self._kept: list[Part] = []

    @property
    def in_memory(self) -> int:
        """Bytes."""
        return sum(map(len, self._chunks))

    def add(self, start: int, chunk: bytes | Part) -> None:
        """Take in the next bytes, or a part that is in the file already."""
        if isinstance(chunk, Part):
            self._kept.append(chunk)
        else:
            self._starts.append(start)
            self._chunks.append(chunk)

    def find(self, start: int, stop: int, written: int) -> bytes | Part | None:
        """Find bytes that begin at ``start``, and end at ``stop`` or before.

        :param written: bytes that are in the file, from the first.
        :return: the bytes, or where in the file they are; ``None``: they are gone.
        """
        place = bisect.bisect_right(self._starts, start) - 1
        if place >= 0 and start < self._end_of(place):
            # Mostly all of a chunk, and then it is not copied.
            first = self._starts[place]
            return self._chunks[place][start - first : stop - first]
        for begin, end in (*self._kept, (0, written)):
            if begin <= start < end:
                return Part(start, min(stop, end))
        return None

    def forget_written(self, written: int) -> None:
        """Drop from memory what is in the file."""
        count = 0
        while count < len(self._starts) and self._end_of(count) <= written:
            count += 1
        self._keep(range(count, len(self._starts)))

    def forget_between(self, start: int, stop: int) -> None:
        """Drop from memory chunks that begin at ``start`` or after, and end at ``stop`` or
        before."""
        places = range(len(self._starts))
        self._keep([p for p in places if self._starts[p] < start or self._end_of(p) > stop])

    def forget_but_last(self) -> None:
        """Drop from memory all but the last chunk."""
        del self._starts[:-1], self._chunks[:-1]

    def clear(self) -> None:
        """Drop all from memory."""
        self._keep(())

    def _keep(self, places: range | list[int] | tuple[()]) -> None:
        if len(places) < len(self._starts):
            self._starts = [self._starts[place] for place in places]
            self._chunks = [self._chunks[place] for place in places]

    def _end_of(self, place: int) -> int:
        return self._starts[place] + len(self._chunks[place])
