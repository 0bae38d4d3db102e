"""What an answer counts as, by the fields that it has."""

import pytest

from cachemw.web import measuring
from cachemw.web.measuring import declared_length, outcome_in, whole_length


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("hit", "hit"),
        ("hit; detail=partial", "hit"),
        ("hit; detail=adopted", "hit"),
        ("hit; detail=stale-while-revalidate", "stale"),
        ("fwd=stale; detail=stale-if-error", "stale"),
        ("fwd=stale; fwd-status=503; detail=stale-if-error", "stale"),
        ("fwd=uri-miss; collapsed", "collapsed"),
        ("fwd=uri-miss; stored", "miss"),
        ("fwd=stale; fwd-status=200; stored", "miss"),
        ("fwd=stale; fwd-status=304", "revalidated"),
        ("fwd=request; fwd-status=200", "revalidated"),
        ("fwd=stale; fwd-status=206; detail=partial", "revalidated"),
        ("fwd=stale; fwd-status=200; detail=no-store", "pass"),
        ("fwd=uri-miss; detail=range", "pass"),
        ("fwd=bypass; detail=method", "bypass"),
        ("detail=only-if-cached", "bypass"),
    ],
)
def test_outcome_is_read_from_cache_status(status, outcome):
    theirs = ("Cache-Status", "other; hit")

    assert outcome_in([theirs, ("Cache-Status", f"cachemw; {status}")]) == outcome


def test_answer_that_the_app_wrote_before_anybody_looked_is_passed():
    assert outcome_in([("Content-Type", "image/png")]) == "pass"


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([], 0),
        ([("content-length", "12")], 12),
        ([("Content-Length", "12"), ("Age", "1"), ("Cache-Status", "x")], 12),
        ([("Content-Length", "12, 12"), ("X-A", "1"), ("X-B", "1"), ("X-C", "1")], 0),
        ([("Content-Type", "a/b")], 0),
        ([("Content-Length", "9" * 5000)], 0),
        ([("Content-Length", str(2**64))], 0),
        ([("Content-Length", str(2**64)), ("Age", "1"), ("Cache-Status", "x")], 0),
    ],
)
def test_declared_length(headers, length):
    assert declared_length(headers) == length


@pytest.mark.parametrize(
    ("status", "headers", "size"),
    [
        ("200 OK", [("Content-Length", "12")], 12),
        ("200 OK", [], None),
        ("206 Partial Content", [("Content-Range", "bytes 0-3/12"), ("Content-Length", "4")], 12),
        ("206 Partial Content", [("Content-Range", "bytes 0-3/*")], None),
        ("206 Partial Content", [("Content-Type", "multipart/byteranges")], None),
        ("304 Not Modified", [("Content-Length", "12")], None),
        ("404 Not Found", [("Content-Length", "12")], None),
    ],
)
def test_length_of_the_image(status, headers, size):
    assert whole_length(status, headers) == size


def test_every_outcome_has_its_places():
    places = [place for all_of_one in measuring._PLACES.values() for place in all_of_one]

    assert len(set(places)) == len(places)
