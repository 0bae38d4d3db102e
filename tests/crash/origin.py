"""Images whose bytes follow from number and version, and requests for them in process.

The entity tag names the version, so whoever holds a response can tell whether
its bytes are right, also after the image was replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from wsgiref.util import setup_testing_defaults

#: Requests for images, for the filter's ``routes`` option.
ROUTES = "/images/(?P<image_id>.+)"

#: Bytes of the images by number, in version 0. 700 KiB and more go through the threads of a fill.
SIZES = (1000, 20_000, 0, 130_000, 5_000, 1, 60_000, 700_000, 40_000, 90_000, 300, 250_000)

#: A number of its own for an image of 3 MiB.
LARGE = 100

#: Bytes of a header field that leaves no room for the record in ext4's attributes.
LONG_FIELD = 5000

CHUNK = 16_384


def image_id(number: int) -> str:
    """The even ones are their own file names, the odd ones are not."""
    return f"image-{number}" if number % 2 == 0 else f"group/{number}"


@functools.lru_cache(maxsize=256)
def body(number: int, version: int = 0) -> bytes:
    size = 3 * 2**20 if number == LARGE else SIZES[number % len(SIZES)]
    return random.Random(f"{number}.{version}").randbytes(size + version % 50)


class Origin:
    """A WSGI app that has every image in every version (``X-Version`` in the request).

    Some images come with a length, some with a checksum, some with a long field.

    :ivar calls: how often each image was asked for.
    """

    def __init__(self) -> None:
        self.calls: dict[int, int] = {}
        self.open = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        number = int(environ["PATH_INFO"].rpartition("/")[2].rpartition("-")[2])
        version = int(environ.get("HTTP_X_VERSION", 0))
        if environ["REQUEST_METHOD"] != "GET":
            start_response("204 No Content", [])
            return []
        self.calls[number] = self.calls.get(number, 0) + 1
        again = self.calls[number] if "HTTP_CACHE_CONTROL" in environ else 0
        start_response("200 OK", headers(number, version, again))
        return _Body(self, body(number, version))


def headers(number: int, version: int = 0, again: int = 0) -> list[tuple[str, str]]:
    """Give the fields of an image.

    :param again: makes the tag another one, so that the same bytes are stored anew.
    """
    data = body(number, version)
    fields = [
        ("Content-Type", "application/octet-stream"),
        ("Cache-Control", "public, max-age=86400"),
        ("ETag", f'"{number}.{version}.{again}"'),
    ]
    if number % 3 != 2:
        fields.append(("Content-Length", str(len(data))))
    if number % 4 < 2:
        fields.append(("Content-MD5", hashlib.md5(data, usedforsecurity=False).hexdigest()))
    if number % 5 == 3:
        fields.append(("X-Notes", "n" * LONG_FIELD))
    return fields


class _Body:
    def __init__(self, origin: Origin, data: bytes) -> None:
        self._origin = origin
        self._chunks = iter([data[at : at + CHUNK] for at in range(0, len(data), CHUNK)])
        origin.open += 1

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._origin.open -= 1


@dataclasses.dataclass(frozen=True)
class Download:
    """What a request in process gave.

    :param cache_status: without the cache's name.
    :param complete: whether the body came to its end, as far as the client can see.
    """

    status: str
    headers: Mapping[str, str]
    body: bytes
    complete: bool
    error: Exception | None = None

    @property
    def cache_status(self) -> str:
        return self.headers.get("Cache-Status", "").removeprefix("cachemw; ")

    def assert_right(self, number: int) -> None:
        """The body is that of the version which the entity tag names."""
        assert self.error is None
        assert self.complete
        assert self.status == "200 OK"
        tagged, version, _ = map(int, self.headers["ETag"].strip('"').split("."))
        assert tagged == number
        assert self.body == body(number, version), f"wrong bytes for {number}.{version}"


def download(
    app: Callable[..., Any],
    number: int,
    *,
    method: str = "GET",
    version: int | None = None,
    fresh: bool = False,
    stop_at: float = math.inf,
) -> Download:
    """Ask an app for an image.

    :param version: which one the origin gives if it is asked.
    :param fresh: do not take a stored answer.
    :param stop_at: leave after this part of the image.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": f"/images/{image_id(number)}",
        "HTTP_HOST": "test",
    }
    setup_testing_defaults(environ)
    if version is not None:
        environ["HTTP_X_VERSION"] = str(version)
    if fresh:
        environ["HTTP_CACHE_CONTROL"] = "no-cache"
    return call(app, environ, stop_at * max(1, len(body(number, version or 0))))


def call(app: Callable[..., Any], environ: dict[str, Any], stop_at: float = math.inf) -> Download:
    """Run one request as a server does; leave once ``stop_at`` bytes have come."""
    answer: list[Any] = []

    def start_response(status: str, fields: Any, exc_info: Any = None) -> Callable[..., Any]:
        answer[:] = [status, dict(fields)]
        return lambda data: None

    received: list[bytes] = []
    size, complete, error = 0, False, None
    chunks = app(environ, start_response)
    with contextlib.closing(chunks) if hasattr(chunks, "close") else contextlib.nullcontext():
        try:
            for chunk in chunks:
                received.append(chunk)
                size += len(chunk)
                if size >= stop_at:
                    break
            else:
                complete = True
        except Exception as exc:
            error = exc
    status, fields = answer
    length = fields.get("Content-Length")
    if length is not None and environ["REQUEST_METHOD"] != "HEAD" and int(length) != size:
        complete = False
    return Download(status, fields, b"".join(received), complete, error)
