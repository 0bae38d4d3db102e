"""A reader that looks for another one when its own is lost."""

from __future__ import annotations

import math

import pytest

from cachemw.core.growing import FillFailed, FillGone, FillLost, FillStalled
from cachemw.drivers.base import Record
from cachemw.errors import ChecksumMismatch, UpstreamFailed
from cachemw.web.lasting import LastingReader

SIZE = 100
IMAGE = bytes(range(SIZE))

LOST = FillLost("cat", "its writer is gone")


class Reads:
    """Gives ten bytes at a time, up to a byte where it fails."""

    def __init__(self, stop=SIZE, error=None):
        self.stop, self.error = stop, error
        self.closed = 0

    def read(self, position, most, patience):
        if position >= self.stop and self.error is not None:
            raise self.error
        return IMAGE[position : min(position + 10, position + most, self.stop)]

    def close(self):
        self.closed += 1


class Others:
    """Finds the readers it was given, one after the other; an error is raised."""

    def __init__(self, *found):
        self.found = list(found)
        self.asked = []

    def __call__(self, record, length, position, lost):
        assert (record.image_id, length) == ("cat", len(IMAGE))
        self.asked.append((position, lost))
        other = self.found.pop(0)
        if isinstance(other, Exception):
            raise other
        return other


def lasting(first, go_on):
    record = Record("cat", 0, "")
    return LastingReader(first, record, len(IMAGE), patience=math.inf, go_on=go_on)


def read_all(reader):
    data = b""
    while block := reader.read(len(data), 50):
        data += block
    return data


@pytest.mark.parametrize("error", [LOST, FillStalled("cat", "nothing came")])
def test_another_goes_on_where_the_first_was_lost(error):
    first, second = Reads(30, error), Reads()
    others = Others(second)
    reader = lasting(first, others)

    assert read_all(reader) == IMAGE

    assert others.asked == [(30, error)]
    reader.close()
    assert (first.closed, second.closed) == (1, 1)


@pytest.mark.parametrize("error", [UpstreamFailed("reset"), OSError(5, "broken"), LOST])
def test_what_was_asked_for_in_its_place_may_fail_too(error):
    others = Others(Reads(50, error), Reads(50, error), Reads())

    assert read_all(lasting(Reads(30, LOST), others)) == IMAGE

    assert [position for position, _ in others.asked] == [30, 50, 50]
    assert all(isinstance(lost, FillLost) for _, lost in others.asked)


def test_where_nothing_is_found_it_ends():
    others = Others(UpstreamFailed("reset"))

    with pytest.raises(UpstreamFailed):
        read_all(lasting(Reads(30, LOST), others))


def test_it_does_not_go_on_for_ever():
    others = Others(*(Reads(stop, LOST) for stop in range(1000)))
    reader = lasting(Reads(0, LOST), others)

    with pytest.raises(FillLost):
        for position in range(1000):
            reader.read(position % 100, 1)

    assert len(others.asked) < 100


def test_what_is_found_when_it_was_closed_meanwhile_is_closed():
    """By the server, on another thread than the one that reads."""
    other = Reads()

    def go_on(record, length, position, lost):
        reader.close()
        return other

    first = Reads(30, LOST)
    reader = lasting(first, go_on)
    with pytest.raises(FillLost):
        read_all(reader)
    assert other.closed == 1


def test_the_first_error_of_the_app_is_everybodys():
    others = Others(Reads())

    with pytest.raises(UpstreamFailed):
        read_all(lasting(Reads(30, UpstreamFailed("reset")), others))

    assert others.asked == []


@pytest.mark.parametrize(
    "error",
    [
        ChecksumMismatch("cat", "md5 is another"),
        FillFailed("cat", "its bytes are wrong"),
        FillGone("cat", "the app has another version by now"),
    ],
)
@pytest.mark.parametrize("where", ["asking", "reading"])
def test_nobody_asks_again_for_what_is_wrong_or_replaced(error, where):
    others = Others(error if where == "asking" else Reads(50, error), Reads())

    with pytest.raises(type(error)):
        read_all(lasting(Reads(30, LOST), others))

    assert len(others.asked) == 1


def test_without_another_the_loss_is_the_end():
    with pytest.raises(FillLost):
        read_all(lasting(Reads(30, LOST), None))
