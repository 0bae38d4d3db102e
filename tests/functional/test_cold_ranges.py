"""Ranges of images that are not there: the option range_miss."""

import base64
import contextlib
import functools
import hashlib
import random
import re
import threading
import time

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.drivers._sink import FileSink
from cachemw.drivers.base import CHUNK
from cachemw.errors import DriverError
from tests.ranged import RangedOrigin
from tests.waiting import PATIENCE, wait_until
from tests.wsgi import begin, get

PATH = "/disk.img"
IMAGE_ID = f"http://localhost{PATH}"
BODY = random.Random(1).randbytes(5 * CHUNK + 1000)
NEW = random.Random(2).randbytes(5 * CHUNK + 1000)

#: A test that waits for longer than so many seconds has failed.


@pytest.fixture
def origin():
    return RangedOrigin(BODY)


@pytest.fixture
def make(origin, tmp_path):
    """Make filters on one directory, as processes that start one after the other."""
    with contextlib.ExitStack() as stack:

        def make(range_miss="slice", app=origin, **options):
            options = {"driver": "sqlite", "min_free": 0, **options}
            cache = ImageCache(dir=tmp_path / "cache", **options)
            stack.callback(cache.close)
            return CacheFilter(app, cache=cache, range_miss=range_miss)

        yield make
    wait_until(lambda: origin.opened == origin.closed, "every answer is closed")


def want(app, value, **environ):
    return get(app, PATH, Range=value, **environ)


def spell(start, stop):
    return f"bytes={start}-{stop - 1}"


def assert_part(reply, start, stop, body=BODY):
    assert reply.error is None
    assert (reply.status, reply.body) == (206, body[start:stop])
    assert reply.get("Content-Range") == f"bytes {start}-{stop - 1}/{len(body)}"
    assert reply.get("Content-Length") == str(stop - start)


def assert_whole(reply, body=BODY):
    assert reply.error is None
    assert (reply.status, reply.body) == (200, body)
    assert reply.get("Content-Range") is None


def wait_until_cached(app):
    wait_until(lambda: app.cache.is_cached(IMAGE_ID), "it is cached")


def queued(app):
    return list(app.cache.get_queued_images())


def partial(app):
    """The bytes that are kept of the image, of which no other is."""
    images = app.cache.driver.get_partial_images()
    assert {image["image_id"] for image in images} <= {IMAGE_ID}
    return sum(image["size"] for image in images)


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


# slice: what is kept


def test_parts_are_no_entry(make, origin, driver_name):
    app = make(driver=driver_name)

    want(app, "bytes=0-0")

    assert partial(app) == CHUNK
    (image,) = app.cache.driver.get_partial_images()
    assert (image["image_id"], image["length"]) == (IMAGE_ID, len(BODY))
    assert not app.cache.is_cached(IMAGE_ID)
    assert list(app.cache.get_cached_images()) == []
    assert queued(app) == [IMAGE_ID]
    assert CHUNK <= app.cache.driver.get_usage() < 2 * CHUNK


def test_parts_add_up_over_restarts(make, origin, driver_name):
    for number in range(3):
        app = make(driver=driver_name)
        ends = number * CHUNK, number * CHUNK + 10
        assert want(app, spell(*ends)).cache == "fwd=uri-miss; stored"
        app.cache.close()

    app = make(driver=driver_name)

    assert want(app, spell(5, 2 * CHUNK + 100)).cache == "hit; detail=partial"
    assert partial(app) == 3 * CHUNK


def test_parts_of_two_filters_on_one_directory_add_up(make, origin):
    first, second = make(), make()
    want(first, "bytes=0-0")
    want(second, spell(CHUNK, CHUNK + 1))

    for app in (first, second):
        reply = want(app, spell(10, CHUNK + 10))
        assert_part(reply, 10, CHUNK + 10)
        assert reply.cache == "hit; detail=partial"


def test_whole_image_is_completed_by_its_holes(make, origin, driver_name):
    app = make(driver=driver_name)
    for number in (1, 3):
        want(app, spell(number * CHUNK, number * CHUNK + 1))
    del origin.asked[:]

    reply = get(app, PATH)

    assert_whole(reply)
    assert reply.cache == "fwd=uri-miss; stored"
    assert origin.ranges_asked == [
        spell(0, CHUNK),
        spell(2 * CHUNK, 3 * CHUNK),
        f"bytes={4 * CHUNK}-",
    ]
    assert {asked.if_range for asked in origin.asked} == {'"one"'}
    assert_whole(get(app, PATH))
    assert get(app, PATH).cache == "hit"
    assert partial(app) == 0


