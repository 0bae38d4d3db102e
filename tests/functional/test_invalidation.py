"""What a change makes out of date (RFC 9111, section 4.4)."""

import sys
import threading

import pytest

from cachemw import CacheFilter, ImageCache
from tests.wsgi import begin, get

URL = "/images/cat"
BODY = bytes(range(256)) * 64
NEWER = BODY[::-1]


class Store:
    """An app whose image a change replaces at once, in the way that the test sets."""

    def __init__(self):
        self.body = BODY
        self.status = "204 No Content"
        self.fields = []
        self.vary = []

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.read(start_response)
        return self.change(start_response)

    def read(self, start_response):
        headers = [("Content-Type", "image/png"), ("Cache-Control", "max-age=600"), *self.vary]
        start_response("200 OK", headers)
        body = self.body
        return [body[:1000], body[1000:]]

    def change(self, start_response):
        if self.status[0] in "23":
            self.body = NEWER
        start_response(self.status, self.fields)
        return []


@pytest.fixture
def cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture
def origin():
    return Store()


@pytest.fixture
def app(origin, cache):
    return CacheFilter(origin, cache=cache)


def is_kept(app, path=URL, **fields):
    return get(app, path, **fields, **{"Cache-Control": "only-if-cached"}).cache == "hit"


# Which requests change


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "COPY", "FROBNICATE", "get"])
@pytest.mark.parametrize(
    "status", ["200 OK", "201 Created", "204 No Content", "299 Odd", "303 See Other", "304 Same"]
)
def test_change_without_an_error_removes_the_copy(app, origin, method, status):
    get(app, URL)
    get(app, "/images/dog")
    origin.status = status
    get(app, URL, method)

    assert not is_kept(app)
    assert is_kept(app, "/images/dog")
    assert get(app, URL).body == NEWER


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "COPY", "FROBNICATE"])
@pytest.mark.parametrize("status", ["400 Bad", "401 Who", "403 No", "404 None", "500 Oh", "503 Oh"])
def test_change_that_failed_leaves_the_copy(app, origin, method, status):
    get(app, URL)
    origin.status = status

    assert get(app, URL, method).status == int(status[:3])
    assert is_kept(app)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE"])
def test_safe_method_leaves_the_copy(app, method):
    """RFC 9110, section 9.2.1."""
    get(app, URL)
    get(app, URL, method)

    assert is_kept(app)


def test_change_with_an_app_that_raises_leaves_the_copy(origin, cache):
    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            raise LookupError("no")
        return origin(environ, start_response)

    app = CacheFilter(app, cache=cache)
    get(app, URL)

    with pytest.raises(LookupError):
        get(app, URL, "PUT")
    assert is_kept(app)


def test_every_variant_goes(app, origin):
    origin.vary = [("Vary", "Accept")]
    for kind in ("image/png", "image/webp", "image/avif"):
        get(app, URL, Accept=kind)
    assert is_kept(app, Accept="image/avif")
    get(app, URL, "PUT")

    for kind in ("image/png", "image/webp", "image/avif"):
        assert not is_kept(app, Accept=kind)


# What else the answer names


@pytest.mark.parametrize("field", ["Location", "Content-Location", "location"])
@pytest.mark.parametrize(
    "reference",
    ["/images/dog", "dog", "http://localhost/images/dog", "HTTP://LOCALHOST:80/images/dog#head"],
)
def test_image_that_the_answer_names_goes_too(app, origin, field, reference):
    get(app, "/images/dog")
    origin.status, origin.fields = "201 Created", [(field, reference)]
    get(app, URL, "POST")

    assert not is_kept(app, "/images/dog")


