"""The proxy app in front of upstream servers on real sockets."""

import contextlib
import gzip
import http.client
import io
import socket
import subprocess
import sys
import threading
import tracemalloc
from wsgiref.validate import validator

import pytest
import webtest
from webtest.http import StopableWSGIServer

from cachemw.errors import CacheMwError, ConfigError
from cachemw.web.apps.proxy import ProxyApp, app_factory, target
from tests import upstreams
from tests.upstreams import (
    PATIENCE,
    ScriptedUpstream,
    response,
    tell,
    until_client_leaves,
    wait_for,
)

BODY = bytes(range(256)) * 1024  # 256 KiB

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def upstream():
    with ScriptedUpstream() as server:
        yield server


@pytest.fixture
def app(upstream):
    with contextlib.closing(ProxyApp(upstream.url, timeout=PATIENCE)) as app:
        yield app


@pytest.fixture
def client(app):
    return webtest.TestApp(validator(app))


@pytest.fixture
def impatient(upstream):
    """An app that waits for a fifth of a second only."""
    with contextlib.closing(ProxyApp(upstream.url, timeout=0.2)) as app:
        yield app


@contextlib.contextmanager
def served(app):
    """A threaded server for the app; gives a connection to it."""
    server = StopableWSGIServer.create(app)
    connection = http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()


def start(app, path="/image", method="GET", **environ):
    """Call an app; give status, headers and the body's iterable."""
    started = []
    request = webtest.TestRequest.blank(path, method=method).environ
    body = app({**request, **environ}, lambda *args: started.append(args))
    return *started[0][:2], body


def chunks(*blocks):
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)


# The request


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


# The response


def test_status_reason_fields_and_body_come_back_as_they_were(client, upstream):
    upstream.reply(
        response(
            BODY,
            "Content-Type: image/x",
            "Date: Mon, 01 Jan 2024 00:00:00 GMT",
            "Server: other/1",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2, c=3",
            "X-Latin: caf\xe9",
            "Connection: X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            status="203 Was Changed",
        )
    )
    answer = client.get("/image")

    assert answer.status == "203 Was Changed"
    assert answer.body == BODY
    assert sorted(answer.headerlist) == [
        ("Content-Length", str(len(BODY))),
        ("Content-Type", "image/x"),
        ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("Server", "other/1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2, c=3"),
        ("X-Latin", "caf\xe9"),
    ]


def test_a_status_without_a_reason_gets_its_usual_one(client, upstream):
    """PEP 3333: the status has a reason; RFC 9112, section 4: HTTP's need not."""
    upstream.reply(b"HTTP/1.1 404\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n")

    assert client.get("/image", status=404).status == "404 Not Found"


def test_a_coded_body_is_not_decoded(app, upstream):
    """RFC 9110, section 8.4."""
    coded = gzip.compress(BODY)
    upstream.reply(response(coded, "Content-Encoding: gzip"))
    _, headers, body = start(app)

    assert b"".join(body) == coded
    assert ("Content-Encoding", "gzip") in headers


def test_a_redirect_is_passed_on(client, upstream):
    upstream.reply(
        response(b"", "Content-Type: a/b", "Location: http://other/", status="302 Found")
    )

    assert client.get("/image", status=302).headers["Location"] == "http://other/"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", response(b"", "Content-Type: image/x", length=4096)),
        ("HEAD", CHUNKED),
        ("GET", response(b"", 'ETag: "x"', status="304 Not Modified", length=4096)),
        ("GET", response(b"", "Content-Type: a/b", status="304 Not Modified", length=4096)),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_has_none_and_leaves_the_connection_usable(
    client, upstream, method, reply
):
    """RFC 9112, section 6.3: whatever its fields say of a length."""
    upstream.reply(reply)
    upstream.reply(response(BODY, "Content-Type: image/x"))
    answer = client.request("/image", method=method)

    assert answer.body == b""
    assert client.get("/image").body == BODY
    assert upstream.connections == 1
    if b"Content-Length" in reply:
        assert answer.headers["Content-Length"] == "4096"