def test_image_whose_parts_are_all_there_is_completed(make, origin):
    app = make()
    want(app, spell(0, len(BODY)))
    del origin.asked[:]

    assert_whole(get(app, PATH))

    (asked,) = origin.asked
    assert asked.if_range == '"one"'
    assert get(app, PATH).cache == "hit"


def stored_part(tmp_path):
    """The file that has the bytes of the partial image."""
    (path,) = (
        path
        for path in (tmp_path / "cache" / "incomplete").iterdir()
        if not path.name.startswith(".")
    )
    return path


@pytest.mark.parametrize("whole", [False, True])
def test_kept_chunk_that_was_damaged_is_fetched_anew(make, origin, tmp_path, whole):
    app = make()
    want(app, spell(CHUNK, 3 * CHUNK))
    with stored_part(tmp_path).open("r+b") as file:
        file.seek(CHUNK + 1000)
        file.write(bytes([BODY[CHUNK + 1000] ^ 1]))
    del origin.asked[:]

    if whole:
        assert_whole(get(app, PATH))
        assert origin.ranges_asked[0] == spell(0, 2 * CHUNK)
    else:
        assert_part(want(app, spell(CHUNK, 3 * CHUNK)), CHUNK, 3 * CHUNK)
        assert origin.ranges_asked == [spell(CHUNK, 2 * CHUNK)]


def test_digest_that_does_not_match_the_whole_completes_nothing(make, origin):
    digest = base64.b64encode(hashlib.sha256(NEW).digest()).decode()
    origin.fields.append(("Repr-Digest", f"sha-256=:{digest}:"))
    app = make()
    want(app, "bytes=0-0")

    reply = get(app, PATH)

    assert reply.error is not None
    assert len(reply.body) < len(BODY)
    assert not app.cache.is_cached(IMAGE_ID)
    assert partial(app) == 0


def test_digest_that_matches_is_that_of_the_entry(make, origin):
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    origin.fields.append(("Repr-Digest", f"sha-256=:{digest}:"))
    app = make()
    want(app, "bytes=0-0")

    assert_whole(get(app, PATH))

    (image,) = app.cache.get_cached_images()
    assert image["checksum"] == f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def test_deletion_drops_the_parts(make, origin):
    app = make()
    want(app, "bytes=0-0")

    get(app, PATH, "DELETE")

    assert partial(app) == 0
    want(app, "bytes=0-9")
    assert origin.asked[-1].range == spell(0, CHUNK)
    assert origin.asked[-1].if_range is None


def test_image_that_is_deleted_while_its_part_comes_is_not_kept(make, origin):
    app = make()
    begun = begin(app, PATH, Range=spell(0, CHUNK))
    begun.step()

    get(app, PATH, "DELETE")

    assert_part(begun.finish(), 0, CHUNK)
    assert partial(app) == 0


def test_parts_go_before_entries(make, origin):
    app = make(max_size=2 * len(BODY) + CHUNK)
    want(app, spell(0, 2 * CHUNK))
    get(app, "/entry")
    assert partial(app) == 2 * CHUNK

    assert_whole(get(app, "/other"))

    assert partial(app) == 0
    for path in ("/entry", "/other"):
        assert app.cache.is_cached(f"http://localhost{path}")
    assert app.cache.driver.get_usage() == 2 * len(BODY)


def test_parts_stay_within_the_bounds(make, origin):
    app = make(max_size=3 * CHUNK)

    for number in range(5):
        ends = number * CHUNK, number * CHUNK + 10
        assert_part(want(app, spell(*ends)), *ends)
        assert app.cache.driver.get_usage() <= 3 * CHUNK


def test_whole_image_that_has_no_room_beside_its_parts(make, origin):
    """It goes out all the same, from the app."""
    app = make(max_size=3 * CHUNK)
    want(app, spell(CHUNK, CHUNK + 10))

    reply = get(app, PATH)

    assert_whole(reply)
    assert reply.cache == "fwd=uri-miss; detail=full"


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


# slice: apps that lie or break off


def shifted(asked, sent):
    """Another part than was asked for, honestly labelled."""
    if asked.range and asked.range.startswith("bytes=0-"):
        sent.chunks[:] = [BODY[1000:CHUNK]]
        relabel(sent, f"bytes 1000-{CHUNK - 1}/{len(BODY)}", CHUNK - 1000)