@pytest.mark.parametrize("field", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "reference",
    [
        "http://other/images/dog",
        "https://localhost/images/dog",
        "//localhost:8080/images/dog",
        "http://localhost:0x50/images/dog",
        "http://[",
        "",
        "\x00",
        "\xff",
        "\u20ac",
        "http://localhost",
        "mailto:dog",
        "x" * 70_000,
    ],
)
def test_nothing_else_goes_and_no_text_breaks_the_answer(app, origin, field, reference):
    """Nobody empties the cache of what is on another origin."""
    get(app, "/images/dog")
    get(app, "/images/dog", HTTP_HOST="other")
    origin.status, origin.fields = "201 Created", [(field, reference)]
    reply = get(app, URL, "POST")

    assert (reply.status, reply.error) == (201, None)
    assert is_kept(app, "/images/dog")
    assert is_kept(app, "/images/dog", HTTP_HOST="other")


def test_deletion_of_glances_resource_removes_the_copy(origin, cache):
    """Other changes there are of what is said about an image: the hook asks about that."""
    app = CacheFilter(origin, cache=cache, preset="glance", authorize="off")
    changes = [
        ("DELETE", "/v2/images/cat"),
        ("PUT", "/v2/images/cat/file"),
        ("PUT", "/v1/images/cat"),
    ]
    for method, path in changes:
        get(app, "/v2/images/cat/file")
        assert cache.is_cached("cat")
        get(app, path, method)
        assert not cache.is_cached("cat"), path

    get(app, "/v2/images/cat/file")
    for path in ("/v2/images", "/v2/images/cat/members", "/v2/images/dog", "/v2/images/"):
        get(app, path, "POST")
    get(app, "/v2/images/cat")
    get(app, "/v2/images/cat", "PATCH")
    get(app, "/v2/images/cat/actions/deactivate", "POST")
    assert cache.is_cached("cat")


def test_image_that_the_answer_names_is_found_by_its_route(origin, cache):
    app = CacheFilter(origin, cache=cache, preset="glance", authorize="off")
    get(app, "/v2/images/cat/file")
    origin.fields = [("Location", "/v2/images/cat/file")]
    get(app, "/v2/tasks", "POST")

    assert not cache.is_cached("cat")


# Changes and fills at once


def test_fill_under_way_is_not_stored(app, origin):
    fill = begin(app, URL)
    fill.step()
    get(app, URL, "PUT")
    reply = fill.finish()

    assert (reply.body, reply.error) == (BODY, None)
    assert not is_kept(app)
    assert get(app, URL).body == NEWER


