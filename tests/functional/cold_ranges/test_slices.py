"""Ranges of images that are not there, with ``range_miss = slice``: what is asked and answered."""

import re
import time

import pytest

from cachemw.drivers.base import CHUNK
from tests.wsgi import get

from .asking import (
    BODY,
    NEW,
    PATH,
    assert_part,
    assert_whole,
    partial,
    spell,
    wait_until_cached,
    want,
)

# slice: what is asked for, and what is answered


def test_slice_asks_for_whole_chunks_around_the_range(make, origin, driver_name):
    app = make(driver=driver_name)
    start, stop = CHUNK + 1000, 2 * CHUNK + 1000

    reply = want(app, spell(start, stop))

    assert_part(reply, start, stop)
    assert reply.cache == "fwd=uri-miss; stored"
    assert reply.get("ETag") == '"one"'
    assert origin.ranges_asked == [spell(CHUNK, 3 * CHUNK)]


def test_same_range_again_is_a_hit(make, origin, driver_name):
    app = make(driver=driver_name)
    want(app, "bytes=1000-1999")

    reply = want(app, "bytes=1000-1999")

    assert_part(reply, 1000, 2000)
    assert reply.cache == "hit; detail=partial"
    assert reply.get("Age") is not None
    assert reply.get("ETag") == '"one"'
    assert len(origin.asked) == 1


@pytest.mark.parametrize("start", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK - 1])
@pytest.mark.parametrize("length", [1, 2, CHUNK, CHUNK + 1])
def test_no_more_than_two_chunks_are_asked_for_beyond_the_range(make, origin, start, length):
    app = make()

    assert_part(want(app, spell(start, start + length)), start, start + length)

    first, last = map(int, re.findall(r"\d+", origin.asked[0].range))
    assert first <= start
    assert start + length <= last + 1
    assert last + 1 - first <= length + 2 * CHUNK


@pytest.mark.parametrize(
    ("kept", "start", "stop", "asked"),
    [
        ([(0, 1)], 100, CHUNK + 100, (CHUNK, 2 * CHUNK)),
        ([(2 * CHUNK, 2 * CHUNK + 1)], CHUNK + 100, 2 * CHUNK + 100, (CHUNK, 2 * CHUNK)),
        ([(0, 1), (2 * CHUNK, 2 * CHUNK + 1)], 5, 3 * CHUNK - 5, (CHUNK, 2 * CHUNK)),
        ([(5 * CHUNK, len(BODY))], 4 * CHUNK, len(BODY), (4 * CHUNK, 5 * CHUNK)),
    ],
    ids=["behind", "before", "between", "at-the-end"],
)
def test_only_what_is_missing_is_asked_for(make, origin, kept, start, stop, asked):
    app = make()
    for ends in kept:
        assert_part(want(app, spell(*ends)), *ends)

    reply = want(app, spell(start, stop))

    assert_part(reply, start, stop)
    assert reply.cache == "fwd=uri-miss; stored"
    assert (origin.asked[-1].range, origin.asked[-1].if_range) == (spell(*asked), '"one"')
    assert len(origin.asked) == len(kept) + 1
    assert want(app, spell(start, stop)).cache == "hit; detail=partial"


def test_suffix_of_an_image_of_unknown_length(make, origin):
    app = make()

    assert_part(want(app, "bytes=-1000"), len(BODY) - 1000, len(BODY))

    assert origin.ranges_asked == [f"bytes=-{1000 + CHUNK}"]
    assert want(app, "bytes=-1000").cache == "hit; detail=partial"
    assert want(app, f"bytes={len(BODY) - 1000}-").cache == "hit; detail=partial"


def test_suffix_of_a_partial_image(make, origin):
    app = make()
    want(app, "bytes=0-0")

    assert_part(want(app, "bytes=-2000"), len(BODY) - 2000, len(BODY))

    assert origin.ranges_asked[1:] == [spell(4 * CHUNK, len(BODY))]