def relabel(sent, value, length=None):
    changed = {"content-range": value}
    if length is not None:
        changed["content-length"] = str(length)
    sent.fields[:] = [(name, changed.get(name.lower(), text)) for name, text in sent.fields]


def test_other_part_than_was_asked_for_is_not_passed_off_as_it(make, origin):
    origin.bend = shifted
    app = make()

    for _ in range(2):
        reply = want(app, "bytes=2000-2999")
        assert_part(reply, 2000, 3000)
    reply = want(app, "bytes=500-1499")
    assert (reply.status, reply.error) == (206, None)
    start, stop = map(int, re.findall(r"\d+", reply.get("Content-Range"))[:2])
    assert reply.body == BODY[start : stop + 1]


@pytest.mark.parametrize(
    "value",
    ["bytes 0-262143/*", "bytes 9-3/10", "bytes 0-262143", "bytes 0-99/100", "lines 0-3/9", ""],
)
def test_content_range_that_is_wrong(make, origin, value):
    """The app's own answer to the client's own range goes out, if ours has none that is right."""

    def bend(asked, sent):
        if asked.range == spell(0, CHUNK):
            relabel(sent, value)

    origin.bend = bend
    app = make()

    for _ in range(2):
        reply = want(app, "bytes=1000-1999")
        assert_part(reply, 1000, 2000)
    assert partial(app) == 0


def test_length_that_contradicts_the_part_is_no_part(make, origin):
    def bend(asked, sent):
        if asked.range == spell(0, CHUNK):
            relabel(sent, f"bytes 0-{CHUNK - 1}/{len(BODY)}", CHUNK - 1)

    origin.bend = bend

    assert_part(want(make(), "bytes=1000-1999"), 1000, 2000)


@pytest.mark.parametrize("fault", ["short", "long", "long-by-a-chunk", "raises"])
def test_part_that_breaks_off_is_not_completed(make, origin, fault):
    size = 3 * CHUNK

    def bend(asked, sent):
        if fault == "short":
            del sent.chunks[10:]
        elif fault == "long":
            sent.chunks[-1] += b"more"
        elif fault == "long-by-a-chunk":
            sent.chunks.append(b"more")
        else:
            sent.chunks[10:] = [RuntimeError("broken")]

    origin.bend = bend
    app = make()

    reply = want(app, spell(0, size))

    assert reply.error is not None
    assert len(reply.body) < size
    assert BODY.startswith(reply.body)
    assert partial(app) >= 2 * CHUNK
    origin.bend = lambda asked, sent: None
    assert want(app, spell(0, 2 * CHUNK)).cache == "hit; detail=partial"
    assert_part(want(app, spell(0, size)), 0, size)
    assert origin.asked[-1].if_range == '"one"'
    assert_whole(get(app, PATH))


def test_app_that_fails_at_once(make, origin):
    def bend(asked, sent):
        raise RuntimeError("broken")

    origin.bend = bend
    app = make()
    with pytest.raises(RuntimeError):
        want(app, "bytes=0-9")
    origin.closed += 1  # it never gave a body
    origin.bend = lambda asked, sent: None

    assert_part(want(app, "bytes=0-9"), 0, 10)


@pytest.mark.parametrize(
    "status", ["503 Service Unavailable", "403 Forbidden", "302 Found", "404 Not Found"]
)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("is_partial", [False, True])
def test_error_of_the_app_is_passed_on(make, origin, status, is_partial, whole):
    """What is kept stays, unless the image is gone."""
    app = make()
    if is_partial:
        want(app, "bytes=0-0")

    def bend(asked, sent):
        sent.status, sent.fields, sent.chunks = status, [("Content-Type", "text/plain")], [b"no"]

    origin.bend = bend

    reply = get(app, PATH) if whole else want(app, spell(CHUNK, CHUNK + 10))

    assert (reply.status, reply.body) == (int(status[:3]), b"no")
    assert (partial(app) > 0) == (is_partial and status[:3] != "404")


