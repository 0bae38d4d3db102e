"""An upstream that breaks off, makes no sense, or is not there."""

import contextlib
import http.client
import socket
import threading
from wsgiref.validate import validator

import pytest
import webtest

from cachemw.errors import CacheMwError
from cachemw.web.apps.proxy import ProxyApp
from tests import upstreams
from tests.upstreams import PATIENCE, response, until_client_leaves, wait_for

from .exchange import BODY, CHUNKED, chunks, served, start

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
