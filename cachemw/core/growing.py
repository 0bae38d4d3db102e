"""An image that is on its way, as its readers see it: from this process or from another.

Imports: drivers.base, errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..drivers.base import Record
from ..errors import DriverError, FillError, LengthMismatch

#: Bytes that a reader gets at most at a time.
MOST = 512 * 1024


class FillLost(DriverError):
    """The fill cannot go on for this reader; the image may be had in another way.

    Its writer died, was cut off by the app, or cannot store any more; or nothing
    came for as long as the reader would wait.
    """


class FillStalled(FillLost):
    """Nothing came for as long as the reader would wait; for others it may still go on."""


class FillGone(FillLost):
    """The app does not give this version any more: nobody has the rest of it."""


class FillFailed(FillError):
    """The image is wrong: nobody may have the rest of it."""


class CutShort(LengthMismatch):
    """What came is right, as far as anybody knows, but it is not all."""


def is_wrong(error: BaseException) -> bool:
    """Say whether the bytes themselves are at fault."""
    return isinstance(error, FillError) and not isinstance(error, CutShort)


def as_lost(image_id: str, error: Exception) -> FillLost:
    """Give an error as one after which the image may be had elsewhere; raise any other."""
    if isinstance(error, FillLost) and not isinstance(error, FillGone):
        return error
    if isinstance(error, FillGone) or is_wrong(error):
        raise error
    lost = FillLost(image_id, described(error))
    lost.__cause__ = error
    return lost


def described(exc: BaseException) -> str:
    """Say what went wrong, for a log or a reason."""
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


class GrowingReader(Protocol):
    """One reader of a fill. For one thread at a time."""

    def read(self, position: int, most: int, patience: float) -> bytes:
        """Give bytes from ``position``, as soon as there are any.

        :param most: at most so many.
        :param patience: seconds to wait for another to bring the next byte.
        :return: empty at the image's end, once all of it was found right.
        :raises FillLost: there will be no more here.
        :raises FillFailed: nobody has more.
        """

    def close(self) -> None:
        """Read no more; a second close does nothing."""


class Growing(Protocol):
    """A fill under way. Threads may share it."""

    @property
    def image_id(self) -> str:
        """What is filled."""

    @property
    def record(self) -> Record | None:
        """What the app said about it; ``None``: nothing yet. Size 0, checksum empty."""

    @property
    def length(self) -> int | None:
        """Bytes that the app promised, or ``None``; of use once there is a record."""

    @property
    def available(self) -> int:
        """Bytes, from the first, that a reader gets without waiting."""

    @property
    def declined(self) -> str:
        """A word for why it is not stored, so that everybody asks the app for himself."""

    @property
    def is_verified(self) -> bool:
        """Whether all of it is there and was found right, so that it is as good as an entry."""

    def count_hit(self, count: Callable[[], object]) -> None:
        """Have a hit counted as soon as the image is an entry."""

    def is_overtaken(self) -> bool:
        """Say whether the image was deleted since it began, also if it is over by now; of use
        to who has a reader of it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""

    def is_current(self) -> bool:
        """Say whether somebody who asks now may follow it."""

    def wait_for_record(self, seconds: float) -> bool:
        """Wait until the app has answered. :return: whether :attr:`record` is there now;
        if not, it is declined or over, or the time has passed."""

    def reader(self) -> GrowingReader:
        """Give one more reader."""
