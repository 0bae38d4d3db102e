"""An image on its way, or one that may turn out damaged, as something to answer from.

For the rules it is an entry: it has a record, and bytes at positions. A read
waits for bytes that have not come yet.

Imports: concurrency, core.growing, drivers.base, errors, web.lasting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from .. import concurrency
from ..core.growing import MOST, FillLost, Growing, GrowingReader
from ..drivers.base import Entry
from ..errors import ImageCorrupt
from .lasting import GoOn, LastingReader


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
        self._reader = LastingReader(
            reader, self.record, self.length, patience=patience, go_on=go_on
        )
        self._is_closed = False

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``, as soon as there are any.

        :raises FillLost: there will be no more, here or elsewhere.
        :raises FillFailed: nobody has more.
        """
        return self._reader.read(position, size)

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
        self._entry = _Damageable(entry)
        # What was sent is right; the rest is as right as without us.
        anything = dataclasses.replace(self.record, checksum="")
        self._reader = LastingReader(
            self._entry, anything, self.size, patience=math.inf, go_on=go_on
        )

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``.

        :raises ImageCorrupt: they are damaged, and nothing was read before, or the app did not
            give them either.
        """
        try:
            return self._reader.read(position, size)
        except FillLost as exc:
            raise self._entry.damage or exc from None

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
        self._reader.close()


class _Damageable:
    """Reads an entry that may turn out damaged, for one who can go on elsewhere."""

    def __init__(self, entry: Entry) -> None:
        #: What was found once something had been read.
        self.damage: ImageCorrupt | None = None
        self._entry = entry
        self._has_begun = False

    def read(self, position: int, most: int, patience: float) -> bytes:
        """See :class:`~cachemw.core.growing.GrowingReader`."""
        try:
            data = concurrency.run_blocking(self._entry.pread, most, position)
        except ImageCorrupt as exc:
            if not self._has_begun:
                raise
            self.damage = exc
            raise FillLost(exc.image_id, exc.reason) from exc
        self._has_begun = True
        return data

    def close(self) -> None:
        """Close the entry; a second close does nothing."""
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
