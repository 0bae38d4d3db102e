"""Who may use the management API."""

import base64

import pytest

from cachemw.web.manage.access import refuse, refuse_across_sites

TOKEN = "s3cret"
LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8080"}


def basic(password, user="any"):
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"HTTP_AUTHORIZATION": f"Basic {pair}"}


@pytest.mark.parametrize(
    "fields",
    [
        {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"},
        {"HTTP_AUTHORIZATION": f"  bearer   {TOKEN} "},
        {"HTTP_X_AUTH_TOKEN": TOKEN},
        basic(TOKEN),
        basic(TOKEN, user=""),
        {"HTTP_AUTHORIZATION": "Bearer of-the-app", "HTTP_X_AUTH_TOKEN": TOKEN},
    ],
)
def test_whoever_sends_the_token_may_from_anywhere(fields):
    assert refuse({"REMOTE_ADDR": "192.0.2.1", "HTTP_VIA": "proxy", **fields}, TOKEN) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"HTTP_AUTHORIZATION": "Bearer "},
        {"HTTP_AUTHORIZATION": TOKEN},
        {"HTTP_AUTHORIZATION": f"Digest {TOKEN}"},
        {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}x"},
        {"HTTP_AUTHORIZATION": f"Bearer {TOKEN.upper()}"},
        {"HTTP_AUTHORIZATION": "Bearer s3cr\xe9t"},
        {"HTTP_AUTHORIZATION": "Basic !!!"},
        {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        {"HTTP_X_AUTH_TOKEN": ""},
        {"HTTP_X_AUTH_TOKEN": "\ud800"},
        basic(f"{TOKEN}:{TOKEN}"),
        {"QUERY_STRING": f"token={TOKEN}"},
    ],
)
def test_with_a_token_nobody_may_without_it(fields):
    refused = refuse({**LOCAL, **fields}, TOKEN)

    assert refused.asks_token
    assert TOKEN not in refused.detail


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "127.1.1.1"]
)
def test_without_a_token_a_client_on_this_machine_may(address, host):
    assert refuse({"REMOTE_ADDR": address, "HTTP_HOST": host}, "") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"REMOTE_ADDR": "192.0.2.1"},
        {"REMOTE_ADDR": "::ffff:192.0.2.1"},
        {"REMOTE_ADDR": ""},
        {"REMOTE_ADDR": "localhost"},
        {"HTTP_HOST": "images.example.org"},
        {"HTTP_HOST": "localhost.example.org"},
        {"HTTP_HOST": "192.0.2.1:80"},
        {"HTTP_HOST": ""},
        {"HTTP_HOST": "localhost:80:80"},
        {"HTTP_HOST": "[127.0.0.1"},
        {"HTTP_HOST": "user@localhost"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_X_FORWARDED_FOR": ""},
        {"HTTP_X_FORWARDED_HOST": "localhost"},
        {"HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"HTTP_X_AUTH_TOKEN": "", "REMOTE_ADDR": "192.0.2.1"},
        {"HTTP_AUTHORIZATION": "Bearer ", "REMOTE_ADDR": "192.0.2.1"},
    ],
)
def test_without_a_token_nobody_else_may(changes):
    refused = refuse({**LOCAL, **changes}, "")

    assert not refused.asks_token
    assert "admin_token" in refused.detail


def test_without_address_and_host_nobody_may():
    assert refuse({}, "") is not None


def change(method="POST", **fields):
    return refuse_across_sites({"REQUEST_METHOD": method, "HTTP_HOST": "localhost:8080", **fields})


FORM = {"CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.mark.parametrize(
    "fields",
    [
        {},  # curl
        {"CONTENT_TYPE": "application/octet-stream"},  # Glance's client
        {"CONTENT_TYPE": "application/json"},
        {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_ORIGIN": "HTTPS://LocalHost:8080"},
        {**FORM, "HTTP_X_AUTH_TOKEN": "x"},
        {**FORM, "HTTP_AUTHORIZATION": "Bearer x"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_change_from_no_page_or_one_of_ours_is_made(method, fields):
    assert change(method, **fields) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},  # another port of the same machine
        {"HTTP_SEC_FETCH_SITE": ""},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_X_AUTH_TOKEN": "x"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": ""},
        {"HTTP_ORIGIN": "http://localhost"},
        {"HTTP_ORIGIN": "http://localhost:8080.example.org"},
        {"HTTP_ORIGIN": "http://example.org", "HTTP_AUTHORIZATION": "Bearer x"},
        {"HTTP_ORIGIN": "file://localhost:8080"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_change_from_another_sites_page_is_refused(method, fields):
    assert change(method, **fields) is not None


@pytest.mark.parametrize(
    "media_type", [FORM["CONTENT_TYPE"], "multipart/form-data; boundary=x", "Text/Plain"]
)
def test_a_form_of_a_browser_that_says_nothing_is_refused(media_type):
    assert change(CONTENT_TYPE=media_type) is not None
    # A browser sends a password that it knows with it.
    assert change(CONTENT_TYPE=media_type, **basic("x")) is not None


def test_an_empty_host_is_nobodys_origin():
    environ = {"REQUEST_METHOD": "POST", "HTTP_HOST": "", "HTTP_ORIGIN": "http://"}

    assert refuse_across_sites(environ) is not None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_changes_nothing_may_come_from_anywhere(method):
    assert change(method, HTTP_SEC_FETCH_SITE="cross-site", HTTP_ORIGIN="null") is None
