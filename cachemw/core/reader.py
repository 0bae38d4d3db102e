"""One reader of a fill of this process.

Imports: nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

#: Seconds for which a reader waits at most that has no reason to give up.
_FOR_EVER = 86400.0

#: Bytes that a whole answer takes at a time: a chunk goes out as it came.
_WHOLE = 2**62


class ReadByMany(Protocol):
    """What a reader needs of its fill."""

    @property
    def stored(self) -> bool:
        """Whether the image was stored in the end."""

    def read(self, reader: Reader, position: int, most: int, patience: float) -> bytes:
        """Give bytes from ``position``."""

    def leave(self, reader: Reader) -> None:
        """Count a reader out."""

    def give_up(self) -> None:
        """Be worth nothing any more but for readers there are."""


class Reader:
    """One reader of a fill, and the body of a whole answer made from it.

    Closing it before its end counts it out. Calls may come from any thread, one at a time.
    """

    def __init__(self, fill: ReadByMany, *, is_leader: bool) -> None:
        self.is_leader = is_leader
        #: Where it is in the image.
        self.position = 0
        self._fill = fill
        self._closed = False

    @property
    def stored(self) -> bool:
        """Whether the image was stored in the end."""
        return self._fill.stored

    def read(self, position: int, most: int, patience: float) -> bytes:
        """See :class:`~cachemw.core.growing.GrowingReader`."""
        self.position = position
        return self._fill.read(self, position, most, patience)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = b"" if self._closed else self._fill.read(self, self.position, _WHOLE, _FOR_EVER)
        if not chunk:
            raise StopIteration
        self.position += len(chunk)
        return chunk

    def give_up(self) -> None:
        """Read no more, since the answer came to nothing; nor is the image worth finishing."""
        self._fill.give_up()
        self.close()

    def close(self) -> None:
        """Read no more; a second close does nothing."""
        if not self._closed:
            self._closed = True
            self._fill.leave(self)
