"""What the upstream is asked."""

import contextlib
import io
import threading

import pytest

from cachemw.web.apps.proxy import ProxyApp, target
from tests import upstreams
from tests.upstreams import PATIENCE, response

from .exchange import BODY, start


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PATH_INFO": "/a/b.img"}, "/a/b.img"),
        ({"PATH_INFO": ""}, "/"),
        ({"PATH_INFO": '/a b\xc3\xa4"%?#'}, "/a%20b%C3%A4%22%25%3F%23"),
        ({"PATH_INFO": "/~me/a;b=c@d:e!$&'()*+,"}, "/~me/a;b=c@d:e!$&'()*+,"),
        ({"PATH_INFO": "/a/../b/./c//d"}, "/a/../b/./c//d"),
        ({"PATH_INFO": "//a"}, "//a"),
        ({"PATH_INFO": "/a/b", "RAW_URI": "/a%2Fb"}, "/a%2Fb"),
        ({"PATH_INFO": "/~a", "RAW_URI": "/%7Ea"}, "/%7Ea"),
        ({"PATH_INFO": "/~a/", "RAW_URI": "/%7ea%2f"}, "/%7ea%2f"),
        ({"PATH_INFO": "//a", "RAW_URI": "//a"}, "//a"),
        ({"PATH_INFO": "/a", "RAW_URI": "http://host/%61"}, "/%61"),
        ({"PATH_INFO": "/a", "REQUEST_URI": "/%61?x=y"}, "/%61"),
        ({"PATH_INFO": "/rewritten", "RAW_URI": "/a%2Fb"}, "/rewritten"),
        ({"SCRIPT_NAME": "/m", "PATH_INFO": "/a/b", "RAW_URI": "/m/a%2Fb"}, "/a%2Fb"),
        ({"SCRIPT_NAME": "/m/n", "PATH_INFO": "/a", "RAW_URI": "/%6D%2Fn%2Fa"}, "/%2Fa"),
        ({"SCRIPT_NAME": "/m", "PATH_INFO": ""}, "/"),
        ({"PATH_INFO": "/a", "QUERY_STRING": "x=%7e%2F&y=a?b/../c"}, "/a?x=%7e%2F&y=a?b/../c"),
        ({"PATH_INFO": "/a", "QUERY_STRING": "x=\xe4 y#z"}, "/a?x=%E4%20y%23z"),
        ({"PATH_INFO": "/a", "RAW_URI": "/a?x=%41", "QUERY_STRING": "x=%41"}, "/a?x=%41"),
    ],
)
def test_the_target_is_sent_as_the_client_wrote_it(app, upstream, environ, expected):
    """RFC 9112, section 3.2; RFC 3986, section 6.2.2, is for whoever compares, not for us."""
    environ = {"SCRIPT_NAME": "", "QUERY_STRING": "", **environ}
    upstream.reply(response(b"x"))
    _, _, body = start(app, **environ)
    list(body)

    assert upstream.requests[0].target == target(environ) == expected


@pytest.mark.parametrize("prefix", ["/v2/images", "/v2/images/"])
def test_the_upstreams_path_comes_before_the_requests(upstream, prefix):
    upstream.reply(response(b"x"))
    with contextlib.closing(ProxyApp(upstream.url + prefix)) as app:
        list(start(app, "/cat?size=1", SCRIPT_NAME="/mounted")[2])

    assert upstream.requests[0].line == "GET /v2/images/cat?size=1 HTTP/1.1"


def test_fields_for_the_next_hop_stop_here(client, upstream):
    """RFC 9110, section 7.6.1."""
    upstream.reply(response(b"x", "Content-Type: image/x"))
    headers = {
        "Connection": "close, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Upgrade": "h2c",
        "Proxy-Authorization": "Basic eA==",
        "Expect": "100-continue",
        "X-End": "2",
    }
    client.get("/image", headers=headers)

    sent = upstream.requests[0].names()
    assert "x-end" in sent
    assert not sent & {name.lower() for name in headers if name != "X-End"}


def test_the_upstream_is_told_who_asked_and_for_what(client, upstream):
    """RFC 9110, sections 7.2 and 7.6.3."""
    upstream.reply(response(b"x", "Content-Type: image/x"))
    client.get(
        "/image",
        headers={"Host": "images.example", "Via": "1.0 edge", "X-Forwarded-For": "10.0.0.1"},
        extra_environ={"REMOTE_ADDR": "10.0.0.2", "SERVER_PROTOCOL": "HTTP/1.1"},
    )
    request = upstream.requests[0]

    assert request.all("host") == [upstream.host]
    assert request.all("x-forwarded-for") == ["10.0.0.1, 10.0.0.2"]
    assert request.all("x-forwarded-proto") == ["http"]
    assert request.all("x-forwarded-host") == ["images.example"]
    assert request.all("via") == ["1.0 edge, 1.1 cachemw"]


