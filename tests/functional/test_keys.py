"""Nobody gets wrong bytes by way of the key: what tells images from each other."""

import hashlib

import pytest

from cachemw import CacheFilter, ImageCache
from tests.wsgi import get

MANY = 2000


class Echo:
    """An app whose images are what it was asked for, as far as an app may look."""

    #: What the app looks at.
    LOOKS_AT = (
        "wsgi.url_scheme",
        "HTTP_HOST",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "RAW_URI",
        "REQUEST_URI",
        "HTTP_FRONT_END_HTTPS",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_FORWARDED_PATH",
        "HTTP_X_FORWARDED_PORT",
        "HTTP_X_FORWARDED_PREFIX",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_SCHEME",
        "HTTP_X_FORWARDED_SERVER",
        "HTTP_X_FORWARDED_SSL",
        "HTTP_X_HOST",
        "HTTP_X_HTTP_METHOD",
        "HTTP_X_HTTP_METHOD_OVERRIDE",
        "HTTP_X_METHOD_OVERRIDE",
        "HTTP_X_ORIGINAL_HOST",
        "HTTP_X_ORIGINAL_URL",
        "HTTP_X_REWRITE_URL",
        "HTTP_X_SCRIPT_NAME",
        "HTTP_TRANSFER_ENCODING",
        "CONTENT_LENGTH",
    )

    def __init__(self, looks_at=LOOKS_AT):
        self.calls = 0
        self.looks_at = looks_at

    def image(self, environ):
        return "\n".join(f"{key}={environ.get(key)}" for key in self.looks_at).encode()

    def __call__(self, environ, start_response):
        self.calls += 1
        start_response(
            "200 OK", [("Content-Type", "image/png"), ("Cache-Control", "public, max-age=600")]
        )
        return [self.image(environ)]


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def origin():
    return Echo()


@pytest.fixture
def app(origin, cache):
    return CacheFilter(origin, cache=cache)


def is_one_image(app, one, other):
    """Whether two requests, each a path and more of an environ, get one copy."""
    get(app, one[0], **one[1])
    return get(app, other[0], **other[1]).cache == "hit"


# Two images


