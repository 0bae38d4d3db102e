"""Ranges of images that are not there, with ``range_miss`` pass, queue and fill."""

import pytest

from tests.wsgi import begin, get

from .asking import (
    BODY,
    IMAGE_ID,
    PATH,
    assert_part,
    assert_whole,
    partial,
    queued,
    wait_until_cached,
    want,
)

# pass and queue


@pytest.mark.parametrize(("mode", "expected"), [("pass", []), ("queue", [IMAGE_ID])])
def test_range_is_the_apps_to_answer(make, origin, mode, expected):
    app = make(mode)

    for _ in range(2):
        assert_part(want(app, "bytes=1000-1999"), 1000, 2000)

    assert want(app, "bytes=1000-1999").cache == "fwd=uri-miss; detail=range"
    assert origin.ranges_asked == ["bytes=1000-1999"] * 3
    assert queued(app) == expected
    assert partial(app) == 0


@pytest.mark.parametrize("case", ["416", "200", "404", "503"])
def test_only_a_part_that_came_is_a_reason_to_queue(make, origin, case):
    app = make("queue")
    value = "bytes=99999999-" if case == "416" else "bytes=0-9"
    if case == "404":
        origin.body = None
    elif case == "200":
        origin.ranges = False
    elif case == "503":
        origin.bend = lambda asked, sent: setattr(sent, "status", "503 Service Unavailable")

    assert want(app, value).status == int(case)

    assert queued(app) == []


# fill


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=300000-399999", 300000, 400000),
        ("bytes=-1000", len(BODY) - 1000, len(BODY)),
        ("bytes=-99999999", 0, len(BODY)),
        ("bytes=1000000-", 1000000, len(BODY)),
    ],
)
def test_fill_answers_a_range_from_the_whole(make, origin, value, start, stop):
    app = make("fill")

    reply = want(app, value)

    assert_part(reply, start, stop)
    assert reply.cache == "fwd=uri-miss; stored"
    wait_until_cached(app)
    assert want(app, value).cache == "hit"
    assert_whole(get(app, PATH))
    assert origin.ranges_asked == [None]


def test_fill_goes_on_after_a_client_that_left_in_mid_range(make, origin):
    app = make("fill")
    begun = begin(app, PATH, Range="bytes=0-999999")
    begun.step()

    begun._body.close()

    wait_until_cached(app)
    assert_whole(get(app, PATH))
    assert origin.ranges_asked == [None]


def test_fill_answers_several_ranges(make, origin):
    app = make("fill")

    reply = want(app, "bytes=0-9,1000000-1000009")

    assert (reply.status, reply.error) == (206, None)
    assert BODY[:10] in reply.body
    assert BODY[1000000:1000010] in reply.body
    assert reply.get("Content-Type").startswith("multipart/byteranges")
    wait_until_cached(app)


def test_fill_answers_a_range_beyond_the_end(make, origin):
    app = make("fill")

    reply = want(app, "bytes=99999999-")

    assert (reply.status, reply.body) == (416, b"")
    assert reply.get("Content-Range") == f"bytes */{len(BODY)}"
    wait_until_cached(app)


@pytest.mark.parametrize("mode", ["fill", "slice"])
def test_if_range_of_this_version_gets_the_part(make, mode):
    """RFC 9110, section 13.1.5."""
    reply = want(make(mode), "bytes=10-19", If_Range='"one"')

    assert_part(reply, 10, 20)


@pytest.mark.parametrize("mode", ["fill", "slice"])
def test_if_range_of_another_version_gets_all(make, origin, mode):
    """RFC 9110, section 13.1.5; the image is stored, since all of it came."""
    app = make(mode)

    assert_whole(want(app, "bytes=10-19", If_Range='"other"'))

    assert get(app, PATH).cache == "hit"