def test_kept_parts_answer_several_ranges_at_once(make, origin):
    app = make()
    want(app, "bytes=0-0")
    want(app, spell(3 * CHUNK, 3 * CHUNK + 1))

    reply = want(app, f"bytes=10-19,{3 * CHUNK}-{3 * CHUNK + 9}")

    assert (reply.status, reply.cache) == (206, "hit; detail=partial")
    assert BODY[10:20] in reply.body
    assert BODY[3 * CHUNK : 3 * CHUNK + 10] in reply.body
    assert len(origin.asked) == 2


@pytest.mark.parametrize(
    "value",
    ["bytes=0-9,1000000-1000009", "bytes=1000-", f"bytes=1000-{65 * 2**20}", "bytes=-99999999999"],
    ids=["several", "open-ended", "large", "large-suffix"],
)
@pytest.mark.parametrize("is_partial", [False, True])
def test_ranges_that_are_no_slice_are_right(make, origin, value, is_partial):
    """The app answers them, or they turn out to be short."""
    app = make()
    if is_partial:
        want(app, spell(2 * CHUNK, 2 * CHUNK + 1))

    reply = want(app, value)

    if "," in value:
        assert_whole(reply)  # which this app answers so
    else:
        assert_part(reply, 0 if value.startswith("bytes=-") else 1000, len(BODY))
    assert_part(want(app, spell(CHUNK, CHUNK + 5)), CHUNK, CHUNK + 5)


def test_more_than_is_kept_at_once_is_the_apps_to_answer(make, origin):
    origin.body = body = BODY * 52  # more than 64 MiB
    origin.chunk = 2**20
    app = make()
    want(app, spell(2 * CHUNK, 2 * CHUNK + 1))

    assert_part(want(app, "bytes=10-"), 10, len(body), body)

    assert origin.asked[-1].range == "bytes=10-"
    assert partial(app) == CHUNK


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize(
    "value", ["bytes=5-3", "bytes=-", "lines=0-3", "bytes = 0-9", "bytes=x-y", "", "bytes"]
)
def test_odd_ranges_get_all(make, origin, is_partial, value):
    """RFC 9110, section 14.2: an invalid Range is ignored."""
    app = make()
    if is_partial:
        want(app, "bytes=0-0")

    reply = want(app, value)

    assert_whole(reply)


@pytest.mark.parametrize("value", ["BYTES=0-9", "bytes=0-9,", "bytes=000-0009", " bytes=0-9 "])
def test_ranges_that_are_spelt_differently(make, origin, value):
    app = make()
    want(app, "bytes=0-0")

    assert_part(want(app, value), 0, 10)


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("value", ["bytes=99999999-", "bytes=99999999-99999999", "bytes=-0"])
def test_range_beyond_the_end(make, origin, is_partial, value):
    app = make()
    if is_partial:
        want(app, "bytes=0-0")

    reply = want(app, value)

    assert (reply.status, reply.body) == (416, b"")
    assert reply.get("Content-Range") == f"bytes */{len(BODY)}"


def test_range_in_the_last_chunk_but_beyond_the_end(make, origin):
    """The chunk around it is there, the range itself is not."""
    reply = want(make(), spell(len(BODY) + 10, len(BODY) + 20))

    assert reply.status == 416
    assert reply.get("Content-Range") == f"bytes */{len(BODY)}"


def test_range_that_ends_beyond_the_end(make, origin):
    reply = want(make(), f"bytes={len(BODY) - 5}-{len(BODY) + 5}")

    assert_part(reply, len(BODY) - 5, len(BODY))


def test_empty_image(make, origin):
    origin.body = b""
    app = make()

    assert want(app, "bytes=0-9").status == 416
    assert_whole(get(app, PATH), b"")


@pytest.mark.parametrize("size", [1, 1000, CHUNK, CHUNK + 1])
def test_small_image(make, origin, size):
    origin.body = BODY[:size]
    app = make()

    for _ in range(2):
        assert_part(want(app, "bytes=0-0"), 0, 1, BODY[:size])
    assert_part(want(app, "bytes=-1"), size - 1, size, BODY[:size])
    assert_whole(get(app, PATH), BODY[:size])
    assert get(app, PATH).cache == "hit"


