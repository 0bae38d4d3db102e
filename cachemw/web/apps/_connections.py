"""Connections to an HTTP server that take no half answer for a whole one.

RFC 9112 is the authority. http.client reads what servers send with a good
deal of lenience, and urllib3 with it; a cache must know where an answer ends.

One connection belongs to one thread at a time.

Imports: nothing of ours; urllib3 (the extra ``serve``).
"""

from __future__ import annotations

import email.errors
import http.client
import io
import re
import socket
from collections.abc import Iterable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

#: Bytes read ahead at most: chunked bodies come in many small lines.
READ_AHEAD = 64 * 1024

#: Interim answers (RFC 9110, section 15.2) taken before the final one.
MAX_INTERIM = 16

_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+[ \t]*(?:;.*)?\r?\n")

#: What the parser says of every multipart type, as it is shown no body.
_HARMLESS = (
    email.errors.MultipartInvariantViolationDefect,
    email.errors.NoBoundaryInMultipartDefect,
    email.errors.StartBoundaryNotFoundDefect,
)


def check_framing(headers: Iterable[tuple[str, str]]) -> None:
    """Refuse an answer of which nothing says for sure where it ends.

    :raises http.client.HTTPException: says what is wrong.

    Source: RFC 9112, section 6.3.
    """
    pairs = [(name.lower(), value.strip(" \t\r\n")) for name, value in headers]
    codings = {value.lower() for name, value in pairs if name == "transfer-encoding"}
    lengths = {value for name, value in pairs if name == "content-length"}
    if codings - {"chunked"}:
        raise http.client.HTTPException(f"a transfer coding other than chunked: {codings}")
    if not codings and (len(lengths) > 1 or not all(re.fullmatch("[0-9]+", n) for n in lengths)):
        raise http.client.HTTPException(f"a content length that is not one number: {lengths}")


class _LineReader(io.BufferedReader):
    """A reader that remembers the last line it gave.

    Closed with bytes left over, it ends the connection for good: what follows
    an answer unasked must not become part of the next one (RFC 9112, section 6.3).
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.makefile("rb", buffering=0), READ_AHEAD)
        self._sock = sock
        self.last_line = b""

    def readline(self, size: int | None = -1) -> bytes:
        self.last_line = super().readline(size)
        return self.last_line

    def close(self) -> None:
        if not self.closed:
            try:
                self._sock.settimeout(0)
                if self.peek(1):
                    self._sock.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                pass
        super().close()


class _FinalResponse(http.client.HTTPResponse):
    """A response that is the final one, and in which nothing is guessed.

    http.client (seen in Python 3.11 and 3.13) takes a header section that breaks off, or
    one that stops making sense half-way, for one that ends there, and with it
    the Content-Length for missing. It takes 103 for a final answer, ``-5`` for a
    chunk's size, and whatever comes after a chunk for its end.
    """

    fp: _LineReader

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = _LineReader(sock)

    def begin(self) -> None:
        super().begin()
        defects = [d for d in self.headers.defects if not isinstance(d, _HARMLESS)]
        unparsed = not self.headers.is_multipart() and self.headers.get_payload()
        if self.fp.last_line not in (b"\r\n", b"\n") or defects or unparsed:
            raise http.client.HTTPException("the header section is malformed or breaks off")
        check_framing(self.headers.items())

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200:
                return version, status, reason
            if status == 101:
                break
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("interim answers, and no final one")

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if not _CHUNK_SIZE.match(self.fp.last_line):
            raise ValueError(self.fp.last_line)
        return size

    def _safe_read(self, amt: int) -> bytes:
        # On the way of read1() it reads what ends a chunk, and nothing else.
        end: bytes = super()._safe_read(amt)  # type: ignore[misc]
        if end != b"\r\n":
            raise http.client.IncompleteRead(b"")
        return end


class PlainConnection(HTTPConnection):
    """A connection without TLS."""

    response_class = _FinalResponse


class TlsConnection(HTTPSConnection):
    """A connection with TLS, its certificate checked."""

    response_class = _FinalResponse
