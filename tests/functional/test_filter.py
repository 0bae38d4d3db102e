"""Image downloads through the whole filter, over every driver."""

import base64
import hashlib
import io
from wsgiref.validate import validator

import pytest
import webtest
from paste.deploy import loadapp

from cachemw import CacheFilter, ImageCache
from cachemw.errors import ChecksumMismatch, ConfigError, LengthMismatch
from tests.fakes import FakeOrigin, sha256
from tests.wsgi import get as by_hand

URL = "/images/cat/file"
BODY = bytes(range(256)) * 64  # 16 KiB


@pytest.fixture
def origin():
    return FakeOrigin({URL: BODY, "/empty": b""})


@pytest.fixture
def cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture
def client(origin, cache):
    return client_of(origin, cache)


def client_of(origin, cache, **options):
    """A client in front of the filter, with both sides of it held to PEP 3333."""
    return webtest.TestApp(validator(CacheFilter(validator(origin), cache=cache, **options)))


def status_of(response):
    return response.headers["Cache-Status"]


def test_second_download_does_not_reach_the_origin(client, origin):
    """An image read to its end once is served from the cache from then on."""
    first = client.get(URL)
    second = client.get(URL)

    assert first.body == second.body == BODY
    assert status_of(first) == "cachemw; fwd=uri-miss; stored"
    assert status_of(second) == "cachemw; hit"
    assert origin.calls == 1


def test_miss_keeps_the_length_that_the_app_sent(client):
    assert client.get(URL).headers["Content-Length"] == str(len(BODY))


def test_hit_replays_the_stored_headers_and_its_age(client, origin):
    """RFC 9111, section 5.1."""
    origin.headers += [
        ("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"),
        ("X-Image-Meta", "1"),
        ("X-Image-Meta", "2"),
        ("Age", "20"),
    ]
    client.get(URL)

    hit = client.get(URL)

    assert hit.headers["Last-Modified"] == "Fri, 20 Nov 2026 10:00:00 GMT"
    assert hit.headers.getall("X-Image-Meta") == ["1", "2"]
    assert 20 <= int(hit.headers["Age"]) < 25
    assert hit.headers["Accept-Ranges"] == "bytes"
    assert "Date" in hit.headers


def test_hit_has_the_checksum_as_its_entity_tag_where_the_app_sent_none(client):
    client.get(URL)

    assert client.get(URL).headers["ETag"] == f'"{sha256(BODY)}"'


def test_no_tag_is_added_where_the_app_sent_another_validator(client, origin):
    origin.headers.append(("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"))
    client.get(URL)

    assert "ETag" not in client.get(URL).headers


def test_entity_tag_of_the_app_is_kept(client, origin):
    origin.headers.append(("ETag", '"v1"'))
    client.get(URL)

    assert client.get(URL).headers["ETag"] == '"v1"'


def test_body_of_the_app_is_closed_exactly_once(client, origin):
    client.get(URL)
    client.get("/empty")

    assert (origin.opened, origin.closed) == (2, 2)


def test_empty_image_is_an_image(client, origin):
    assert client.get("/empty").body == b""
    assert status_of(client.get("/empty")) == "cachemw; hit"


def test_length_is_not_needed(client, origin):
    origin.send_length = False

    assert client.get(URL).body == BODY
    assert client.get(URL).body == BODY
    assert origin.calls == 1


def test_head_is_answered_from_an_entry_and_never_fills(client, origin):
    before = client.head(URL)
    client.get(URL)
    after = client.head(URL)

    assert status_of(before) == "cachemw; fwd=uri-miss; detail=head"
    assert status_of(after) == "cachemw; hit"
    assert after.headers["Content-Length"] == str(len(BODY))
    assert origin.calls == 2


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-9", BODY[:10]),
        ("bytes=100-", BODY[100:]),
        ("bytes=-5", BODY[-5:]),
        ("bytes=-99999999", BODY),
        ("bytes=16380-99999", BODY[16380:]),
    ],
)
def test_range_of_a_hit(client, asked, expected):
    """RFC 9110, section 14.1.2."""
    client.get(URL)

    response = client.get(URL, headers={"Range": asked}, status=206)

    assert response.body == expected
    assert response.headers["Content-Length"] == str(len(expected))
    assert response.headers["Content-Range"].endswith(f"/{len(BODY)}")