def test_answer_that_was_on_its_way_is_not_stored(origin, cache):
    """The app has opened the image, and is slow to answer, when it is changed."""

    def slow(environ, start_response):
        answer = origin(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and changes:
            changes.pop()()
        return answer

    app = CacheFilter(slow, cache=cache)
    changes = [lambda: get(app, URL, "PUT")]
    old = get(app, URL)

    assert old.body == BODY
    assert not is_kept(app)
    assert get(app, URL).body == NEWER
    assert is_kept(app)


def test_who_asks_after_a_change_does_not_get_an_answer_from_before_it(origin, cache):
    """Nor does it wait longer than for that answer."""
    asked, go = threading.Event(), threading.Event()
    slow_ones = [1]

    def slow(environ, start_response):
        answer = origin(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and slow_ones:
            slow_ones.pop()
            asked.set()
            assert go.wait(20)
        return answer

    app = CacheFilter(slow, cache=cache)
    replies = {}
    threads = {}
    for name in ("before", "after"):
        threads[name] = threading.Thread(target=lambda n=name: replies.update({n: get(app, URL)}))
    threads["before"].start()
    assert asked.wait(20)
    get(app, URL, "PUT")
    threads["after"].start()
    threads["after"].join(0.2)
    go.set()
    for thread in threads.values():
        thread.join(20)

    assert (replies["before"].body, replies["after"].body) == (BODY, NEWER)
    assert replies["before"].cache == "fwd=uri-miss; detail=changed"
    assert is_kept(app)


def test_answer_to_our_question_that_was_on_its_way_is_not_stored(origin, cache):
    def slow(environ, start_response):
        answer = origin(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and changes:
            changes.pop()()
        return answer

    app = CacheFilter(slow, cache=cache)
    changes = []
    get(app, URL)
    changes = [lambda: get(app, URL, "PUT")]
    old = get(app, URL, **{"Cache-Control": "no-cache"})

    assert old.body == BODY
    assert not is_kept(app)


def test_app_that_changes_the_image_after_it_began_its_answer(origin, cache):
    """PEP 3333 lets it; what was stored in between is out of date."""

    def late(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            yield from origin(environ, start_response)
            return
        start_response("200 OK", [])
        yield b"begun"
        origin.body = NEWER
        yield b"done"

    app = CacheFilter(late, cache=cache)
    change = begin(app, URL, "PUT")
    change.step()
    assert get(app, URL).body == BODY
    assert is_kept(app)
    change.finish()

    assert not is_kept(app)
    assert get(app, URL).body == NEWER


def test_client_that_leaves_a_change_does_not_keep_the_old_copy(origin, cache):
    class Body:
        def __iter__(self):
            yield b"begun"

        def close(self):
            origin.body = NEWER

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            return origin(environ, start_response)
        start_response("200 OK", [])
        return Body()

    app = CacheFilter(app, cache=cache)
    change = begin(app, URL, "PUT")
    change.step()
    get(app, URL)
    change._chunks = iter(())
    change.finish()

    assert get(app, URL).body == NEWER


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("200 OK", "500 Oh", False), ("500 Oh", "204 No", False), ("500 Oh", "409 No", True)],
)
def test_app_that_calls_start_response_twice(origin, cache, by_name, first, second, kept):
    """With 200 first it may have changed something before it failed."""

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            return origin(environ, start_response)
        start_response(first, [])
        try:
            raise LookupError("changed its mind")
        except LookupError:
            if by_name:
                start_response(second, [], exc_info=sys.exc_info())
            else:
                start_response(second, [], sys.exc_info())
        return []

    app = CacheFilter(app, cache=cache)
    get(app, URL)
    reply = get(app, URL, "PUT")

    assert reply.status == int(second[:3])
    assert is_kept(app) is kept


def test_body_of_the_answer_to_a_change_is_closed_once(origin, cache):
    class Body(list):
        closed = 0

        def close(self):
            self.closed += 1

    body = Body([b"a", b"b"])

    def app(environ, start_response):
        start_response("200 OK", [])
        return body

    assert get(CacheFilter(app, cache=cache), URL, "POST").body == b"ab"
    assert body.closed == 1


def test_cache_that_cannot_remove_a_copy_does_not_break_the_change(app, cache, monkeypatch):
    def fails(image_id):
        raise OSError("no disk")

    monkeypatch.setattr(cache, "delete_cached_image", fails)

    assert get(app, URL, "PUT").status == 204


def test_answer_from_before_a_change_through_another_worker_is_not_stored(tmp_path, driver_name):
    """Two filters with a cache each over one directory are what two workers have."""
    now, meanwhile = [b"old"], []

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT":
            now[0] = b"new"
            start_response("204 No Content", [])
            return []
        body = now[0]
        if meanwhile:
            meanwhile.pop()()
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")])
        return [body]

    workers = [CacheFilter(app, dir=tmp_path, driver=driver_name, min_free=0) for _ in range(2)]
    meanwhile.append(lambda: get(workers[1], URL, "PUT"))
    first = get(workers[0], URL)

    assert first.body == b"old"
    assert [get(worker, URL).body for worker in workers] == [b"new", b"new"]
    for worker in workers:
        worker.cache.close()


def test_change_of_what_was_never_stored_does_not_wait_for_the_directory(app, cache):
    """The ``any`` preset takes every path for an image's."""
    done = threading.Event()

    def change():
        get(app, "/api", "POST")
        done.set()

    thread = threading.Thread(target=change, daemon=True)
    with cache.driver.exclusive():
        thread.start()
        assert done.wait(30)
    thread.join()