def test_client_that_leaves_in_mid_slice_leaves_what_was_whole(make, origin):
    app = make()
    begun = begin(app, PATH, Range=spell(0, 4 * CHUNK))
    for _ in range(2 * CHUNK // origin.chunk):
        begun.step()

    begun._body.close()

    assert partial(app) >= 2 * CHUNK
    assert want(app, spell(0, 2 * CHUNK)).cache == "hit; detail=partial"
    assert_part(want(app, spell(0, 4 * CHUNK)), 0, 4 * CHUNK)


@pytest.mark.parametrize("stop", [CHUNK, len(BODY)])
def test_app_whose_close_fails_spoils_nothing(make, origin, stop):
    class Failing:
        def __init__(self, body):
            self._body = body

        def __iter__(self):
            return iter(self._body)

        def close(self):
            self._body.close()
            raise RuntimeError("broken")

    app = make(app=lambda environ, start: Failing(origin(environ, start)))

    assert_part(want(app, spell(10, stop)), 10, stop)
    assert want(app, spell(10, stop)).cache == "hit; detail=partial"


def test_client_that_never_reads_leaves_nothing_held(make, origin):
    app = make()
    begin(app, PATH, Range=spell(0, CHUNK))._body.close()

    assert_part(want(app, spell(0, CHUNK)), 0, CHUNK)


# Several at once


def test_kept_part_is_held_by_nobody_while_it_is_read(make, origin):
    app = make()
    want(app, spell(0, 3 * CHUNK))
    reading = begin(app, PATH, Range=spell(0, 3 * CHUNK))
    reading.step()

    assert want(app, spell(4 * CHUNK, 4 * CHUNK + 1)).cache == "fwd=uri-miss; stored"

    assert_part(reading.finish(), 0, 3 * CHUNK)


@pytest.mark.parametrize("whole", [False, True])
def test_client_that_stops_reading_holds_nobody_up(make, origin, whole):
    """A player that is paused: the image is everybody's all the same."""
    app = make(follow_timeout=3 * PATIENCE)
    paused = begin(app, PATH, Range=spell(10, 5 * CHUNK))
    paused.step()

    replies = []
    ask = functools.partial(*((get, app, PATH) if whole else (want, app, spell(9, len(BODY)))))
    thread = threading.Thread(target=lambda: replies.append(ask()))
    thread.start()
    thread.join(PATIENCE)

    assert replies != []
    assert replies[0].cache == "fwd=uri-miss; stored"
    if whole:
        assert_whole(replies[0])
    else:
        assert_part(replies[0], 9, len(BODY))
    assert_part(paused.finish(), 10, 5 * CHUNK)
    assert origin.ranges_asked[0] == spell(0, 5 * CHUNK)


@pytest.mark.parametrize("fault", ["short", "raises"])
def test_long_part_that_breaks_off_goes_out_as_far_as_it_came(make, origin, fault):
    def bend(asked, sent):
        sent.chunks[18:] = [RuntimeError("broken")] if fault == "raises" else []

    origin.bend = bend
    app = make()

    reply = want(app, spell(10, len(BODY)))

    assert reply.error is not None
    assert reply.body == BODY[10 : 18 * origin.chunk]
    assert partial(app) == 18 * origin.chunk


def test_long_part_whose_client_leaves_is_left(make, origin):
    app = make()
    go_on = threading.Event()
    origin.before_chunk = lambda asked, number: number < 10 or go_on.wait(PATIENCE)
    begun = begin(app, PATH, Range=spell(0, len(BODY)))
    size = 0
    while size < 2 * CHUNK:
        size += len(begun.step())
    begun._body.close()
    go_on.set()

    wait_until(lambda: origin.closed == 1, "the answer is closed")
    assert 2 * CHUNK <= partial(app) < len(BODY)
    assert_part(want(app, spell(0, len(BODY))), 0, len(BODY))


@pytest.mark.parametrize("size", [CHUNK, len(BODY)])
def test_part_that_cannot_be_written_goes_out_all_the_same(make, origin, monkeypatch, size):
    app = make()
    written = []

    def write(self, data, position=None, real=FileSink.write):
        written.append(position)
        if len(written) > 2:
            raise DriverError(IMAGE_ID, "no space left on device")
        return real(self, data, position)

    monkeypatch.setattr(FileSink, "write", write)

    reply = want(app, spell(10, size))

    assert_part(reply, 10, size)
    assert len(written) == 3
    monkeypatch.undo()
    assert_whole(get(app, PATH))


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("second", ["slice", "overlapping", "whole"])
def test_second_request_while_a_part_comes(make, origin, where, second):
    """It waits for the part, and asks for the rest; or is answered beside it."""
    first = make()
    app = first if where == "same" else make()
    wanted = {"slice": (3 * CHUNK, 4 * CHUNK), "overlapping": (CHUNK, 3 * CHUNK)}.get(second)
    came, go_on = threading.Event(), threading.Event()

    def stop(asked, number):
        if asked.range == spell(0, 2 * CHUNK) and number == 2:
            came.set()
            assert go_on.wait(PATIENCE)

    origin.before_chunk = stop
    replies = {}
    threads = [
        threading.Thread(target=lambda: replies.update(first=want(first, spell(0, 2 * CHUNK)))),
        threading.Thread(
            target=lambda: replies.update(
                second=get(app, PATH) if wanted is None else want(app, spell(*wanted))
            )
        ),
    ]
    threads[0].start()
    assert came.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.3)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()

    assert_part(replies["first"], 0, 2 * CHUNK)
    assert len(origin.asked) == 2
    if wanted is None:
        assert_whole(replies["second"])
    else:
        assert_part(replies["second"], *wanted)
        # Not all the rest of the image, as whoever follows a fill would have it.
        missing = (max(wanted[0], 2 * CHUNK), wanted[1])
        assert origin.asked[1].range == spell(*missing)
    assert replies["second"].cache == "fwd=uri-miss; stored"
    assert_whole(get(app, PATH))