def test_unsatisfiable_range_of_a_hit(client):
    """RFC 9110, section 15.5.17."""
    client.get(URL)

    response = client.get(URL, headers={"Range": f"bytes={len(BODY)}-"}, status=416)

    assert response.headers["Content-Range"] == f"bytes */{len(BODY)}"


def test_several_ranges_of_a_hit(client):
    """RFC 9110, section 14.6."""
    client.get(URL)

    response = client.get(URL, headers={"Range": "bytes=0-3,100-103"}, status=206)

    assert response.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert response.headers["Content-Length"] == str(len(response.body))
    assert b"Content-Range: bytes 0-3/16384\r\n\r\n\x00\x01\x02\x03\r\n" in response.body
    assert b"Content-Range: bytes 100-103/16384\r\n\r\ndefg\r\n" in response.body


def test_part_of_an_image_does_not_carry_the_checksum_of_the_whole_message(client, origin):
    """Content-MD5 is of the message's body (RFC 1864), which a 206 has only a part of."""
    origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    client.get(URL)

    response = client.get(URL, headers={"Range": "bytes=0-9"}, status=206)

    assert "Content-MD5" not in response.headers
    assert "Content-MD5" in client.get(URL).headers


def test_range_with_a_tag_of_another_version_gives_the_whole(client, origin):
    """RFC 9110, section 13.1.5."""
    origin.headers.append(("ETag", '"v1"'))
    client.get(URL)
    headers = {"Range": "bytes=0-9", "If-Range": '"v0"'}

    assert client.get(URL, headers=headers, status=200).body == BODY
    headers["If-Range"] = '"v1"'
    assert client.get(URL, headers=headers, status=206).body == BODY[:10]


def test_head_with_a_range_is_about_the_whole(client):
    """RFC 9110, section 14.2: Range is for GET."""
    client.get(URL)

    response = client.head(URL, headers={"Range": "bytes=0-9"}, status=200)

    assert response.headers["Content-Length"] == str(len(BODY))


def test_conditions_are_evaluated_on_a_hit(client, origin):
    """RFC 9110, section 13.2.2."""
    origin.headers += [("ETag", '"v1"'), ("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT")]
    client.get(URL)

    same = client.get(URL, headers={"If-None-Match": 'W/"v1"'}, status=304)
    client.get(URL, headers={"If-None-Match": '"v0"'}, status=200)
    client.get(URL, headers={"If-Match": '"v0"'}, status=412)
    client.get(URL, headers={"If-Match": '"v1"'}, status=200)
    client.get(URL, headers={"If-Modified-Since": "Fri, 20 Nov 2026 10:00:00 GMT"}, status=304)
    client.get(URL, headers={"If-Unmodified-Since": "Fri, 20 Nov 2026 09:00:00 GMT"}, status=412)

    assert same.headers["ETag"] == '"v1"'
    assert same.body == b""
    assert status_of(same) == "cachemw; hit"
    assert origin.calls == 1


def test_every_kind_of_answer_from_an_entry_counts_one_hit(client, cache):
    client.get(URL)
    client.get(URL)
    client.head(URL)
    client.get(URL, headers={"Range": "bytes=0-9"}, status=206)
    client.get(URL, headers={"Range": "bytes=0-1,5-9"}, status=206)
    client.get(URL, headers={"Range": "bytes=99999-"}, status=416)
    client.get(URL, headers={"If-None-Match": "*"}, status=304)

    (image,) = cache.get_cached_images()
    assert image["hits"] == 6
    assert image["size"] == len(BODY)
    assert image["checksum"] == sha256(BODY)


