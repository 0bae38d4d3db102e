"""An image on its way, or one that may turn out damaged, as something to answer from.

For the rules it is an entry: it has a record, and bytes at positions. A read
waits for bytes that have not come yet. Where the fill is lost for this reader
but not the image, it goes on elsewhere.

Imports: concurrency, core.growing, drivers.base, errors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from .. import concurrency
from ..core.growing import MOST, FillLost, Growing, GrowingReader
from ..drivers.base import Entry, Record
from ..errors import ImageCorrupt

#: Times that one answer goes on elsewhere: for each of its parts, and a few times more.
_MOST_CHANGES = 70

#: Gives a reader that goes on from a position with the same version, in the place of one that
#: raised this error.
GoOn = Callable[[Record, int | None, int, FillLost], GrowingReader]


class GrowingEntry:
    """A fill that a request answers from; an :class:`~cachemw.drivers.base.Entry` for the rules.

    :param reader: closed with it.
    :param patience: seconds to wait for each byte that another brings.
    :param go_on: finds another reader; ``None``: there is no other.
    """

    #: It is not in memory, as far as anybody knows.
    data = None

    #: What comes was checked, or is held back until it is. The first bytes are read before
    #: anything is sent, since another answer can take the place of one that has none.
    is_checked = True

    #: A read may call the app, so it is made by the request's own thread or greenlet.
    is_offloaded = False

    def __init__(
        self,
        growing: Growing,
        reader: GrowingReader,
        *,
        patience: float,
        go_on: GoOn | None,
    ) -> None:
        announced = growing.record
        assert announced is not None
        self.image_id = growing.image_id
        self.growing = growing
        #: Whether it is as good as an entry.
        self.is_verified = growing.is_verified
        self.length = growing.length
        self.size = self.length or 0
        self.record = dataclasses.replace(announced, size=self.size)
        self.on_close: Callable[[], None] | None = None
        self._reader = reader
        self._patience = patience
        self._go_on = go_on
        self._changes = 0
        self._is_closed = False

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``, as soon as there are any.

        :raises FillLost: there will be no more, here or elsewhere.
        :raises FillFailed: nobody has more.
        """
        while True:
            try:
                return self._reader.read(position, size, self._patience)
            except FillLost as exc:
                self._changes += 1
                if self._go_on is None or self._changes > _MOST_CHANGES:
                    raise
                self._reader.close()
                self._reader = self._go_on(self.record, self.length, position, exc)

    def __iter__(self) -> Iterator[bytes]:
        return Stream(self, MOST)

    def close(self) -> None:
        """Let go of it; a second close does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._reader.close()
        finally:
            on_close, self.on_close = self.on_close, None
            if on_close is not None:
                on_close()


class HealedEntry:
    """A complete image that is checked as it is read; what is found damaged comes from the app.

    Damage in the first bytes that are read raises instead: then nothing was sent yet, and the
    whole request can be a miss.

    :param entry: closed with it.
    :param go_on: finds a reader of the same version.
    """

    data = None
    is_checked = True

    #: A read may call the app.
    is_offloaded = False

    def __init__(self, entry: Entry, go_on: GoOn) -> None:
        assert entry.record is not None
        self.image_id = entry.image_id
        self.size = entry.size
        self.record = entry.record
        self._entry = entry
        self._go_on = go_on
        self._reader: GrowingReader | None = None
        self._has_begun = False

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``.

        :raises ImageCorrupt: they are damaged, and nothing was read before, or the app does
            not have this version any more.
        """
        if self._reader is None:
            try:
                data = concurrency.run_blocking(self._entry.pread, size, position)
                self._has_begun = True
                return data
            except ImageCorrupt as exc:
                if not self._has_begun:
                    raise
                lost = FillLost(self.image_id, exc.reason)
                # What was sent is right; the rest is as right as without us.
                record = dataclasses.replace(self.record, checksum="")
                try:
                    self._reader = self._go_on(record, self.size, position, lost)
                except FillLost:
                    raise exc from None
        return self._reader.read(position, size, math.inf)

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while position < self.size:
            data = self.pread(MOST, position)
            if not data:
                raise FillLost(self.image_id, f"ends at byte {position}")
            yield data
            position += len(data)

    def close(self) -> None:
        """Let go of it; a second close does nothing."""
        try:
            if self._reader is not None:
                self._reader.close()
        finally:
            self._entry.close()


class Stream:
    """The body of a whole answer whose length nobody knows yet. Closing it closes the entry."""

    def __init__(self, entry: GrowingEntry, block: int) -> None:
        self._entry = entry
        self._block = block
        self._position = 0
        self._first: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def begin(self) -> None:
        """Read the first bytes, to be given later.

        :raises FillLost: there are none; nothing was given.
        """
        self._first = self._entry.pread(self._block, 0)

    def __next__(self) -> bytes:
        data, self._first = self._first, None
        if data is None:
            data = self._entry.pread(self._block, self._position)
        if not data:
            raise StopIteration
        self._position += len(data)
        return data

    def close(self) -> None:
        self._entry.close()