def test_many_ranges_at_once_are_all_right(make, origin):
    apps = [make(), make()]
    failed = []

    def ask(seed):
        chosen = random.Random(seed)
        for _ in range(8):
            start = chosen.randrange(len(BODY))
            stop = min(start + chosen.choice([1, 1000, CHUNK]), len(BODY))
            try:
                assert_part(want(chosen.choice(apps), spell(start, stop)), start, stop)
            except BaseException as exc:
                failed.append(exc)
                raise

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failed == []
    assert_whole(get(apps[0], PATH))


@pytest.mark.parametrize("is_far", [False, True])
def test_slice_while_the_whole_is_fetched(make, origin, is_far):
    """It is answered from the fill, or by the app if that is quicker."""
    origin.body = body = BODY * 14  # more than 16 MiB
    origin.chunk = CHUNK
    app = make()
    whole = begin(app, PATH)
    whole.step()
    start = len(body) - 1000 if is_far else CHUNK

    assert_part(want(app, spell(start, start + 10)), start, start + 10, body)

    assert_whole(whole.finish(), body)
    assert get(app, PATH).cache == "hit"
    assert len(origin.asked) == (2 if is_far else 1)


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


# What must not be kept


@pytest.mark.parametrize(
    ("fields", "request_fields"),
    [
        ([("Cache-Control", "no-store")], {}),
        ([("Cache-Control", "private, max-age=60")], {}),
        ([("Cache-Control", "max-age=60"), ("Set-Cookie", "who=me")], {}),
        ([("Cache-Control", "max-age=60"), ("Vary", "*")], {}),
        ([("Cache-Control", "max-age=60")], {"Authorization": "Basic eDp5"}),
        ([("Cache-Control", "max-age=60")], {"Cookie": "who=me"}),
    ],
    ids=["no-store", "private", "set-cookie", "vary", "authorization", "cookie"],
)
def test_what_is_for_one_client_is_not_kept(make, origin, fields, request_fields):
    origin.fields = fields
    app = make()

    for count in (1, 2):
        reply = want(app, "bytes=0-9", **request_fields)
        assert_part(reply, 0, 10)
        assert "detail=" in reply.cache
        assert ("Set-Cookie", "who=me") in reply.headers or "Set-Cookie" not in dict(fields)
        assert len(origin.asked) == count
    assert partial(app) == 0
    assert queued(app) == []


def test_app_that_takes_it_back_has_the_parts_dropped(make, origin):
    app = make()
    want(app, "bytes=0-0")
    origin.fields = [("Cache-Control", "no-store")]

    assert_part(want(app, spell(10, CHUNK + 10)), 10, CHUNK + 10)

    assert partial(app) == 0


def test_app_that_takes_it_back_sends_all_of_the_image(make, origin):
    app = make()
    want(app, spell(CHUNK, CHUNK + 10))
    origin.fields = [("Cache-Control", "no-store")]

    reply = get(app, PATH)

    assert_whole(reply)
    assert "detail=no-store" in reply.cache
    assert partial(app) == 0