def test_hit_of_a_client_that_left_counts_too(origin, cache):
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()

    response = call(app, URL)
    next(iter(response.body))
    response.close()
    response.close()

    assert cache.get_cached_images()[0]["hits"] == 1


# What is stored


def not_stored(client, origin, reason, **kwargs):
    for _ in range(2):
        response = client.get(URL, **kwargs)
        assert status_of(response) == f"cachemw; fwd=uri-miss; detail={reason}"
        assert response.body == BODY
    assert origin.calls == 2


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("Cache-Control", "no-store", "no-store"),
        ("Cache-Control", "private", "private"),
        ("Set-Cookie", "a=b", "set-cookie"),
        ("Vary", "accept, *", "vary"),
        ("Vary", "Cookie", "vary"),
        ("Vary", "X-Auth-Token", "vary"),
    ],
)
def test_answer_that_forbids_storing_is_not_stored(client, origin, field, value, reason):
    """RFC 9111, sections 3, 4.1 and 5.2.2."""
    origin.headers.append((field, value))

    not_stored(client, origin, reason)


def test_answer_without_a_lifetime_is_not_stored(client, origin):
    """RFC 9111, section 4.2.2: nothing to reckon one from."""
    origin.headers = []

    not_stored(client, origin, "not-fresh")


def test_answer_without_a_lifetime_is_stored_where_ids_are_immutable(origin, cache):
    origin.headers = []
    client = client_of(origin, cache, freshness="immutable")
    client.get(URL)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_image_that_cannot_change_is_not_fetched_again_for_a_client_that_asks(origin, cache):
    client = client_of(origin, cache, freshness="immutable")
    client.get(URL)

    assert status_of(client.get(URL, headers={"Cache-Control": "no-cache"})) == "cachemw; hit"


def test_old_image_is_fresh_for_a_while_by_its_age(client, origin):
    """RFC 9111, section 4.2.2."""
    origin.headers = [("Last-Modified", "Thu, 20 Nov 2025 10:00:00 GMT")]
    client.get(URL)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_type_that_is_no_image_is_not_stored(client, origin):
    origin.content_type = "text/html; charset=UTF-8"

    not_stored(client, origin, "content-type")


@pytest.mark.parametrize(
    "field", ["Authorization", "Cookie", "X-Auth-Token", "X-Storage-Token", "X-Service-Token"]
)
def test_answer_to_someone_is_not_stored(client, origin, field):
    """RFC 9111, section 3.5, over every credential that image services know."""
    origin.headers = [("Cache-Control", "max-age=60")]

    not_stored(client, origin, "credentials", headers={field: "secret"})


def test_answer_to_someone_is_stored_if_it_says_that_it_is_for_all(client, origin):
    """RFC 9111, section 3.5."""
    client.get(URL, headers={"Authorization": "secret"})

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_more_fields_can_count_as_credentials(origin, cache):
    origin.headers = [("Cache-Control", "max-age=60")]
    client = client_of(origin, cache, credential_headers="X-Api-Key")

    not_stored(client, origin, "credentials", headers={"X-Api-Key": "secret"})


def test_remote_user_counts_as_a_credential(client, origin):
    origin.headers = [("Cache-Control", "max-age=60")]

    not_stored(client, origin, "credentials", extra_environ={"REMOTE_USER": "ann"})


def test_cold_range_passes_and_is_not_stored(client, origin):
    response = client.get(URL, headers={"Range": "bytes=0-9"})

    assert status_of(response) == "cachemw; fwd=uri-miss; detail=range"


def test_missing_image_passes(client):
    response = client.get("/none", status=404)

    assert status_of(response) == "cachemw; fwd=uri-miss; detail=status"


def test_image_larger_than_allowed_passes(origin, driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_image_size="8KiB")
    client = client_of(origin, cache)

    not_stored(client, origin, "full")
    assert cache.driver.get_usage() == 0
    cache.close()


