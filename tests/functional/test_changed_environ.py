"""Apps that change their environ, as routers and authentication in front of them do (PEP 3333)."""

import contextlib

import pytest
import webtest

from cachemw import CacheFilter
from cachemw.drivers.base import CHUNK
from tests.ranged import RangedOrigin


class ChangingApp:
    """Says who asked and what they take, and changes the environ first.

    :param changes: environ keys with what they become; ``None``: they go.
    """

    def __init__(self, changes, *fields):
        self.changes, self.fields = changes, fields

    def __call__(self, environ, start_response):
        body = f"{environ.get('HTTP_AUTHORIZATION')} {environ.get('HTTP_ACCEPT_LANGUAGE')}"
        for key, value in self.changes.items():
            if value is None:
                environ.pop(key, None)
            else:
                environ[key] = value
        headers = [("Content-Type", "image/png"), ("Cache-Control", "max-age=60"), *self.fields]
        start_response("200 OK", headers)
        return [body.encode()]


@pytest.fixture
def client_of(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(app, **options):
            cached = CacheFilter(app, dir=tmp_path, min_free=0, **options)
            stack.callback(cached.cache.close)
            return webtest.TestApp(cached)

        yield make


def test_answer_to_credentials_that_the_app_took_out_is_not_stored(client_of):
    """RFC 9111, section 3.5."""
    client = client_of(ChangingApp({"HTTP_AUTHORIZATION": None}))

    first = client.get("/a", headers={"Authorization": "one"})

    assert first.headers["Cache-Status"] == "cachemw; fwd=uri-miss; detail=credentials"
    assert client.get("/a").body == b"None None"


def test_answer_to_a_user_whom_only_the_app_knows_is_not_stored(client_of):
    """A client certificate is no field: REMOTE_USER comes from inside."""
    client = client_of(ChangingApp({"REMOTE_USER": "one"}))

    assert client.get("/a").headers["Cache-Status"].endswith("detail=credentials")


@pytest.mark.parametrize("value", [None, "en"])
def test_variant_is_that_of_the_request_not_of_what_the_app_made_of_it(client_of, value):
    """RFC 9111, section 4.1."""
    app = ChangingApp({"HTTP_ACCEPT_LANGUAGE": value}, ("Vary", "Accept-Language"))
    client = client_of(app)

    client.get("/a", headers={"Accept-Language": "de"})

    other = {} if value is None else {"Accept-Language": value}
    assert client.get("/a", headers=other).body == f"None {value}".encode()
    client.get("/a", headers={"Accept-Language": "de"})
    again = client.get("/a", headers={"Accept-Language": "de"})
    assert again.headers["Cache-Status"] == "cachemw; hit"


class Routed:
    """An origin behind a router, which takes the first part of the path off for it."""

    def __init__(self, origin):
        self.origin = origin
        self.paths = []

    def __call__(self, environ, start_response):
        _, first, rest = environ["PATH_INFO"].split("/", 2)
        environ["SCRIPT_NAME"] += f"/{first}"
        environ["PATH_INFO"] = f"/{rest}"
        self.paths.append(environ["PATH_INFO"])
        return self.origin(environ, start_response)


def test_app_gets_the_same_path_each_time_it_is_asked_for_the_rest(client_of):
    body = bytes(range(256)) * (8 * CHUNK // 256)
    app = Routed(RangedOrigin(body))
    client = client_of(app, range_miss="slice")
    for start in (0, 3 * CHUNK, 6 * CHUNK):
        client.get("/store/cat", headers={"Range": f"bytes={start}-{start + 9}"}, status=206)
    asked = len(app.paths)

    assert client.get("/store/cat").body == body

    assert len(app.paths) == asked + 3  # the holes
    assert set(app.paths) == {"/cat"}
