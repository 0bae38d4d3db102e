"""Which bytes of an image are there, and the checksums of its chunks as they come.

Nothing here touches a file, but for the one function that is given to read
back a chunk that came in pieces out of order.

Imports: drivers._states, drivers.base.
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Callable

from ._states import Chunk
from .base import CHUNK, Part


class Parts:
    """Disjoint parts in order, none touching the next. One thread adds, others may look."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, start: int, stop: int) -> None:
        """Add a part, which may overlap others."""
        if start >= stop:
            return
        parts = self._parts
        first = bisect.bisect_left(parts, start, key=lambda part: part.stop)
        last = first
        while last < len(parts) and parts[last].start <= stop:
            start, stop = min(start, parts[last].start), max(stop, parts[last].stop)
            last += 1
        # Not changed in place: others may be looking.
        self._parts = [*parts[:first], Part(start, stop), *parts[last:]]

    def stop_from(self, start: int) -> int:
        """Give the end of the part that has the byte at ``start``; ``start`` if none has."""
        parts = self._parts
        place = bisect.bisect_right(parts, start, key=lambda part: part.start) - 1
        return max(start, parts[place].stop) if place >= 0 else start

    def touches(self, start: int, stop: int) -> bool:
        """Say whether any byte of a range is there."""
        parts = self._parts
        place = bisect.bisect_right(parts, start, key=lambda part: part.stop)
        return place < len(parts) and parts[place].start < stop

    @property
    def end(self) -> int:
        """The position after the last byte that is there."""
        return self._parts[-1].stop if self._parts else 0

    def are(self, size: int) -> bool:
        """Say whether exactly the first ``size`` bytes are there."""
        return self._parts == ([Part(0, size)] if size else [])

    def all(self) -> tuple[Part, ...]:
        """Give them all."""
        return tuple(self._parts)


class Chunks:
    """Notes what is written, and gives the checksum of each chunk that became whole.

    :param read: gives ``size`` bytes from a position, of what was written.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.parts = Parts()
        self._read = read
        #: Of each chunk that is not whole: its beginning, or ``None``: pieces out of order.
        self._begun: dict[int, Chunk | None] = {}

    def keep(self, chunk: Chunk) -> None:
        """Take a chunk, or the beginning of one, that an earlier writer left."""
        start = chunk.number * CHUNK
        self.parts.add(start, start + chunk.length)
        if chunk.length < CHUNK:
            self._begun[chunk.number] = chunk

    def note(self, position: int, data: memoryview) -> list[Chunk]:
        """Note bytes that were written. :return: the chunks that they made whole."""
        whole = []
        while data:
            index, offset = divmod(position, CHUNK)
            piece = data[: CHUNK - offset]
            chunk = self._with(index, offset, piece)
            self.parts.add(position, position + len(piece))
            if chunk is None and self._covered(index) == CHUNK:
                chunk = self._read_back(index)
            if chunk is not None and chunk.length == CHUNK:
                self._begun.pop(index, None)
                whole.append(chunk)
            else:
                self._begun[index] = chunk
            position += len(piece)
            data = data[len(piece) :]
        return whole

    def _with(self, index: int, offset: int, piece: memoryview) -> Chunk | None:
        """Give a chunk's beginning with a piece after it; ``None``: it does not follow."""
        if len(piece) == CHUNK:
            return Chunk(index, CHUNK, zlib.crc32(piece))
        begun = self._begun.get(index)
        if begun is None:
            start = index * CHUNK
            if offset or self.parts.touches(start, start + CHUNK):
                return None
            begun = Chunk(index, 0, 0)
        if begun.length != offset:
            return None
        return Chunk(index, offset + len(piece), zlib.crc32(piece, begun.crc))

    def settle(self) -> list[Chunk]:
        """Give the beginnings of the chunks that are not whole, in order."""
        return [chunk or self._read_back(index) for index, chunk in sorted(self._begun.items())]

    def _covered(self, index: int) -> int:
        """Give how many bytes of a chunk, from its first, are there."""
        start = index * CHUNK
        return min(self.parts.stop_from(start) - start, CHUNK)

    def _read_back(self, index: int) -> Chunk:
        data = self._read(self._covered(index), index * CHUNK)
        return Chunk(index, len(data), zlib.crc32(data))
