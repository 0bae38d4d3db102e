"""What is kept of parts that were answered, and for whom."""

import base64
import functools
import hashlib

import pytest

from cachemw.drivers.base import CHUNK
from tests.wsgi import begin, get

from .asking import (
    BODY,
    IMAGE_ID,
    NEW,
    PATH,
    assert_part,
    assert_whole,
    partial,
    queued,
    spell,
    wait_until_cached,
    want,
)

# slice: what is kept


def test_parts_are_no_entry(make, origin, driver_name):
    app = make(driver=driver_name)

    want(app, "bytes=0-0")

    assert partial(app) == CHUNK
    (image,) = app.cache.driver.get_partial_images()
    assert (image["image_id"], image["length"]) == (IMAGE_ID, len(BODY))
    assert not app.cache.is_cached(IMAGE_ID)
    assert list(app.cache.get_cached_images()) == []
    assert queued(app) == []
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