@pytest.mark.parametrize(
    ("head", "pieces", "tail"),
    [
        (response(length=6), [b"abc", b"def"], b""),
        (CHUNKED, [chunks(b"abc"), chunks(b"def")], b"0\r\nTrailer: x\r\n\r\n"),
        (CHUNKED, [b"6\r\nabc", b"def\r\n"], b"0\r\n\r\n"),
        (b"HTTP/1.0 200 OK\r\n\r\n", [b"abc", b"def"], upstreams.close),
    ],
    ids=["length", "chunks", "one chunk", "until close"],
)
def test_bytes_are_passed_on_as_they_come(app, upstream, head, pieces, tail):
    gates = [threading.Event() for _ in range(3)]
    steps = [head]
    for gate, piece in zip(gates, [*pieces, tail], strict=True):
        steps += [wait_for(gate), piece]
    upstream.reply(*steps)

    _, headers, body = start(app)
    blocks = iter(body)
    gates[0].set()
    assert next(blocks) == b"abc"
    gates[1].set()
    assert next(blocks) == b"def"
    gates[2].set()
    assert list(blocks) == []
    body.close()
    assert ("Transfer-Encoding", "chunked") not in headers


def test_a_length_beside_chunks_is_not_believed(client, upstream):
    """RFC 9112, section 6.3."""
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n")
    upstream.reply(head + chunks(b"abcdef") + b"0\r\n\r\n")
    answer = client.get("/image")

    assert answer.body == b"abcdef"
    assert ("Content-Length", "3") not in answer.headerlist


def test_the_same_length_twice_is_sent_once(client, upstream):
    """RFC 9112, section 6.3."""
    upstream.reply(response(b"abc", "Content-Type: image/x", "Content-Length: 3"))

    assert client.get("/image").headers.getall("Content-Length") == ["3"]


def test_interim_answers_are_not_the_answer(client, upstream):
    """RFC 9110, section 15.2."""
    upstream.reply(
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
        response(b"abc", "Content-Type: image/x"),
    )
    answer = client.get("/image")

    assert answer.body == b"abc"
    assert "Link" not in answer.headers


def test_folded_and_odd_field_values_are_put_on_one_clean_line(client, upstream):
    """RFC 9112, section 5.2; RFC 9110, section 5.5."""
    upstream.reply(
        response(
            b"abc",
            "Content-Type: image/x",
            "X-Folded: one\r\n \ttwo\r\n three",
            "X-Odd: a\x00b\x07c\td\x7f",
            "X@Bad: name",
        )
    )
    answer = client.get("/image")

    assert answer.headers["X-Folded"] == "one two three"
    assert answer.headers["X-Odd"] == "a b c d"
    assert "X@Bad" not in answer.headers
    assert answer.body == b"abc"