def test_image_of_unknown_length_that_grows_too_large_passes(origin, driver_name, tmp_path):
    origin.send_length = False
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_size="8KiB")
    client = client_of(origin, cache)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert origin.calls == 2
    assert cache.driver.get_usage() == 0
    cache.close()


def test_bound_holds_while_images_come(driver_name, tmp_path):
    images = {f"/{number}": bytes([number]) * 10_000 for number in range(10)}
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_size=35_000)
    client = client_of(FakeOrigin(images), cache)
    for path, body in images.items():
        assert client.get(path).body == body
        assert cache.driver.get_usage() <= 35_000

    assert [client.get(path).body for path in images] == list(images.values())
    cache.close()


# Variants


def test_other_variant_is_a_miss(client, origin):
    """RFC 9111, section 4.1."""
    origin.headers.append(("Vary", "Accept"))
    client.get(URL, headers={"Accept": "image/png"})

    other = client.get(URL, headers={"Accept": "image/webp"})
    again = client.get(URL, headers={"Accept": "image/webp"})

    assert status_of(other) == "cachemw; fwd=vary-miss; stored"
    assert status_of(again) == "cachemw; hit"


def test_other_query_is_another_image(client, origin):
    client.get(f"{URL}?width=100")

    assert status_of(client.get(f"{URL}?width=200")) == "cachemw; fwd=uri-miss; stored"
    assert status_of(client.get(f"{URL}?width=100")) == "cachemw; hit"


def test_other_host_is_another_image(client):
    client.get(URL, headers={"Host": "one.example"})

    other = client.get(URL, headers={"Host": "two.example"})
    assert status_of(other) == "cachemw; fwd=uri-miss; stored"


def test_client_may_ask_for_a_new_one(client, origin):
    """RFC 9111, section 5.2.1.4."""
    client.get(URL)
    origin.images[URL] = BODY[::-1]

    fresh = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert status_of(fresh) == "cachemw; fwd=request; stored"
    assert fresh.body == client.get(URL).body == BODY[::-1]


# Invalidation


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST", "PATCH"])
def test_successful_change_removes_the_copy(client, origin, method):
    """RFC 9111, section 4.4."""
    client.get(URL)
    origin.images[URL] = BODY[::-1]

    client.request(URL, method=method)

    assert client.get(URL).body == BODY[::-1]


def test_failed_change_leaves_the_copy(cache):
    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            start_response(
                "200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")]
            )
            return [BODY]
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no"]

    client = client_of(app, cache)
    client.get(URL)
    client.delete(URL, status=403)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_change_during_a_fill_keeps_the_old_bytes_out(origin, cache):
    """What the fill brings is older than the change."""
    app = CacheFilter(origin, cache=cache)
    response = call(app, URL)
    next(iter(response.body))
    call(app, URL, REQUEST_METHOD="DELETE").read()
    rest = response.read()

    assert len(rest) == len(BODY) - 4096
    assert not cache.get_cached_images()
    assert call(app, URL).header("Cache-Status") == "cachemw; fwd=uri-miss; stored"


def test_other_method_passes(client, origin):
    response = client.options(URL, status=204)

    assert status_of(response) == "cachemw; fwd=bypass; detail=method"


# Routes


def test_path_that_no_route_matches_passes_untouched(origin, cache):
    client = client_of(origin, cache, routes="/v2/images/(?P<image_id>[^/]+)/file")

    assert "Cache-Status" not in client.get(URL).headers


def test_route_names_the_image(origin, cache):
    client = client_of(origin, cache, routes="/images/(?P<image_id>[^/]+)/file")
    client.get(URL)

    assert cache.is_cached("cat")
    assert [image["image_id"] for image in cache.get_cached_images()] == ["cat"]
    assert client.get(URL).body == BODY


