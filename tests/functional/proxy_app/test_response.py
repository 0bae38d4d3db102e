"""What the upstream answered, as the client gets it."""

import gzip
import threading
import tracemalloc

import pytest

from tests import upstreams
from tests.upstreams import response, wait_for

from .exchange import BODY, CHUNKED, chunks, start


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