def test_a_big_body_is_never_in_memory(app, upstream):
    count = 64
    upstream.reply(response(length=count * 2**20), *[bytes(2**20)] * count)
    _, _, body = start(app)
    tracemalloc.start()
    try:
        total = sum(len(block) for block in body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert total == count * 2**20
    assert peak < 4 * 2**20


def test_threads_share_the_app(app, upstream):
    bodies = [bytes([number]) * 100_000 for number in range(16)]
    seen = [None] * len(bodies)

    def download(number):
        _, headers, body = start(app, f"/{number}")
        seen[number] = dict(headers)["Number"], b"".join(body)

    for number, body in enumerate(bodies):
        upstream.reply(response(body, f"Number: {number}"))
    threads = [threading.Thread(target=download, args=(n,)) for n in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seen) == sorted((str(n), body) for n, body in enumerate(bodies))


# An upstream that breaks off


BROKEN = {
    "short": (response(b"abc", length=10), upstreams.close),
    "reset": (response(b"abc", length=10), upstreams.reset),
    "reset without a length": (b"HTTP/1.0 200 OK\r\n\r\nabc", upstreams.reset),
    "chunk cut": (CHUNKED + b"a\r\nabc", upstreams.close),
    "last chunk missing": (CHUNKED + chunks(b"abc"), upstreams.close),
    "chunk size cut": (CHUNKED + chunks(b"abc") + b"1", upstreams.close),
    "chunk size mad": (CHUNKED + chunks(b"abc") + b"zzz\r\nabc", upstreams.close),
    "chunk size negative": (CHUNKED + chunks(b"abc") + b"-5\r\nabcde\r\n0\r\n\r\n",),
    "chunk size odd": (CHUNKED + chunks(b"abc") + b"0x3\r\nabc\r\n0\r\n\r\n",),
    "chunk too long": (CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",),
    "chunk too short": (CHUNKED + b"5\r\nabc\r\n0\r\n\r\n",),
    "chunks without ends": (CHUNKED + b"3\r\nabcxx0\r\n\r\n",),
}


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN)
def test_a_body_that_breaks_off_raises(app, upstream, steps):
    """RFC 9112, section 8: an incomplete message must not look complete."""
    gate = threading.Event()
    upstream.reply(steps[0], wait_for(gate), *steps[1:])
    _, _, body = start(app)
    blocks = iter(body)
    got = next(blocks)
    gate.set()

    def rest():
        return got + b"".join(blocks)

    with pytest.raises(CacheMwError):
        rest()
    body.close()
    body.close()
    with pytest.raises(CacheMwError):
        next(blocks)


def test_a_body_that_stalls_raises(impatient, upstream):
    left = threading.Event()
    upstream.reply(response(b"abc", length=10), until_client_leaves(left))
    _, _, body = start(impatient)

    assert next(iter(body)) == b"abc"
    with pytest.raises(CacheMwError):
        list(body)
    assert left.wait(PATIENCE)


@pytest.mark.parametrize("framing", [response(b"abc", length=10), CHUNKED + chunks(b"abc")])
@pytest.mark.parametrize("end", [upstreams.close, upstreams.reset])
def test_the_client_sees_that_the_upstream_broke_off(app, upstream, framing, end):
    """RFC 9112, section 8."""
    gate = threading.Event()
    upstream.reply(framing, wait_for(gate), end)
    with served(app) as connection:
        connection.request("GET", "/image")
        answer = connection.getresponse()
        assert answer.status == 200
        gate.set()
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_through_a_real_server_the_body_is_the_upstreams(app, upstream):
    upstream.reply(response(BODY))
    upstream.reply(CHUNKED + chunks(BODY) + b"0\r\n\r\n")
    with served(validator_of_types(app)) as connection:
        for _ in range(2):
            connection.request("GET", "/image")
            assert connection.getresponse().read() == BODY


def validator_of_types(app):
    """The validator wants a Content-Type, which HTTP does not."""

    def typed(environ, start_response):
        def start(status, headers, exc_info=None):
            names = {name for name, _ in headers}
            extra = [] if "Content-Type" in names else [("Content-Type", "image/x")]
            return start_response(status, [*headers, *extra])

        return app(environ, start)

    return validator(typed)


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ((upstreams.close,), "502 Bad Gateway"),
        ((upstreams.reset,), "502 Bad Gateway"),
        ((b"SSH-2.0-OpenSSH\r\n", upstreams.close), "502 Bad Gateway"),
        ((b"HTTP/1.1 200", upstreams.reset), "502 Bad Gateway"),
        ((b"HTTP/1.1 2xx OK\r\n\r\n",), "502 Bad Gateway"),
        ((b"HTTP/2.0 200 OK\r\n\r\n",), "502 Bad Gateway"),
        ((b"HTTP/1.1 101 Switching Protocols\r\n\r\n",), "502 Bad Gateway"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n" * 100,), "502 Bad Gateway"),
        ((b"HTTP/1.1 200 OK\r\nX-A: 1\r\n", upstreams.close), "502 Bad Gateway"),
        ((b"HTTP/1.1 200 OK\r\nX-A: 1\r\nno colon\r\nContent-Length: 3\r\n\r\nabc",), "502"),
        ((b"HTTP/1.1 200 OK\r\nX-A: 1\r\rContent-Length: 3\r\n\r\nabc",), "502"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 200 + b"\r\n",), "502"),
        ((b"HTTP/1.1 200 OK\r\nX-A: " + b"1" * 70_000 + b"\r\n\r\n",), "502"),
        ((response(b"abc", "Content-Length: 4"),), "502 Bad Gateway"),
        ((response(b"abc").replace(b": 3", b": 3, 3"),), "502 Bad Gateway"),
        ((response(b"abc").replace(b": 3", b": -3"),), "502 Bad Gateway"),
        ((response(b"abc").replace(b": 3", b": three"),), "502 Bad Gateway"),
        ((CHUNKED.replace(b"chunked", b"gzip, chunked"),), "502 Bad Gateway"),
        ((CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked, x\r\n\r\n"),), "502"),
    ],
)
def test_an_upstream_that_makes_no_sense_is_a_bad_gateway(client, upstream, steps, status):
    """RFC 9110, section 15.6.3; RFC 9112, section 6.3."""
    upstream.reply(*steps)
    answer = client.get("/image", status=502)

    assert answer.status.startswith(status)
    assert answer.content_type == "text/plain"
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "type_", ["multipart/byteranges; boundary=x", "multipart/mixed", "message/http"]
)
def test_types_that_mail_parsers_stumble_over_are_passed_on(client, upstream, type_):
    upstream.reply(response(b"--x--", f"Content-Type: {type_}"))

    assert client.get("/image").body == b"--x--"


