"""Read one version of an image to its end, wherever it is to be had.

A fill can be lost for its readers while the image is not: its worker was killed,
or the disk ran full. They go on with another fill, with the entry, or with an
answer of the app for them alone, and their clients notice nothing.

Imports: core.growing, core.intake, drivers.base.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.growing import FillLost, FillReplaced, GrowingReader, is_wrong
from ..core.intake import described
from ..drivers.base import Record

#: Times that one answer goes on elsewhere: for each of its parts, and a few times more.
_MOST_CHANGES = 70

#: Of these, without a byte that came meanwhile.
_MOST_IN_VAIN = 3

#: Gives a reader that goes on from a position with the same version, in the place of one that
#: raised this error.
GoOn = Callable[[Record, int | None, int, FillLost], GrowingReader]


class LastingReader:
    """A reader that looks for another one when its own is lost. For one thread at a time.

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
        self._in_vain = 0

    def read(self, position: int, most: int) -> bytes:
        """Give up to ``most`` bytes from ``position``, as soon as there are any.

        :raises FillLost: there will be no more, here or elsewhere;
            :class:`~cachemw.core.growing.FillReplaced`: of this version.
        :raises FillFailed: nobody has more.
        """
        while True:
            try:
                data = self._reader.read(position, most, self._patience)
            except Exception as exc:
                lost = self._lost(exc)
            else:
                self._in_vain = 0
                return data
            self._change(position, lost)

    def _lost(self, exc: Exception) -> FillLost:
        """Give an error as one after which the image may be had elsewhere; raise any other."""
        if isinstance(exc, FillLost) and not isinstance(exc, FillReplaced):
            return exc
        # The first reader has the app's own answer, or shares it: its error is everybody's.
        # What was asked for in its place may fail, and be asked for again.
        if self._changes == 0 or is_wrong(exc) or isinstance(exc, FillReplaced):
            raise exc
        return FillLost(self._record.image_id, described(exc))

    def _change(self, position: int, lost: FillLost) -> None:
        """Go on with another reader.

        :raises FillLost: there is none.
        """
        while True:
            self._changes += 1
            self._in_vain += 1
            is_enough = self._changes > _MOST_CHANGES or self._in_vain > _MOST_IN_VAIN
            if self._go_on is None or is_enough:
                raise lost
            self._reader.close()
            try:
                self._reader = self._go_on(self._record, self._length, position, lost)
                return
            except Exception as exc:
                lost = self._lost(exc)

    def close(self) -> None:
        """Read no more; a second close does nothing."""
        self._reader.close()
