"""Read one version of an image to its end, wherever it is to be had.

A fill can be lost for its readers while the image is not: its worker was killed,
or the disk ran full. They go on with another fill, with the entry, or with an
answer of the app for them alone, and their clients notice nothing.

Imports: core.growing, drivers.base.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.growing import FillLost, GrowingReader, as_lost
from ..drivers.base import Record

#: Times that one answer goes on elsewhere: for each of its parts, and a few times more.
_MOST_CHANGES = 70

#: Gives a reader that goes on from a position with the same version, in the place of one that
#: raised this error.
GoOn = Callable[[Record, int | None, int, FillLost], GrowingReader]


class LastingReader:
    """A reader that looks for another one when its own is lost. For one thread at a time, but
    for its closing.

    :param record: of the version that is read; empty checksum: unknown.
    :param length: bytes of it, if they are known.
    :param patience: seconds to wait for each byte that another brings.
    :param go_on: finds another reader; ``None``: there is no other.
    """

    def __init__(
        self,
        reader: GrowingReader,
        record: Record,
        length: int | None,
        *,
        patience: float,
        go_on: GoOn | None,
    ) -> None:
        self._reader = reader
        self._record = record
        self._length = length
        self._patience = patience
        self._go_on = go_on
        self._changes = 0
        self._is_closed = False

    def read(self, position: int, most: int) -> bytes:
        """Give up to ``most`` bytes from ``position``, as soon as there are any.

        :raises FillLost: there will be no more, here or elsewhere.
        :raises FillFailed: nobody may have more.
        """
        while True:
            try:
                return self._reader.read(position, most, self._patience)
            except Exception as exc:
                # The first reader has the app's own answer, or shares it: its error is
                # everybody's. What was asked for in its place may fail, and be asked for again.
                if self._changes == 0 and not isinstance(exc, FillLost):
                    raise
                lost = as_lost(self._record.image_id, exc)
            self._change(position, lost)

    def _change(self, position: int, lost: FillLost) -> None:
        """Go on with another reader.

        :raises FillLost: there is none.
        """
        self._changes += 1
        if self._go_on is None or self._changes > _MOST_CHANGES:
            raise lost
        self._reader.close()
        self._reader = self._go_on(self._record, self._length, position, lost)
        if self._is_closed:
            self._reader.close()  # whoever closed it had the other one
            raise lost

    def close(self) -> None:
        """Read no more; a second close does nothing."""
        self._is_closed = True
        self._reader.close()