def test_an_upstream_that_is_not_there_is_a_bad_gateway(client, upstream):
    """RFC 9110, section 15.6.3."""
    upstream.stop_listening()

    assert client.head("/image", status=502).body == b""
    assert client.get("/image", status=502).headers["Cache-Control"] == "no-store"


def test_an_upstream_that_does_not_answer_in_time_is_a_gateway_timeout(impatient, upstream):
    """RFC 9110, section 15.6.5."""
    left = threading.Event()
    upstream.reply(until_client_leaves(left))
    answer = webtest.TestApp(validator(impatient)).get("/image", status=504)

    assert answer.headers["Cache-Control"] == "no-store"
    assert left.wait(PATIENCE)


def test_a_connection_that_is_not_ready_in_time_is_a_gateway_timeout():
    """RFC 9110, section 15.6.5: here it is TLS that is never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.closing(ProxyApp(url, connect_timeout=0.2)) as app:
            status, _, _ = start(app)

    assert status == "504 Gateway Timeout"


def test_an_upstream_that_does_not_speak_tls_is_a_bad_gateway():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"

        def answer():
            sock, _ = listener.accept()
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with contextlib.closing(ProxyApp(url)) as app:
            status, _, _ = start(app)
        thread.join()

    assert status == "502 Bad Gateway"


# Connections


def test_a_connection_is_used_again_after_a_whole_body(app, upstream):
    """RFC 9112, section 9.3."""
    upstream.reply(response(b"abc"))
    upstream.reply(CHUNKED + chunks(b"abc") + b"0\r\n\r\n")
    upstream.reply(response(b""))
    upstream.reply(response(b"abc"))
    for expected in (b"abc", b"abc", b"", b"abc"):
        _, _, body = start(app)
        assert b"".join(body) == expected
        body.close()

    assert [request.connection for request in upstream.requests] == [0, 0, 0, 0]


def test_a_body_read_to_its_last_byte_but_not_asked_for_more_counts_as_whole(app, upstream):
    upstream.reply(response(b"abc"))
    upstream.reply(response(b"abc"))
    for _ in range(2):
        _, _, body = start(app)
        assert next(iter(body)) == b"abc"
        body.close()

    assert upstream.connections == 1


def test_chunks_after_an_answer_without_a_body_do_not_become_the_next_answer(app, upstream):
    """RFC 9112, section 6.3: a 304 ends with its fields, which not every server knows."""
    upstream.reply(CHUNKED.replace(b"200 OK", b"304 Not Modified"))
    upstream.reply(response(b"abc"))
    list(start(app)[2])

    assert b"".join(start(app)[2]) == b"abc"
    assert upstream.connections == 2


@pytest.mark.parametrize("framing", [response(length=2**40), CHUNKED + b"ffffffffff\r\n"])
@pytest.mark.parametrize("blocks", [0, 1])
def test_closing_early_closes_the_connection_and_reads_no_further(app, upstream, framing, blocks):
    left = threading.Event()
    upstream.reply(framing, until_client_leaves(left, sending=bytes(2**16)))
    _, _, body = start(app)
    for _ in range(blocks):
        next(iter(body))
    body.close()
    body.close()

    assert left.wait(PATIENCE)
    with pytest.raises(CacheMwError):
        list(body)


def test_a_client_that_leaves_ends_the_exchange_with_the_upstream(app, upstream):
    left = threading.Event()
    upstream.reply(response(length=2**40), until_client_leaves(left, sending=bytes(2**16)))
    with served(app) as connection:
        connection.request("GET", "/image")
        answer = connection.getresponse()
        answer.read(2**20)
        answer.close()
        connection.close()

        assert left.wait(PATIENCE)


def test_an_answer_that_cannot_be_started_is_closed(app, upstream):
    left = threading.Event()
    upstream.reply(response(length=10), until_client_leaves(left))

    def refuse(status, headers):
        raise RuntimeError("the server is shutting down")

    with pytest.raises(RuntimeError):
        app(webtest.TestRequest.blank("/").environ, refuse)
    assert left.wait(PATIENCE)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("end", [upstreams.close, upstreams.reset])
def test_a_kept_connection_that_dies_under_a_request_costs_a_second_try(app, upstream, method, end):
    """RFC 9112, section 9.3.1."""
    upstream.reply(response(b"abc"))
    upstream.reply(end)
    upstream.reply(response(b"abc"))
    list(start(app)[2])
    status, _, body = start(app, method=method)

    assert status == "200 OK"
    list(body)
    assert [request.connection for request in upstream.requests] == [0, 0, 1]


def test_the_second_try_is_on_a_new_connection_and_the_last(app, upstream):
    """Two kept connections, both dead once they are used, and a server that is gone for good."""
    gate = threading.Event()
    for _ in range(2):
        upstream.reply(response(b"abc"), wait_for(gate))
    first, second = start(app)[2], start(app)[2]
    assert upstream.connections == 2
    assert [*first, *second] == [b"abc", b"abc"]
    gate.set()
    upstream.reply(upstreams.close)
    upstream.reply(upstreams.close)

    assert start(app)[0] == "502 Bad Gateway"
    assert [request.connection for request in upstream.requests][2:] == [1, 2]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_may_be_sent_but_once_is_not_sent_twice(app, upstream, method):
    """RFC 9110, section 9.2.2."""
    upstream.reply(response(b"abc"))
    upstream.reply(upstreams.close)
    list(start(app)[2])

    assert start(app, method=method)[0] == "502 Bad Gateway"
    assert len(upstream.requests) == 2


def test_a_kept_connection_that_was_closed_meanwhile_is_not_used(app, upstream):
    """RFC 9112, section 9.5."""
    gate, closed = threading.Event(), threading.Event()
    close = upstreams.close_and_tell(closed)
    upstream.reply(response(b"abc"), wait_for(gate), close)
    upstream.reply(response(b"", status="201 Created"))
    list(start(app)[2])
    gate.set()
    assert closed.wait(PATIENCE)

    status, _, body = start(app, method="POST")
    assert status == "201 Created"
    assert list(body) == []


def test_bytes_that_nobody_asked_for_are_not_taken_for_the_next_answer(app, upstream):
    """RFC 9112, section 6.3: what follows the length is not part of the message."""
    more = threading.Event()
    upstream.reply(response(b"abc") + response(b"smuggled"), tell(more))
    upstream.reply(response(b"abc"))
    list(start(app)[2])
    assert more.wait(PATIENCE)

    assert b"".join(start(app)[2]) == b"abc"
    assert upstream.connections == 2


def test_no_more_idle_connections_are_kept_than_allowed(upstream):
    events = [threading.Event() for _ in range(3)]
    for event in events:
        upstream.reply(response(b"abc"), until_client_leaves(event))
    with contextlib.closing(ProxyApp(upstream.url, pool_size=2)) as app:
        bodies = [start(app)[2] for _ in events]
        for body in bodies:
            assert b"".join(body) == b"abc"
        assert events[2].wait(PATIENCE)
        assert not events[0].is_set()
        assert not events[1].is_set()
    assert events[0].wait(PATIENCE)
    assert events[1].wait(PATIENCE)


# Options


def test_the_ini_options_are_read(upstream):
    upstream.reply(response(b"abc"))
    conf = {"upstream": upstream.url, "timeout": "1m", "connect_timeout": "5", "pool_size": "4"}
    with contextlib.closing(app_factory({"here": "/etc"}, **conf)) as app:
        assert list(start(app)[2]) == [b"abc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'upstream' is missing"),
        ({"upstream": "images:8080"}, "'upstream' has the value 'images:8080': expected http://"),
        ({"upstream": "ftp://images/"}, "'upstream' has the value 'ftp://images/'"),
        ({"upstream": "http:///path"}, "'upstream'"),
        ({"upstream": "http://host:port/"}, "'upstream'"),
        ({"upstream": "http://user:secret@host/"}, "'upstream'"),
        ({"upstream": "http://host/?query"}, "'upstream'"),
        ({"upstream": "http://host/a b"}, "'upstream'"),
        ({"upstream": "http://h", "timeout": "0"}, "'timeout' has the value '0': expected more"),
        ({"upstream": "http://h", "timeout": "soon"}, "'timeout' has the value 'soon'"),
        ({"upstream": "http://h", "pool_size": "0"}, "'pool_size' has the value '0'"),
        ({"upstream": "http://h", "pool_size": "x"}, "'pool_size' has the value 'x'"),
        ({"upstream": "http://h", "time_out": "5"}, "'time_out'.*did you mean 'timeout'"),
    ],
)
def test_a_wrong_option_stops_the_start(options, message):
    with pytest.raises(ConfigError, match=message):
        app_factory({}, **options)


def test_without_urllib3_the_start_stops_and_says_what_to_install():
    script = (
        "import sys; sys.modules['urllib3'] = None\n"
        "from cachemw.errors import ConfigError\n"
        "from cachemw.web.apps.proxy import app_factory\n"
        "try: app_factory({}, upstream='http://host')\n"
        "except ConfigError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "pip install 'cachemw[serve]'" in done.stdout
