"""An origin that sends parts: a WSGI app with one image, whose answers a test can bend."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

Fields = list[tuple[str, str]]


@dataclasses.dataclass
class Asked:
    """A request that reached the origin."""

    method: str
    range: str | None
    if_range: str | None
    status: int = 0


@dataclasses.dataclass
class Sent:
    """An answer on its way out; a test's ``bend`` may change anything in it."""

    status: str
    fields: Fields
    chunks: list[bytes | Exception]


class RangedOrigin:
    """An app with one image, at any path.

    :ivar ranges: whether Range is looked at.
    :ivar honest: whether If-Range is.
    :ivar allows: whether a request may have the image; else it gets a 403.
    :ivar bend: changes an answer to a GET before it goes out.
    :ivar before_chunk: called with the request and the number of the chunk before it is given.
    """

    def __init__(self, body: bytes, etag: str | None = '"one"', chunk: int = 64 * 1024) -> None:
        self.body: bytes | None = body
        self.etag = etag
        self.fields: Fields = [("Cache-Control", "public, max-age=600")]
        self.chunk = chunk
        self.ranges = self.honest = True
        self.asked: list[Asked] = []
        self.opened = self.closed = 0
        self.allows: Callable[[dict[str, Any]], bool] = lambda environ: True
        self.bend: Callable[[Asked, Sent], object] = lambda asked, sent: None
        self.before_chunk: Callable[[Asked, int], object] = lambda asked, number: None
        self._lock = threading.Lock()

    @property
    def ranges_asked(self) -> list[str | None]:
        """The Range field of each GET."""
        return [asked.range for asked in self.asked if asked.method == "GET"]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        asked = Asked(
            environ["REQUEST_METHOD"], environ.get("HTTP_RANGE"), environ.get("HTTP_IF_RANGE")
        )
        with self._lock:
            self.asked.append(asked)
            self.opened += 1
        sent = self._answer(asked, environ)
        if asked.method == "GET":
            self.bend(asked, sent)
        asked.status = int(sent.status[:3])
        start_response(sent.status, sent.fields)
        return _Body(self, asked, sent.chunks)

    def _answer(self, asked: Asked, environ: dict[str, Any]) -> Sent:
        if asked.method not in ("GET", "HEAD"):
            return Sent("204 No Content", [], [])
        if not self.allows(environ):
            return Sent("403 Forbidden", [("Content-Type", "text/plain")], [b"no"])
        body = self.body
        if body is None:
            return Sent("404 Not Found", [("Content-Type", "text/plain")], [b"none"])
        fields = [("Content-Type", "application/octet-stream"), *self.fields]
        if self.etag is not None:
            fields.append(("ETag", self.etag))
            if environ.get("HTTP_IF_NONE_MATCH") == self.etag:
                return Sent("304 Not Modified", fields, [])
        part = self._part(asked, body)
        if part is None:
            return Sent("200 OK", [*fields, _length(len(body))], self._cut(asked, body))
        start, stop = part
        if start >= stop:
            where = ("Content-Range", f"bytes */{len(body)}")
            return Sent("416 Range Not Satisfiable", [*fields, where, _length(0)], [])
        where = ("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
        fields += [where, _length(stop - start)]
        return Sent("206 Partial Content", fields, self._cut(asked, body[start:stop]))

    def _part(self, asked: Asked, body: bytes) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.range or "")
        if not self.ranges or match is None or asked.method != "GET":
            return None
        if self.honest and asked.if_range not in (None, self.etag):
            return None
        first, last = match.groups()
        if not first + last or (first and last and int(last) < int(first)):
            return None
        if not first:
            return max(0, len(body) - int(last)), len(body)
        return int(first), min(int(last) + 1, len(body)) if last else len(body)

    def _cut(self, asked: Asked, data: bytes) -> list[bytes | Exception]:
        if asked.method == "HEAD":
            return []
        return [data[start : start + self.chunk] for start in range(0, len(data), self.chunk)]


class _Body:
    """Chunks of an answer; counts its closing."""

    def __init__(self, origin: RangedOrigin, asked: Asked, chunks: list[bytes | Exception]) -> None:
        self._origin = origin
        self._asked = asked
        self._chunks = iter(chunks)
        self._number = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._origin.before_chunk(self._asked, self._number)
        self._number += 1
        chunk = next(self._chunks)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self) -> None:
        with self._origin._lock:
            self._origin.closed += 1


def _length(size: int) -> tuple[str, str]:
    return "Content-Length", str(size)