def test_empty_chunks_of_the_app_are_nothing(make, origin):
    origin.bend = lambda asked, sent: sent.chunks.insert(1, b"")

    assert_part(want(make(), "bytes=0-199999"), 0, 200000)


def test_fields_of_the_app_reach_the_client(make, origin):
    origin.fields += [("Content-Encoding", "gzip"), ("Age", "20"), ("X-Own", "1")]
    origin.bend = lambda asked, sent: sent.fields.append(("Content-MD5", "0" * 32))
    app = make()

    reply = want(app, "bytes=0-9")

    assert reply.get("Content-Encoding") == "gzip"
    assert reply.get("X-Own") == "1"
    assert reply.get("Age") == "20"
    assert reply.get("Content-MD5") is None  # of a part that is longer
    hit = want(app, "bytes=0-9")
    assert hit.cache == "hit; detail=partial"
    assert hit.get("Content-Encoding") == "gzip"
    assert int(hit.get("Age")) >= 20


# slice: versions


def test_new_version_takes_the_place_of_the_old_parts(make, origin):
    app = make()
    want(app, "bytes=0-0")
    origin.body, origin.etag = NEW, '"two"'

    reply = want(app, spell(CHUNK, CHUNK + 10))
    assert_whole_or_part(reply, NEW, CHUNK, CHUNK + 10)

    reply = want(app, "bytes=0-9")
    assert_part(reply, 0, 10, NEW)
    assert reply.get("ETag") == '"two"'


def assert_whole_or_part(reply, body, start, stop):
    if reply.status == 200:
        assert_whole(reply, body)
    else:
        assert_part(reply, start, stop, body)


@pytest.mark.parametrize(
    "start", [CHUNK, CHUNK - 100], ids=["beside-what-is-kept", "overlapping-it"]
)
@pytest.mark.parametrize("etag", ['"two"', 'W/"one"', "none", '"two", no-store'])
def test_part_of_another_version_is_not_put_beside_the_old(make, origin, start, etag):
    """RFC 9110, section 15.3.7.3: an app that does not look at If-Range."""
    app = make()
    origin.fields.append(("X-Version", "one"))
    want(app, "bytes=0-0")
    origin.honest = False
    origin.body = NEW if etag != "none" else NEW[:-5]
    origin.fields[-1:] = [("Cache-Control", "no-store")] if "no-store" in etag else []
    origin.etag = None if etag == "none" else etag.split(",")[0]

    for _ in range(2):
        reply = want(app, spell(start, start + 200))
        assert_part(reply, start, start + 200, origin.body)
        assert reply.get("X-Version") is None

    reply = want(app, spell(CHUNK - 200, CHUNK + 200))
    assert_part(reply, CHUNK - 200, CHUNK + 200, origin.body)
    assert_whole(get(app, PATH), origin.body)


def test_whole_image_of_a_new_version_has_nothing_of_the_old(make, origin):
    app = make()
    want(app, spell(CHUNK, CHUNK + 10))
    origin.body, origin.etag = NEW, '"two"'

    assert_whole(get(app, PATH), NEW)
    assert_whole(get(app, PATH), NEW)


def test_version_that_changes_between_two_holes_breaks_off(make, origin):
    app = make()
    want(app, spell(CHUNK, CHUNK + 10))

    def change(asked, sent):
        if asked.range == spell(0, CHUNK):
            origin.body, origin.etag = NEW, '"two"'

    origin.bend = change

    reply = get(app, PATH)

    assert reply.error is not None
    assert reply.body == BODY[: len(reply.body)]
    assert_whole(get(app, PATH), NEW)


@pytest.mark.parametrize("etag", [None, 'W/"one"'], ids=["none", "weak"])
def test_origin_without_a_strong_validator_is_not_kept(make, origin, etag):
    """RFC 9110, section 15.3.7.3."""
    origin.etag = etag
    app = make()

    for _ in range(2):
        reply = want(app, "bytes=1000-1999")
        assert_part(reply, 1000, 2000)
        assert reply.cache == "fwd=uri-miss; detail=validator"

    assert partial(app) == 0
    assert_whole(get(app, PATH))
    assert origin.ranges_asked[-1] is None


