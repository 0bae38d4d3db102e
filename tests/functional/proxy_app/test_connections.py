"""Connections to the upstream: used again, closed, kept."""

import contextlib
import threading

import pytest
import webtest

from cachemw.errors import CacheMwError
from cachemw.web.apps.proxy import ProxyApp
from tests import upstreams
from tests.upstreams import PATIENCE, response, tell, until_client_leaves, wait_for

from .exchange import CHUNKED, chunks, served, start


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