@pytest.mark.parametrize(
    "other",
    [
        ("/a/c", {}),
        ("/A/b", {}),
        ("/a//b", {}),
        ("/a/b/", {}),
        ("/a/b?x=1", {}),
        ("/a/b", {"HTTP_HOST": "other"}),
        ("/a/b", {"HTTP_HOST": "localhost:8080"}),
        ("/a/b", {"HTTP_HOST": "localhost:443"}),
        ("/a/b", {"wsgi.url_scheme": "https"}),
        ("/a/b", {"SCRIPT_NAME": "/mounted"}),
        ("/a/b", {"RAW_URI": "/a%2Fb"}),
        ("/a/b", {"REQUEST_URI": "/a%2Fb"}),
        ("/a/b", {"RAW_URI": "http://localhost/a%2Fb"}),
        ("/a/b", {"REQUEST_URI": "HTTP://localhost:80/a%2Fb?x"}),
        ("/a%2Fb", {}),
        ("/a/b\xe9", {}),
        ("/a/b\xc3\xa9", {}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_may_be_another_image_is_another_image(app, origin, other, turned):
    pair = [("/a/b", {}), other]
    if turned:
        pair.reverse()

    assert not is_one_image(app, *pair)
    assert origin.calls == 2
    assert len(app.cache.get_cached_images()) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/y", {"HTTP_HOST": "localhost/x"}), ("/x/y", {})),
        (("", {"HTTP_HOST": "localhost/x/y"}), ("/x/y", {})),
        (("/y", {"HTTP_HOST": "localhost?x="}), ("?x=/y", {"PATH_INFO": ""})),
        (("/y", {"HTTP_HOST": "localhost#"}), ("/y", {})),
        (("/y", {"HTTP_HOST": "else@localhost"}), ("/y", {})),
        (("/y", {"HTTP_HOST": "localhost\\x"}), ("/x/y", {})),
        (("/y", {"HTTP_HOST": "local\thost"}), ("/y", {})),
        (("/y", {"HTTP_HOST": "localhost:80/x:80"}), ("/x/y", {})),
    ],
)
def test_host_that_is_more_than_a_host_stores_nothing(app, origin, one, other):
    """Else whoever may set Host puts one path's image under the key of another."""
    reply = get(app, one[0], **one[1])

    assert reply.status == 200
    assert reply.cache == ""
    assert not app.cache.get_cached_images()
    assert f"HTTP_HOST={one[1]['HTTP_HOST']}".encode() not in get(app, other[0], **other[1]).body


@pytest.mark.parametrize("host", ["", ":80", ":", "[::1", "::1", "a b", "a,b/c", "\xe9", "\u20ac"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_no_host_breaks_a_request(app, host, method):
    assert get(app, "/a/b", method, HTTP_HOST=host).status == 200


# One image


@pytest.mark.parametrize(
    "other",
    [
        {"HTTP_HOST": "LOCALHOST"},
        {"HTTP_HOST": "localhost:80"},
        {"HTTP_HOST": "localhost:443", "wsgi.url_scheme": "https"},
        {"RAW_URI": "/a/b"},
        {"RAW_URI": "http://localhost/a/b"},
        {"QUERY_STRING": ""},
        {"SCRIPT_NAME": "/a", "PATH_INFO": "/b"},
        {"SERVER_NAME": "x", "SERVER_PORT": "9", "REMOTE_ADDR": "10.0.0.1"},
        {"User-Agent": "x", "X-Forwarded-For": "10.0.0.1", "Referer": "x"},
    ],
)
def test_what_makes_no_difference_is_one_image(app, other):
    scheme = {"wsgi.url_scheme": other.get("wsgi.url_scheme", "http")}

    assert is_one_image(app, ("/a/b", scheme), ("/a/b", other))


def test_without_a_raw_target_the_path_is_quoted_in_one_way(app):
    one = ("/a b\xc3\xa9%?q", {"RAW_URI": "/a%20b%C3%A9%25?q"})

    assert is_one_image(app, one, ("/a b\xc3\xa9%?q", {}))


def test_id_has_scheme_host_script_name_path_and_query(app):
    get(app, "/a b?w=1&h=2", SCRIPT_NAME="/mounted", HTTP_HOST="Example.org:8080")

    (image,) = app.cache.get_cached_images()
    assert image["image_id"] == "http://example.org:8080/mounted/a%20b?w=1&h=2"


# Too long


@pytest.mark.parametrize("where", ["path", "query"])
def test_longest_id_is_stored_and_one_character_more_passes(app, origin, where):
    start = "/" if where == "path" else "/a?"
    longest = start + "x" * (MANY - len(f"http://localhost{start}"))

    assert get(app, longest).cache == "fwd=uri-miss; stored"
    assert get(app, longest).cache == "hit"
    assert get(app, f"{longest}x").cache == ""
    assert get(app, f"{longest}x").status == 200
    assert origin.calls == 3


# The id that a route gives


@pytest.fixture
def routed(origin, cache):
    return CacheFilter(origin, cache=cache, routes="/i/(?P<image_id>.+)")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("/i/cat?w=1", {}), ("/i/cat", {"PATH_INFO": "/i/cat?w=1"})),
        (("/i/cat?w=1", {}), ("/i/cat%3Fw=1", {})),
        (("/i/cat", {"PATH_INFO": "/i/cat?w=1"}), ("/i/cat%3Fw=1", {})),
        (("/i/cat?w=1", {}), ("/i/cat?w=2", {})),
        (("/i/cat?a?b", {}), ("/i/cat?b", {"PATH_INFO": "/i/cat?a"})),
        (("/i/\xff", {}), ("/i/\xc3\xbf", {})),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_quoted_question_mark_is_no_query(routed, one, other, turned):
    """WSGI hands ``a%3Fb`` over as ``a?b``: an image's path, where the other is its query."""
    pair = [one, other] if not turned else [other, one]

    assert not is_one_image(routed, *pair)
    assert len(routed.cache.get_cached_images()) == 2


def test_plain_id_is_the_id_itself(routed):
    get(routed, "/i/a/b c.png")

    assert routed.cache.is_cached("a/b c.png")


DIGEST = "sha256:" + hashlib.sha256(b"layer").hexdigest()


@pytest.mark.parametrize(
    ("preset", "path", "image_id"),
    [
        ("glance", "/v2/images/cat/file", "cat"),
        ("registry", f"/v2/library/debian/blobs/{DIGEST}", DIGEST),
    ],
)
def test_query_is_no_part_of_an_id_that_names_the_bytes(cache, preset, path, image_id):
    asked = []

    def origin(environ, start_response):
        asked.append(environ["QUERY_STRING"])
        if "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [])
            return []
        start_response("200 OK", [("Content-Type", "image/png"), ("ETag", '"1"')])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"layer"]

    app = CacheFilter(origin, cache=cache, preset=preset, authorize="app")
    one = get(app, path)
    two = get(app, f"{path}?ns=docker.io")

    assert one.cache == "fwd=uri-miss; stored"
    assert two.cache in ("fwd=stale; fwd-status=304", "fwd=stale; fwd-status=200")
    assert one.body == two.body == b"layer"
    assert [image["image_id"] for image in cache.get_cached_images()] == [image_id]


def test_id_that_looks_like_no_digest_is_not_taken_for_one(cache):
    """Routes for tags, say: what a tag names changes."""
    images = [b"one", b"two"]

    def origin(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png")])
        return [images[0]]

    app = CacheFilter(origin, cache=cache, preset="registry", routes="/(?P<image_id>.+)")
    assert get(app, "/latest").body == b"one"
    images.pop(0)

    assert get(app, "/latest").body == b"two"


def test_page_in_the_place_of_a_layer_is_not_taken_for_it(cache):
    """A 200 to ask for a login names other bytes, whatever the URL says."""
    answers = [b"layer", b"please log in"]

    def origin(environ, start_response):
        headers = [("Content-Type", "text/html"), ("Content-Length", str(len(answers[0])))]
        start_response("200 OK", headers)
        return [answers[0]]

    app = CacheFilter(origin, cache=cache, preset="registry")
    path = f"/v2/library/debian/blobs/{DIGEST}"
    assert get(app, path).body == b"layer"
    answers.pop(0)

    assert b"layer" not in get(app, path).body


def test_coded_layer_passes(cache):
    """The digest is of the bytes without the coding: the download would be cut for nothing."""
    coded = b"not really gzip"

    def origin(environ, start_response):
        headers = [("Content-Type", "application/octet-stream"), ("Content-Encoding", "gzip")]
        start_response("200 OK", headers)
        return [coded]

    app = CacheFilter(origin, cache=cache, preset="registry")
    reply = get(app, f"/v2/library/debian/blobs/{DIGEST}")

    assert (reply.body, reply.error) == (coded, None)
    assert reply.cache == "fwd=uri-miss; detail=content-encoding"


# Nothing outside the key


POISON = {
    "Front-End-Https": "on",
    "X-Forwarded-Host": "evil",
    "X-Forwarded-Path": "/evil",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "evil",
    "X-Forwarded-Scheme": "evil",
    "X-Forwarded-Server": "evil",
    "X-Forwarded-Ssl": "on",
    "X-Host": "evil",
    "X-HTTP-Method": "EVIL",
    "X-HTTP-Method-Override": "EVIL",
    "X-Method-Override": "EVIL",
    "X-Original-Host": "evil",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Script-Name": "/evil",
    "Transfer-Encoding": "chunked",
    "HTTP_HOST": "evil",
    "CONTENT_LENGTH": "4",
    "QUERY_STRING": "evil",
}


@pytest.mark.parametrize(
    ("field", "routes"),
    [
        *((field, "") for field in sorted(POISON)),
        # A route's id is one image on every host.
        *((field, "/(?P<image_id>.+)") for field in sorted(POISON) if field != "HTTP_HOST"),
    ],
)
def test_nobody_can_put_their_version_under_everyones_key(origin, cache, field, routes):
    app = CacheFilter(origin, cache=cache, routes=routes)
    get(app, "/a/b", **{field: POISON[field]})
    clean = get(app, "/a/b")

    assert clean.body == get(Echo(), "/a/b").body
    get(app, "/a/b", **{field: POISON[field]})
    assert get(app, "/a/b").body == clean.body
    assert b"evil" not in clean.body.lower()


@pytest.mark.parametrize("field", ["X-HTTP-Method-Override", "X-Original-URL", "CONTENT_LENGTH"])
def test_request_that_may_mean_something_else_is_not_answered_from_a_copy(app, origin, field):
    get(app, "/a/b")
    reply = get(app, "/a/b", **{field: POISON[field]})

    assert reply.cache.startswith("fwd=bypass; detail=")
    assert origin.calls == 2