# Verification


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("chunk", [1000, 10**6])
def test_wrong_checksum_cuts_the_response(origin, cache, length, chunk):
    """No reader gets the end of an image that is not what was promised."""
    origin.headers.append(("Content-MD5", hashlib.md5(b"another").hexdigest()))
    origin.chunk, origin.send_length = chunk, length
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(ChecksumMismatch)

    assert len(received) < len(BODY)
    assert BODY.startswith(received)
    assert not cache.get_cached_images()
    (invalid,) = cache.driver.get_invalid_images()
    assert invalid["reason"].startswith("md5 is ")
    assert origin.closed == 1


@pytest.mark.parametrize("promised", [len(BODY) - 1, len(BODY) + 1, 1])
def test_wrong_length_cuts_the_response(origin, cache, promised):
    origin.send_length = False
    origin.headers.append(("Content-Length", str(promised)))
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(LengthMismatch)

    assert len(received) < promised or promised > len(BODY)
    assert not cache.get_cached_images()
    assert "promised" in cache.driver.get_invalid_images()[0]["reason"]


@pytest.mark.parametrize(
    "field",
    [
        ("Content-MD5", hashlib.md5(BODY).hexdigest()),
        ("Content-MD5", base64.b64encode(hashlib.md5(BODY).digest()).decode()),
        ("X-Image-Meta-Checksum", hashlib.md5(BODY).hexdigest()),
        ("Repr-Digest", f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"),
    ],
)
def test_right_checksum_is_kept(client, origin, cache, field):
    origin.headers.append(field)
    client.get(URL)

    algorithm, _, hexdigest = cache.get_cached_images()[0]["checksum"].partition(":")
    assert hashlib.new(algorithm, BODY).hexdigest() == hexdigest


def test_app_that_fails_in_mid_body_fails_for_the_client(origin, cache):
    def fail(number):
        if number == 2:
            raise RuntimeError("disk on fire")

    origin.before_chunk = fail
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(RuntimeError)

    assert received == BODY[:8192]
    (invalid,) = cache.driver.get_invalid_images()
    assert invalid["reason"] == "the app failed after 8192 bytes: RuntimeError: disk on fire"
    assert origin.closed == 1


def test_app_that_fails_before_its_answer_fails_as_without_us(cache):
    def app(environ, start_response):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        call(CacheFilter(app, cache=cache), URL)


def test_client_that_leaves_during_a_fill_leaves_nothing_behind(origin, cache):
    app = CacheFilter(origin, cache=cache, on_abort="discard")
    response = call(app, URL)
    next(iter(response.body))
    response.close()
    response.close()

    assert origin.closed == 1
    assert not cache.is_being_cached("x")
    assert cache.driver.get_invalid_images()[0]["reason"] == (
        "the client left after 4096 of 16384 bytes"
    )
    assert call(app, URL).read() == BODY


def test_two_requests_for_one_image_share_its_fill(origin, cache):
    """Glance lets both write one file."""
    app = CacheFilter(origin, cache=cache)
    one = call(app, URL)
    next(iter(one.body))
    two = call(app, URL)

    assert two.header("Cache-Status") == "cachemw; fwd=uri-miss; collapsed"
    assert two.read() == BODY
    assert len(one.read()) == len(BODY) - 4096
    assert call(app, URL).read() == BODY
    assert origin.calls == 1


# Ways of apps


def test_app_that_starts_its_answer_late(cache):
    """PEP 3333: start_response may be called as late as with the first chunk."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=9")])
        yield BODY[:10]
        yield BODY[10:]

    client = client_of(app, cache)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert status_of(client.get(URL)) == "cachemw; hit"


def test_app_that_writes_its_body_passes(cache):
    """PEP 3333, the write() callable: nothing is buffered, so nothing is stored."""

    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "image/png")])
        write(BODY[:10])
        return [BODY[10:]]

    response = client_of(app, cache).get(URL)

    assert response.body == BODY
    assert status_of(response) == "cachemw; fwd=uri-miss; detail=write"


def test_app_that_changes_its_mind_before_the_first_byte(cache):
    """PEP 3333: start_response with exc_info replaces the answer."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png")])
        try:
            raise RuntimeError("no")
        except RuntimeError:
            import sys

            start_response("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"no"]

    response = client_of(app, cache).get(URL, status=500)

    assert response.body == b"no"


def test_file_of_the_app_reaches_the_servers_own_wrapper(cache, tmp_path):
    """What is not stored can still go out by sendfile."""
    (tmp_path / "page").write_bytes(b"<html>")

    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return environ["wsgi.file_wrapper"](open(tmp_path / "page", "rb"), 100)

    response = call(CacheFilter(app, cache=cache), URL, **{"wsgi.file_wrapper": Wrapper})

    assert isinstance(response.body, Wrapper)
    response.body.file.close()


def test_hit_goes_to_the_servers_own_wrapper_whole(origin, cache):
    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file
            self.close = file.close

    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()

    response = call(app, URL, **{"wsgi.file_wrapper": Wrapper})
    part = call(app, URL, **{"wsgi.file_wrapper": Wrapper, "HTTP_RANGE": "bytes=5-9"})

    assert response.body.file.read() == BODY
    assert part.read() == BODY[5:10]  # not through a wrapper that may start at byte 0
    response.close()


def test_part_goes_to_the_wrapper_of_a_server_that_honours_the_offset(origin, cache):
    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file
            self.close = file.close

    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    server = {"wsgi.file_wrapper": Wrapper, "HTTP_RANGE": "bytes=5-9"}

    new = call(app, URL, SERVER_SOFTWARE="gunicorn/27.0.1", **server)
    old = call(app, URL, SERVER_SOFTWARE="gunicorn/20.1.0", **server)

    assert new.body.file.tell() == 5
    assert old.read() == BODY[5:10]
    new.close()


# Entries of other programs


def glance_entry(directory, name, body):
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(body)


@pytest.fixture
def glance_client(origin, driver_name, tmp_path):
    def make(body):
        glance_entry(tmp_path / "cache", "cat", body)
        cache = ImageCache(dir=tmp_path / "cache", driver=driver_name)
        return cache, client_of(origin, cache, routes="/images/(?P<image_id>[^/]+)/file")

    return make


def test_adopted_entry_is_used_once_the_apps_checksum_says_so(glance_client, origin):
    origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    cache, client = glance_client(BODY)
    assert [image["image_id"] for image in cache.get_cached_images()] == ["cat"]

    first, second = client.get(URL), client.get(URL)

    assert status_of(first) == "cachemw; hit; detail=adopted"
    assert status_of(second) == "cachemw; hit"
    assert first.body == second.body == BODY
    assert origin.calls == 1
    assert origin.closed == 1
    cache.close()


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("stale", [b"another", BODY[::-1]])
def test_adopted_entry_that_is_not_what_the_app_has_is_never_served(
    glance_client, origin, checksum, stale
):
    if checksum:
        origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    cache, client = glance_client(stale)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert origin.calls == 1
    cache.close()


# Power cuts


@pytest.mark.parametrize("durability", ["none", "data"])
def test_bytes_that_a_power_cut_took_are_never_served(
    origin, driver_name, tmp_path, monkeypatch, durability
):
    """Zeros of the right length, under a boot later than the one that wrote without syncing."""
    cache = ImageCache(dir=tmp_path, driver=driver_name, durability=durability)
    client = client_of(origin, cache)
    client.get(URL)
    (entry,) = [path for path in tmp_path.iterdir() if path.name.startswith("_")]
    entry.write_bytes(bytes(len(BODY)))
    # What was synced is not looked at again: another's write to it is for verify_reads.
    assert client.get(URL).body == bytes(len(BODY))

    monkeypatch.setattr("cachemw.drivers.base.boot_id", lambda: "next")
    after = client.get(URL)

    if durability == "none":
        assert after.body == BODY
        assert cache.driver.get_invalid_images()[0]["reason"].startswith("its bytes do not match")
    else:
        assert status_of(after) == "cachemw; hit"
    cache.close()


# Construction


def test_cache_is_made_from_options(origin, tmp_path):
    app = CacheFilter(origin, dir=tmp_path, driver="xattr", max_size="5MiB")
    webtest.TestApp(app).get(URL)

    assert app.cache.get_cache_size() == len(BODY)
    assert app.cache.capacity.max_size == 5 * 2**20
    app.cache.close()


def test_storage_option_beside_a_cache_is_refused(origin, cache):
    with pytest.raises(ConfigError, match="'dir' belongs to the ImageCache"):
        CacheFilter(origin, cache=cache, dir="/tmp/x")


@pytest.mark.parametrize("use", ["egg:cachemw", "egg:cachemw#main", "egg:cachemw#cache"])
def test_pipeline_from_an_ini_file(tmp_path, use):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(BODY)
    (tmp_path / "app.ini").write_text(
        f"""
[DEFAULT]
image_cache_dir = %(here)s/cache
image_cache_max_size = 5MiB
other = of somebody else

[pipeline:main]
pipeline = cache images

[filter:cache]
use = {use}
driver = xattr

[app:images]
use = egg:cachemw#images
dir = %(here)s/images
"""
    )
    app = loadapp(f"config:{tmp_path / 'app.ini'}")
    client = webtest.TestApp(app)

    assert client.get("/cat.png").body == client.get("/cat.png").body == BODY
    assert (tmp_path / "cache").is_dir()
    assert app.cache.settings.max_size == 5 * 2**20
    assert app.cache.settings.driver == "xattr"
    app.cache.close()


def test_mistake_in_an_ini_file_stops_the_start(tmp_path):
    (tmp_path / "app.ini").write_text(
        """
[pipeline:main]
pipeline = cache images
[filter:cache]
use = egg:cachemw
dir = %(here)s/cache
max_sise = 5MiB
[app:images]
use = egg:cachemw#images
dir = %(here)s
"""
    )
    with pytest.raises(ConfigError, match="'max_sise': did you mean 'max_size'"):
        loadapp(f"config:{tmp_path / 'app.ini'}")


# Helpers


class Response:
    """What the filter gave to a server that reads it by hand."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        return dict(self.headers)[name]

    def read(self):
        try:
            return b"".join(self.body)
        finally:
            self.close()

    def read_until(self, error):
        received = io.BytesIO()
        with pytest.raises(error):
            for chunk in self.body:
                received.write(chunk)
        self.close()
        return received.getvalue()

    def close(self):
        if hasattr(self.body, "close"):
            self.body.close()


def call(app, path, **extra):
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        **extra,
    }
    body = app(environ, lambda *args: started.append(args))
    return Response(started[0][0], started[0][1], body)


def test_content_range_of_a_whole_answer_is_not_repeated_with_a_part(client, origin):
    """RFC 9110, section 14.4: it means nothing in a 200, and there is one in a 206."""
    origin.headers.append(("Content-Range", "bytes 0-1/2"))
    client.get(URL)

    part = client.get(URL, headers={"Range": "bytes=0-9"}, status=206)

    assert part.headers.getall("Content-Range") == [f"bytes 0-9/{len(BODY)}"]


def test_image_that_was_stored_just_now_is_a_hit(tmp_path, monkeypatch):
    """Its fill was under way when the request came, and is over when it would follow."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")])
        return [b"image"]

    cached = CacheFilter(app, dir=tmp_path, min_free=0)
    monkeypatch.setattr(cached.cache, "is_filling", lambda image_id, selects: True)
    assert by_hand(cached, "/a").body == b"image"

    assert by_hand(cached, "/a").cache == "hit"
    reply = by_hand(cached, "/a", Range="bytes=1-2")
    assert (reply.cache, reply.body) == ("hit", b"ma")
    cached.cache.close()