def test_what_a_proxy_in_front_said_of_scheme_and_host_is_passed_on(client, upstream):
    upstream.reply(response(b"x", "Content-Type: image/x"))
    client.get("/image", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "public"})

    assert upstream.requests[0].all("x-forwarded-proto") == ["https"]
    assert upstream.requests[0].all("x-forwarded-host") == ["public"]


def test_nothing_is_made_up_that_the_client_did_not_send(app, upstream):
    upstream.reply(response(b"x"))
    list(start(app)[2])

    assert upstream.requests[0].names() == {"host", "x-forwarded-proto", "x-forwarded-host", "via"}


def test_ranges_conditions_codings_and_latin_1_go_through_as_they_are(client, upstream):
    """RFC 9110, sections 12.5.3, 13 and 14."""
    upstream.reply(response(b"x", "Content-Type: image/x", status="206 Partial Content"))
    headers = {
        "Range": "bytes=5-",
        "If-Range": '"tag"',
        "If-None-Match": 'W/"a", "b"',
        "If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT",
        "Accept-Encoding": "gzip, br;q=0.5",
        "User-Agent": "curl/8",
        "Authorization": "Bearer t",
        "Cookie": "a=b; c=d",
        "X-Latin": "caf\xe9",
    }
    client.get("/image", headers=headers, status=206)

    for name, value in headers.items():
        assert upstream.requests[0].all(name.lower()) == [value]


def test_a_body_with_a_length_is_sent_with_that_length(client, upstream):
    """RFC 9112, section 6.2."""
    upstream.reply(response(b"", "Content-Type: text/plain", status="201 Created"))
    client.put("/image", params=BODY, content_type="image/x", status=201)
    request = upstream.requests[0]

    assert (request.method, request.body) == ("PUT", BODY)
    assert request.all("content-length") == [str(len(BODY))]
    assert request.all("content-type") == ["image/x"]
    assert request.all("transfer-encoding") == []


def test_a_body_of_unknown_length_is_sent_in_chunks_as_it_comes(app, upstream):
    """RFC 9112, section 7.1."""
    upstream.reply(response(b"stored"))

    class Input:
        blocks = iter([b"one", b"two", b"three"])

        def read(self, size):
            return next(self.blocks, b"")

    given = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    _, _, body = start(app, method="POST", **given, **{"wsgi.input": Input()})

    assert b"".join(body) == b"stored"
    assert upstream.requests[0].chunks == [b"one", b"two", b"three"]
    assert upstream.requests[0].all("content-length") == []


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, "411 Length Required"),
        (
            {"HTTP_TRANSFER_ENCODING": "gzip, chunked", "wsgi.input_terminated": True},
            "501 Not Implemented",
        ),
        ({"CONTENT_LENGTH": "+5"}, "400 Bad Request"),
        ({"CONTENT_LENGTH": "5", "wsgi.input": io.BytesIO(b"123")}, "400 Bad Request"),
        ({"HTTP_X_BAD": "a\r\nb"}, "400 Bad Request"),
    ],
)
def test_a_request_that_cannot_be_passed_on_is_refused(app, upstream, environ, status):
    """RFC 9112, section 6.3."""
    answer, _, body = start(app, method="POST", **environ)

    assert answer == status
    assert body
    assert upstream.requests == []


def test_a_client_that_leaves_in_mid_upload_does_not_look_like_a_bad_upstream(app, upstream):
    class Input:
        def read(self, size):
            raise ConnectionResetError("client left")

    environ = {"CONTENT_LENGTH": "10", "wsgi.input": Input()}

    assert start(app, method="PUT", **environ)[0] == "400 Bad Request"
    assert upstream.requests == []


def test_an_answer_that_comes_before_the_body_was_sent_is_passed_on(app, upstream):
    """RFC 9112, section 9.3: such a connection is not used again."""
    closed = threading.Event()
    refusal = response(b"too large", status="413 Content Too Large")
    upstream.reply(refusal, upstreams.close_and_tell(closed), unread=True)
    upstream.reply(response(b"abc"))

    class Input:
        def read(self, size):
            assert closed.wait(PATIENCE)
            return bytes(size)

    environ = {"CONTENT_LENGTH": str(2**40), "wsgi.input": Input()}
    status, _, body = start(app, method="PUT", **environ)

    assert status == "413 Content Too Large"
    assert b"".join(body) == b"too large"
    assert b"".join(start(app)[2]) == b"abc"
    assert upstream.connections == 2


def test_a_post_without_a_body_says_so(app, upstream):
    """RFC 9110, section 8.6."""
    upstream.reply(response(b"x"))
    list(start(app, method="POST")[2])

    assert upstream.requests[0].all("content-length") == ["0"]