def test_strong_date_is_as_good_as_a_tag(make, origin):
    """RFC 9110, section 8.8.2.2."""
    origin.etag = None
    origin.honest = False
    modified, date = "Fri, 20 Nov 2020 10:00:00 GMT", "Fri, 20 Nov 2020 12:00:00 GMT"
    origin.fields = [
        ("Cache-Control", "public, max-age=999999999"),
        ("Last-Modified", modified),
        ("Date", date),
    ]
    app = make()
    want(app, "bytes=0-0")

    assert_part(want(app, spell(0, 2 * CHUNK)), 0, 2 * CHUNK)

    assert origin.asked[-1].if_range == modified


def test_origin_that_ignores_ranges_fills(make, origin):
    origin.ranges = False
    app = make()

    reply = want(app, spell(CHUNK, CHUNK + 10))

    assert_part(reply, CHUNK, CHUNK + 10)
    assert reply.cache == "fwd=uri-miss; stored"
    wait_until_cached(app)
    assert_whole(get(app, PATH))
    assert len(origin.asked) == 1


# Other requests for a partial image


def test_head_of_a_partial_image_is_the_apps(make, origin):
    app = make()
    want(app, "bytes=0-0")

    reply = get(app, PATH, "HEAD")

    assert (reply.status, reply.body) == (200, b"")
    assert reply.get("Content-Length") == str(len(BODY))
    assert partial(app) == CHUNK


def test_condition_on_a_partial_image_is_the_apps(make, origin):
    app = make()
    want(app, "bytes=0-0")

    assert get(app, PATH, If_None_Match='"one"').status == 304
    assert get(app, PATH, Range="bytes=0-9", If_None_Match='"one"').status == 304
    assert_part(want(app, "bytes=0-9", If_None_Match='"other"'), 0, 10)
    assert partial(app) == CHUNK


def test_only_if_cached_is_never_put_to_the_app(make, origin):
    app = make()

    assert want(app, "bytes=0-9", Cache_Control="only-if-cached").status == 504
    assert origin.asked == []


# Freshness


@pytest.mark.parametrize("is_there", [False, True])
def test_stale_part_is_kept_if_the_app_says_it_still_holds(make, origin, is_there):
    origin.fields = [("Cache-Control", "max-age=600"), ("Age", "700")]
    app = make(freshness="revalidate")
    want(app, "bytes=0-0")
    wanted = (10, 20) if is_there else (10, CHUNK + 10)

    reply = want(app, spell(*wanted))

    assert_part(reply, *wanted)
    assert origin.asked[-1].if_range == '"one"'
    assert origin.asked[-1].range == (spell(10, 11) if is_there else spell(CHUNK, 2 * CHUNK))
    assert partial(app) == (CHUNK if is_there else 2 * CHUNK)


def test_stale_part_of_an_old_version_is_not_served(make, origin):
    app = make(freshness="revalidate")
    want(app, "bytes=0-0")
    origin.body, origin.etag = NEW, '"two"'

    for _ in range(2):
        assert_whole_or_part(want(app, "bytes=0-9"), NEW, 0, 10)


def test_part_that_was_renewed_is_fresh_again(make, origin, monkeypatch):
    origin.fields = [("Cache-Control", "max-age=600")]
    app = make()
    want(app, "bytes=0-0")
    now = time.time()
    monkeypatch.setattr("cachemw.web.slices.time.time", lambda: now + 700)

    assert want(app, "bytes=0-9").cache == "fwd=stale; fwd-status=206; detail=partial"
    assert want(app, "bytes=0-9").cache == "hit; detail=partial"
    assert len(origin.asked) == 2


def test_request_for_a_fresh_answer_is_put_to_the_app(make, origin):
    app = make()
    want(app, "bytes=0-0")

    reply = want(app, "bytes=0-9", Cache_Control="no-cache")

    assert_part(reply, 0, 10)
    assert origin.asked[-1].if_range == '"one"'
