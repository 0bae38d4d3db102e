"""Apps that do what PEP 3333 allows and few do."""

import contextlib
import itertools
import sys

import pytest

from cachemw import CacheFilter
from tests.wsgi import environ_of, get

FIELDS = [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")]


@pytest.fixture
def in_front_of(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(app):
            cached = CacheFilter(app, dir=tmp_path, min_free=0)
            stack.callback(cached.cache.close)
            return cached

        yield make


class Rewinding:
    """A body that begins again with each ``iter()``, as a file's or a reader's may."""

    def __iter__(self):
        self._left = [b"aa", b"bb", b"cc"]
        return self

    def __next__(self):
        if not self._left:
            raise StopIteration
        return self._left.pop(0)


class Cursor:
    """An iterator with ``__next__`` alone, which is all that ``for`` asks of one."""

    def __init__(self):
        self._left = [b"aa", b"bb", b"cc"]

    def __next__(self):
        if not self._left:
            raise StopIteration
        return self._left.pop(0)


class Readable:
    def __iter__(self):
        return Cursor()


@pytest.mark.parametrize("body", [Rewinding, Readable])
@pytest.mark.parametrize("length", [[("Content-Length", "6")], []], ids=["length", "no length"])
@pytest.mark.parametrize("late", [False, True])
def test_every_kind_of_iterable_comes_whole(in_front_of, body, length, late):
    def prompt_app(environ, start_response):
        start_response("200 OK", [*FIELDS, *length])
        return body()

    def late_app(environ, start_response):
        class Late(body):
            def __iter__(self):
                start_response("200 OK", [*FIELDS, *length])
                return super().__iter__()

        return Late()

    app = in_front_of(late_app if late else prompt_app)
    chunks = app(environ_of("/a", "GET", {}), lambda status, headers, exc_info=None: None)
    received = list(itertools.islice(chunks, 20))
    chunks.close()

    assert b"".join(received) == b"aabbcc"
    assert get(app, "/a").body == b"aabbcc"
    assert get(app, "/a").cache == "hit"


class Closing:
    def __init__(self):
        self.closed = 0

    def __iter__(self):
        return iter([b"x"])

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("extra", [{"HTTP_X_ORIGINAL_URL": "/b"}, {}], ids=["bypass", "miss"])
def test_body_is_closed_where_the_server_refuses_the_fields(in_front_of, extra):
    body = Closing()

    def app(environ, start_response):
        start_response("200 OK", FIELDS)
        return body

    def refuse(status, headers, exc_info=None):
        raise ValueError("bad field")

    with pytest.raises(ValueError, match="bad field"):
        in_front_of(app)(environ_of("/a", "GET", extra), refuse)
    assert body.closed == 1


def test_app_may_change_its_answer_before_the_first_byte(in_front_of):
    """PEP 3333, "The start_response() Callable": with exc_info, while no headers are out."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])

        def body():
            try:
                raise RuntimeError
            except RuntimeError:
                start_response("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
                yield b"sorry"

        return body()

    reply = get(in_front_of(app), "/a")

    assert (reply.status, reply.body) == (500, b"sorry")
