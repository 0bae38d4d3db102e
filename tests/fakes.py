"""Stand-ins for what is around the filter.

``FakeOrigin`` is a WSGI app with images whose bytes and headers a test sets,
and that counts what was asked of it and whether its bodies were closed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator


class FakeOrigin:
    """An app that hands out images.

    :param images: bytes by path.
    :param headers: fields of every 200, besides type and length.
    :param chunk: bytes a chunk.
    """

    def __init__(
        self,
        images: dict[str, bytes],
        headers: tuple[tuple[str, str], ...] = (("Cache-Control", "public, max-age=60"),),
        chunk: int = 4096,
    ) -> None:
        self.images = images
        self.headers = list(headers)
        self.chunk = chunk
        self.content_type: str | None = "application/octet-stream"
        self.send_length = True
        self.requests: list[tuple[str, str]] = []
        self.opened = 0
        self.closed = 0
        #: Called with the number of the chunk before it is given.
        self.before_chunk: Callable[[int], None] = lambda number: None

    @property
    def calls(self) -> int:
        return len(self.requests)

    def __call__(self, environ, start_response):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        self.requests.append((method, path))
        body = self.images.get(path)
        if method not in ("GET", "HEAD"):
            start_response("204 No Content", [])
            return []
        if body is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"none"]
        fields = list(self.headers)
        if self.content_type is not None:
            fields.append(("Content-Type", self.content_type))
        if self.send_length:
            fields.append(("Content-Length", str(len(body))))
        start_response("200 OK", fields)
        return _Body(self, b"" if method == "HEAD" else body)


class _Body:
    """Chunks of an image; counts its closing."""

    def __init__(self, origin: FakeOrigin, body: bytes) -> None:
        self._origin = origin
        self._chunks = iter(
            [body[start : start + origin.chunk] for start in range(0, len(body), origin.chunk)]
        )
        self._number = 0
        origin.opened += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._origin.before_chunk(self._number)
        self._number += 1
        return next(self._chunks)

    def close(self) -> None:
        self._origin.closed += 1


def sha256(data: bytes) -> str:
    """The checksum that the cache keeps of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
