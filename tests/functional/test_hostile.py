"""Requests and answers that nobody sends by mistake: no error of ours, and bounded work."""

import io
import itertools
import logging
import sys

import pytest

from cachemw import CacheFilter, ImageCache
from tests.wsgi import begin, get

URL = "/images/cat"
BODY = bytes(range(256)) * 64
STORED = "fwd=uri-miss; stored"


class App:
    """An app that answers everything with the same image, and fields that the test sets."""

    def __init__(self, *headers):
        self.headers = list(headers)
        self.status = "200 OK"
        self.plain = [("Content-Type", "image/png"), ("Cache-Control", "public, max-age=600")]
        self.calls = 0

    def __call__(self, environ, start_response):
        self.calls += 1
        start_response(self.status, [*self.plain, *self.headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [BODY[:1000], BODY[1000:]]


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def each_cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "each", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture(autouse=True)
def no_trouble(caplog, monkeypatch):
    """Nothing is logged as an error, and every line can be written."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    logging.getLogger("cachemw").addHandler(handler)
    yield
    logging.getLogger("cachemw").removeHandler(handler)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    for record in caplog.records:
        assert "\n" not in record.getMessage()
        assert "\r" not in record.getMessage()


# Requests

EVIL_TEXTS = [
    "\r\nSet-Cookie: a=b\r\n\r\n",
    "a\nb",
    "a\rb",
    "\x00",
    "\x01\x1b[31m",
    "\x7f",
    "\xff\xfe",
    "\xc3",
    "\xc3\xa9",
    "\xed\xa0\x80",
    "\xf4\x90\x80\x80",
    "\x85",
    "\xe2\x80\xa8",
    "../../../etc/passwd",
    "..",
    ".",
    "cache.db",
    "incomplete",
    ".records",
    "%",
    "%00",
    "%zz",
    "%2e%2e%2f",
    "'; DROP TABLE images; --",
    "{}{0}%s%d",
    "<script>",
    "a" * 10_000,
    "\xff" * 10_000,
    "?" * 1_900,
    "%" * 1_000,
    "\xe9" * 1_000,
    "\u20ac",
    "\ud800",
]

EVIL_VALUES = [*EVIL_TEXTS, "", ",", '"', '"' * 5000, "=" * 5000, "9" * 5000, "," * 70_000]

ROUTES = {
    "any": ("/", {}),
    "routed": ("/i/", {"routes": "/i/(?P<image_id>(?s:.+))"}),
    "glance": ("/v1/images/", {"preset": "glance", "authorize": "off"}),
    "swift": ("/v1/a/c/", {"preset": "swift", "authorize": "off"}),
    "registry": ("/v2/a/blobs/", {"preset": "registry", "authorize": "off"}),
}


@pytest.mark.parametrize("kind", sorted(ROUTES))
def test_no_id_breaks_a_request(each_cache, kind):
    prefix, options = ROUTES[kind]
    origin = App()
    app = CacheFilter(origin, cache=each_cache, **options)

    methods = ("GET", "GET", "HEAD", "PUT", "DELETE", "GET")
    for text, method in itertools.product(EVIL_TEXTS, methods):
        reply = get(app, prefix, method, PATH_INFO=f"{prefix}{text}")
        assert (reply.status, reply.error) == (200, None)
        assert reply.body in (BODY, b"")
        assert text not in str(reply.headers) or len(text) < 3
    for image in each_cache.get_cached_images():
        assert len(image["image_id"]) <= 2000
        assert not set(image["image_id"]) & {chr(code) for code in (*range(32), 127)}


@pytest.mark.parametrize(
    "key", ["QUERY_STRING", "HTTP_HOST", "RAW_URI", "REQUEST_URI", "SCRIPT_NAME", "SERVER_NAME"]
)
def test_no_part_of_the_target_breaks_a_request(cache, key):
    app = CacheFilter(App(), cache=cache)

    for text, method in itertools.product(EVIL_TEXTS, ("GET", "GET", "PUT")):
        reply = get(app, URL, method, **{"HTTP_HOST": "", key: text})
        assert (reply.status, reply.error) == (200, None)


@pytest.mark.parametrize(
    "field",
    [
        "Accept",
        "Authorization",
        "Cache-Control",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Pragma",
        "Range",
        "Transfer-Encoding",
        "X-Forwarded-Host",
        "CONTENT_LENGTH",
        "REMOTE_USER",
    ],
)
def test_no_request_field_breaks_a_request(cache, field):
    app = CacheFilter(App(("ETag", '"1"'), ("Vary", "Accept")), cache=cache)
    get(app, URL)

    for text, method in itertools.product(EVIL_VALUES, ("GET", "HEAD")):
        reply = get(app, URL, method, **{"Range": "bytes=0-", field: text})
        assert reply.status in (200, 206, 304, 412, 416)
        assert reply.error is None


def test_64_kib_of_request_fields(cache):
    app = CacheFilter(App(("Vary", "Accept, User-Agent")), cache=cache)
    fields = {f"X-Field-{number}": "v" * 1000 for number in range(60)}
    large = {"Accept": "a" * 30_000, "User-Agent": "b" * 30_000}

    assert get(app, URL, **fields).cache == STORED
    assert get(app, URL, **fields).cache == "hit"
    assert get(app, URL, **large).body == BODY
    assert get(app, URL, **large).body == BODY
    assert get(app, URL, **fields).cache == "hit"


@pytest.mark.parametrize(
    "ranges",
    [
        ",".join(f"{start}-{start}" for start in range(0, 8000, 2)),
        ",".join(["0-"] * 5000),
        ",".join(["-1"] * 60),
        ",".join(["0-16383"] * 60),
        ",".join(f"{start}-" for start in range(64)),
        "0-" + "9" * 5000,
        "9" * 5000 + "-",
    ],
)
def test_thousands_of_ranges_never_send_more_than_the_image(cache, ranges):
    """RFC 9110, section 14.2: nobody has the same bytes sent many times over."""
    app = CacheFilter(App(), cache=cache)
    get(app, URL)
    reply = get(app, URL, Range=f"bytes={ranges}")

    assert reply.status in (200, 206, 416)
    assert len(reply.body) <= len(BODY) + 64 * 200
    assert reply.error is None


# Answers


@pytest.mark.parametrize(
    "lengths",
    [
        ["16384", "16385"],
        ["16384, 1"],
        ["-1"],
        ["+16384"],
        ["0x4000"],
        ["1e4"],
        [""],
        ["\xb2"],
        ["9" * 5000],
        ["16384", ""],
    ],
)
def test_answer_of_a_nonsense_length_passes_as_it_is(cache, lengths):
    fields = [("Content-Length", length) for length in lengths]
    app = CacheFilter(App(*fields), cache=cache)

    for _ in range(2):
        reply = get(app, URL)
        assert (reply.body, reply.error) == (BODY, None)
        assert reply.cache == "fwd=uri-miss; detail=content-length"
        assert [pair for pair in reply.headers if pair[0] == "Content-Length"] == fields


@pytest.mark.parametrize("length", ["9" * 4000, str(2**63), str(2**64), str(10**30)])
def test_answer_of_a_length_beyond_all_measure_is_passed_on(cache, length):
    reply = get(CacheFilter(App(("Content-Length", length)), cache=cache), URL)

    assert reply.body == BODY
    assert reply.cache != STORED
    assert not cache.get_cached_images()


@pytest.mark.parametrize(
    "field",
    [
        "Age",
        "CDN-Cache-Control",
        "Cache-Control",
        "Connection",
        "Content-Digest",
        "Content-Encoding",
        "Content-MD5",
        "Content-Type",
        "Date",
        "Digest",
        "Docker-Content-Digest",
        "ETag",
        "Expires",
        "Last-Modified",
        "Location",
        "Repr-Digest",
        "Vary",
        "X-Goog-Hash",
        "X-Own",
        "x-amz-checksum-sha256",
    ],
)
def test_no_answers_field_breaks_the_answer(cache, field):
    origin = App()
    if field == "Content-Type":
        del origin.plain[0]
    app = CacheFilter(origin, cache=cache)

    for text, method in itertools.product(EVIL_VALUES, ("GET", "GET", "HEAD", "PUT")):
        origin.headers = [(field, text)]
        reply = get(app, URL, method)
        assert (reply.status, reply.error) == (200, None)
        assert reply.body in (BODY, b"")


@pytest.mark.parametrize("count", [1, 64])
def test_64_kib_of_an_answers_fields_are_stored_whole_or_not(each_cache, count):
    fields = [(f"X-Field-{number}", "v" * (65_000 // count)) for number in range(count)]
    app = CacheFilter(App(*fields), cache=each_cache)
    first, second = get(app, URL), get(app, URL)

    for reply in (first, second):
        assert (reply.body, reply.error) == (BODY, None)
        assert set(fields) <= set(reply.headers)
    assert (second.cache == "hit") is (first.cache == STORED)


@pytest.mark.parametrize("text", ["v" * 300_000, "\xff" * 140_000, "\x01" * 50_000])
def test_answer_with_more_fields_than_can_be_kept_is_passed_on(each_cache, text):
    app = CacheFilter(App(("X-Field", text)), cache=each_cache)

    for _ in range(2):
        reply = get(app, URL)
        assert (reply.body, reply.error) == (BODY, None)
        assert reply.cache == "fwd=uri-miss; detail=fields"
    assert not each_cache.get_cached_images()


def test_304_with_more_fields_than_can_be_kept_drops_the_copy(cache):
    def origin(environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [("ETag", '"1"'), ("X-Field", "v" * 300_000)])
            return []
        start_response("200 OK", [("Content-Type", "image/png"), ("ETag", '"1"')])
        return [BODY]

    app = CacheFilter(origin, cache=cache)
    get(app, URL)

    assert get(app, URL).body == BODY
    assert not cache.get_cached_images()


def test_request_field_that_chose_the_answer_and_is_too_long_to_keep(cache):
    app = CacheFilter(App(("Vary", "Accept")), cache=cache)
    reply = get(app, URL, Accept="a" * 300_000)

    assert (reply.body, reply.error) == (BODY, None)
    assert reply.cache == "fwd=uri-miss; detail=fields"
    assert not cache.get_cached_images()


def test_vary_of_1000_names(cache):
    names = ", ".join(f"X-Name-{number}" for number in range(1000))
    app = CacheFilter(App(("Vary", names)), cache=cache)

    assert get(app, URL).body == get(app, URL).body == BODY
    assert get(app, URL, **{"X-Name-999": "1"}).cache != "hit"


def test_64_kib_of_cache_control(cache):
    many = ", ".join(f"x{number}=1" for number in range(7000))
    app = CacheFilter(App(("Cache-Control", many)), cache=cache)

    assert get(app, URL).body == get(app, URL).body == BODY
    app = CacheFilter(App(("Cache-Control", f"{many}, no-store")), cache=cache)
    assert get(app, "/other").cache == "fwd=uri-miss; detail=no-store"


@pytest.mark.parametrize("status", ["200", "200 ", "200 \xff", "299 Odd", "999 Odd", "100 Odd"])
def test_no_status_line_breaks_the_answer(cache, status):
    origin = App()
    origin.status = status
    app = CacheFilter(origin, cache=cache)

    assert get(app, URL).status == int(status[:3])
    assert get(app, URL, "PUT").status == int(status[:3])


# What a server would reject


class Rejected(Exception):
    """What a server raises for a field with a line break."""


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "\x00"])
def test_answer_that_the_server_rejects_fails_as_without_us_and_is_not_stored(cache, value):
    class Body(list):
        closed = 0

        def close(self):
            Body.closed += 1

    def origin(environ, start_response):
        start_response("200 OK", [*App().plain, ("X-Own", value)])
        return Body([BODY])

    def start_response(status, headers, exc_info=None):
        if any(char in field for _, field in headers for char in "\r\n\x00"):
            raise Rejected
        return lambda data: None

    app = CacheFilter(origin, cache=cache)
    environ = begin_environ(URL)

    for count in (1, 2):
        with pytest.raises(Rejected):
            app(dict(environ), start_response)
        assert Body.closed == count
        assert not cache.get_cached_images()
        assert not cache.is_being_cached(f"http://localhost{URL}")


def begin_environ(path):
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        start_response("200 OK", [])
        return []

    begin(app, path).finish()
    return seen[0]


# Bounded work


def work_of(app, **environ):
    """How many calls of Python functions one request takes."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        get(app, URL, **environ)
    finally:
        sys.setprofile(None)
    return calls


GROWING = {
    "Cache-Control": lambda number: ", ".join(f"x{n}=1" for n in range(number)),
    "If-None-Match": lambda number: ", ".join(f'"{n}"' for n in range(number)),
    "Range": lambda number: "bytes=" + ",".join(f"{n}-{n}" for n in range(number)),
    "Accept": lambda number: ", ".join(f"a/{n}" for n in range(number)),
    "Cookie": lambda number: "; ".join(f"a{n}=1" for n in range(number)),
}


@pytest.mark.parametrize("field", sorted(GROWING))
def test_work_grows_no_faster_than_a_request_field(cache, field):
    app = CacheFilter(App(("ETag", '"1"'), ("Vary", "Accept")), cache=cache)
    get(app, URL, Accept="a/b")
    make = GROWING[field]
    work_of(app, **{field: make(10)})
    small, large = (work_of(app, **{field: make(number)}) for number in (500, 4000))

    assert large < 10 * small + 2000


def test_work_of_a_hit_does_not_depend_on_how_many_variants_were_stored(cache):
    """The fields that anyone may send make variants: there are few of an image."""
    app = CacheFilter(App(), cache=cache)
    for number in range(40):
        get(app, URL, **{"X-Forwarded-Host": f"evil-{number}"})
    assert len(cache.get_cached_images()) <= 8
    get(app, URL)

    assert get(app, URL).cache == "hit"
    assert work_of(app) < 5000
