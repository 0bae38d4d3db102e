"""An app whose one image changes, and a clock to let time pass, for the suites about staleness."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import webtest

from cachemw import CacheFilter
from tests.fakes import FakeOrigin

URL = "/images/cat"
OLD = bytes(range(256)) * 40  # 10 KiB
NEW = OLD[::-1]

#: What an app is asked under.
CONDITIONS = ("IF_NONE_MATCH", "IF_MODIFIED_SINCE", "IF_MATCH", "IF_UNMODIFIED_SINCE", "IF_RANGE")


class VersionedOrigin(FakeOrigin):
    """An app that answers conditional requests about one image.

    Its image is ``body`` with ``tag`` and ``modified``. ``asked`` has the conditions and the
    range of each request.
    """

    def __init__(self, control: str = "max-age=60") -> None:
        super().__init__({}, headers=())
        self.body = OLD
        self.tag: str | None = '"old"'
        self.modified: str | None = None
        #: Cache-Control of every answer.
        self.control = control
        #: More fields of a 200, and of a 304.
        self.fields: list[tuple[str, str]] = []
        self.fields_304: list[tuple[str, str]] = []
        #: Whether conditions are looked at.
        self.is_conditional = True
        #: Status of every answer from now on, with an error's body.
        self.status: str | None = None
        #: Called with the environ before the answer; may raise.
        self.before: Callable[[dict[str, Any]], None] = lambda environ: None
        self.asked: list[dict[str, str]] = []
        #: Chunks of a 200's body that were read.
        self.chunks_read = 0
        self.before_chunk = self._count

    def _count(self, number: int) -> None:
        self.chunks_read += 1

    def change(self) -> None:
        """Have another image."""
        self.body, self.tag = NEW, '"new"'

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        names = (*CONDITIONS, "RANGE")
        self.asked.append({n: environ[f"HTTP_{n}"] for n in names if f"HTTP_{n}" in environ})
        self.before(environ)
        validators = [("ETag", self.tag)] if self.tag else []
        validators += [("Last-Modified", self.modified)] if self.modified else []
        control = [("Cache-Control", self.control)] if self.control else []
        if self.status is not None:
            start_response(self.status, [("Content-Type", "text/plain"), *control])
            return self.chunks(b"sorry")
        if self.is_conditional and self._is_known(environ):
            start_response("304 Not Modified", [*validators, *control, *self.fields_304])
            return self.chunks(b"")
        length = [("Content-Length", str(len(self.body)))]
        start_response(
            "200 OK",
            [("Content-Type", "image/png"), *validators, *control, *self.fields, *length],
        )
        return self.chunks(b"" if environ["REQUEST_METHOD"] == "HEAD" else self.body)

    def _is_known(self, environ: dict[str, Any]) -> bool:
        if "HTTP_IF_NONE_MATCH" in environ:
            return self.tag is not None and self.tag in environ["HTTP_IF_NONE_MATCH"]
        since = environ.get("HTTP_IF_MODIFIED_SINCE")
        return since is not None and since == self.modified

    def chunks(self, body: bytes) -> Iterator[bytes]:
        return _Chunks(self, body)


class _Chunks:
    def __init__(self, origin: VersionedOrigin, body: bytes) -> None:
        self._origin = origin
        self._chunks = iter(
            [body[start : start + origin.chunk] for start in range(0, len(body), origin.chunk)]
        )
        self._number = 0
        self._closed = False
        origin.opened += 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        assert not self._closed
        chunk = next(self._chunks)
        self._origin.before_chunk(self._number)
        self._number += 1
        return chunk

    def close(self) -> None:
        assert not self._closed, "closed twice"
        self._closed = True
        self._origin.closed += 1


class Clock:
    """The time as the web modules see it: the system's, and what a test let pass."""

    def __init__(self, monkeypatch) -> None:
        self.passed = 0.0
        for module in ("filter", "exchange", "revalidate"):
            monkeypatch.setattr(sys.modules[f"cachemw.web.{module}"], "time", self)

    def time(self) -> float:
        return time.time() + self.passed

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds


def client_of(app, cache, **options) -> webtest.TestApp:
    """A client in front of the filter, with both sides of it held to PEP 3333."""
    # As a server with threads has it; WebTest says that there are none.
    return webtest.TestApp(
        validator(CacheFilter(validator(app), cache=cache, **options)),
        extra_environ={"wsgi.multithread": True},
    )


def status_of(response) -> str:
    return response.headers["Cache-Status"]
