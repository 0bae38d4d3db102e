"""The storm's judge forgives what the origin or a kill explains, and nothing else."""

import dataclasses

import pytest

from .storm import content
from .storm.judge import Failure, Kill, unforgiven

#: A whole image that broke off, which began as the seventh answer of the origin.
FAILURE = Failure("broke off", 3, 10, 12, status=200, worker=100, answer=7)

#: The server's own error, of which no one knows more.
ERROR = dataclasses.replace(FAILURE, status=502, answer=None)


def line(answer=7, image=3, outcome="cut", wanted=None, version=0, began=11, ended=11, again=False):
    return {
        "answer": answer,
        "image": image,
        "outcome": outcome,
        "range": wanted,
        "if_range": wanted and content.tag(image, 0),
        "again": again,
        "version": version,
        "began": began,
        "ended": ended,
    }


@pytest.mark.parametrize(
    ("failure", "log", "kills"),
    [
        (FAILURE, [line()], []),
        (FAILURE, [line(began=1, ended=2)], []),
        (FAILURE, [line(answer=8, wanted="bytes=5-")], []),
        # The rest of it, but there is a newer version.
        (FAILURE, [line(outcome="200"), line(8, 3, "200", "bytes=5-", version=1)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "left", "bytes=5-", version=1)], []),
        # All of it, since it has a checksum.
        (FAILURE, [line(outcome="200"), line(8, 3, "200", version=1, again=True)], []),
        (FAILURE, [line(outcome="200"), line(8, again=True)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "500", again=True)], []),
        # A 304 confirmed what another answer was bringing.
        (FAILURE, [line(outcome="304"), line(8)], []),
        (FAILURE, [], [Kill(100, 11, 11)]),
        (ERROR, [line(answer=8, outcome="hung up")], []),
        (dataclasses.replace(ERROR, worker=None), [], [Kill(200, 11, 11)]),
    ],
)
def test_what_explains_a_failure_excuses_it(failure, log, kills):
    assert unforgiven([failure], log, kills) == []


@pytest.mark.parametrize(
    ("failure", "log", "kills"),
    [
        (FAILURE, [], []),
        (FAILURE, [line(outcome="200")], []),
        (FAILURE, [line(outcome="left")], []),
        # Another image, another answer, another time.
        (FAILURE, [line(answer=8, image=4, wanted="bytes=5-")], []),
        (FAILURE, [line(answer=8)], []),
        (FAILURE, [line(outcome="304"), line(8, began=1, ended=2)], []),
        (FAILURE, [line(answer=8, wanted="bytes=5-", began=1, ended=2)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "200", "bytes=5-")], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "left", "bytes=5-")], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "left", "bytes=5-", version=None)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "206", "bytes=5-", version=1)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "200", version=1)], []),
        (FAILURE, [line(outcome="200"), line(8, 3, "200", again=True)], []),
        # Another worker, or this one at another time.
        (FAILURE, [], [Kill(200, 11, 11), Kill(100, 20, 20)]),
        (ERROR, [line(answer=8, outcome="500")], []),
        (ERROR, [line(answer=8, outcome="hung up", began=1, ended=2)], []),
        # An error of the origin's own that it never sent.
        (dataclasses.replace(ERROR, status=500, answer=8), [line(answer=8, outcome="200")], []),
    ],
)
def test_nothing_else_does(failure, log, kills):
    assert unforgiven([failure], log, kills) == [failure]


def test_every_byte_that_differs_is_found():
    right = b"".join(content.chunks(30, 2, 1000, 200_000))
    for place in (0, 1, 64_535, 64_536, 198_999):
        wrong = bytearray(right)
        wrong[place] ^= 1
        assert content.first_difference(30, 2, 1000, bytes(wrong)) == 1000 + place
    assert content.first_difference(30, 2, 1000, right) is None
    # Bytes of another image, version or place.
    for number, version, start in ((31, 2, 1000), (30, 3, 1000), (30, 2, 1001)):
        assert content.first_difference(number, version, start, right) is not None
