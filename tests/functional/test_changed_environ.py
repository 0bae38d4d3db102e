"""Apps that change their environ, as routers and authentication in front of them do (PEP 3333)."""

import contextlib

import pytest
import webtest

from cachemw import CacheFilter


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

        def make(app):
            cached = CacheFilter(app, dir=tmp_path, min_free=0)
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