def test_parts_are_for_requests_that_vary_alike(make, origin):
    origin.fields.append(("Vary", "Accept-Language"))
    app = make()
    want(app, "bytes=0-0", Accept_Language="de")
    origin.body, origin.etag = NEW, '"two"'

    assert_part(want(app, "bytes=0-9", Accept_Language="en"), 0, 10, NEW)
    assert origin.asked[-1].if_range is None
    assert_whole(get(app, PATH, Accept_Language="en"), NEW)
    assert want(app, "bytes=0-9", Accept_Language="en").cache == "hit"


# Who may have it


def authorize_alice(environ, image_id, entry):
    return environ.get("HTTP_X_AUTH_TOKEN") == "alice"


@pytest.mark.parametrize("authorize", ["app", f"python:{__name__}:authorize_alice"])
@pytest.mark.parametrize("freshness", ["http", "immutable", "revalidate"])
def test_client_without_the_right_never_gets_kept_bytes(make, origin, authorize, freshness):
    origin.allows = lambda environ: environ.get("HTTP_X_AUTH_TOKEN") == "alice"
    origin.fields = [("Cache-Control", "max-age=600")]
    app = make(authorize=authorize, freshness=freshness)
    assert_part(want(app, "bytes=0-9", X_Auth_Token="alice"), 0, 10)
    assert partial(app) == CHUNK

    for value in ("bytes=0-9", spell(0, 2 * CHUNK), "bytes=-5", "bytes=99999999-"):
        reply = want(app, value, X_Auth_Token="eve")
        assert (reply.status, reply.body) == (403, b"no")
    assert get(app, PATH, X_Auth_Token="eve").status == 403
    assert partial(app) == CHUNK

    assert_part(want(app, "bytes=0-19", X_Auth_Token="alice"), 0, 20)
    assert partial(app) == CHUNK
    assert_part(want(app, spell(5, 2 * CHUNK), X_Auth_Token="alice"), 5, 2 * CHUNK)
    assert partial(app) == 2 * CHUNK
    assert_whole(get(app, PATH, X_Auth_Token="alice"))


def test_guarded_parts_are_nobodys_without_authorize(make, origin):
    """The operator turns the option off; what was kept under it was never for everybody."""
    origin.fields = [("Cache-Control", "max-age=600")]
    app = make(authorize="app")
    want(app, "bytes=0-0", X_Auth_Token="alice")
    assert partial(app) == CHUNK
    app.cache.close()
    app = make()
    origin.allows = lambda environ: False

    assert want(app, "bytes=0-9").status == 403


# Presets


@pytest.mark.parametrize("mode", ["fill", "slice"])
def test_immutable_parts_are_fresh_for_ever(make, origin, mode):
    origin.fields = []
    app = make(mode, freshness="immutable")
    want(app, "bytes=0-0")
    if mode == "fill":
        wait_until_cached(app)

    reply = want(app, "bytes=0-9", Cache_Control="no-cache")

    assert_part(reply, 0, 10)
    assert reply.cache == ("hit" if mode == "fill" else "hit; detail=partial")
    assert len(origin.asked) == 1


@pytest.mark.parametrize("mode", ["queue", "fill", "slice"])
@pytest.mark.parametrize("preset", ["glance", "swift", "registry"])
def test_presets(make, origin, mode, preset):
    digest = hashlib.sha256(BODY).hexdigest()
    path = {
        "glance": "/v2/images/0a6f8f0e-2a9c-4a55-8d2e-4d7ac8d1e2f0/file",
        "swift": "/v1/AUTH_a/box/disk.img",
        "registry": f"/v2/library/disk/blobs/sha256:{digest}",
    }[preset]
    origin.fields = []
    origin.etag = (
        f'"{hashlib.md5(BODY).hexdigest()}"' if preset == "swift" else f'"sha256:{digest}"'
    )
    options = {"authorize": f"python:{__name__}:authorize_alice"} if preset == "glance" else {}
    app = make(mode, preset=preset, **options)
    ask = functools.partial(get, app, path, X_Auth_Token="alice")

    for _ in range(2):
        assert_part(ask(Range="bytes=1000-1999"), 1000, 2000)
        assert_part(ask(Range=spell(5, CHUNK + 5)), 5, CHUNK + 5)
    assert_whole(ask())
    assert_whole(ask())
    assert app.cache.driver.get_partial_images() == []
    assert len(list(app.cache.get_cached_images())) == 1
