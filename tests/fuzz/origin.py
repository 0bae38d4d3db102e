"""The generated app: answers as it is told, and remembers what it answered."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

from cachemw.web import fields

from .plans import Kind, Length, Plan

#: Environ keys that say who is asking, as the app sees it.
CREDENTIALS = ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_AUTH_TOKEN", "REMOTE_USER")

#: Lengths that are never right, or cannot be believed.
_LIES = (Length.LONG, Length.TWO, Length.GARBAGE)

#: What the app says instead where it starts its answer again.
FAILED = ("500 Failed", [("Content-Type", "text/plain")])


class AppError(OSError):
    """The app's own failure, in the shape of a full disk, not to be taken for the cache's."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "of the app")


@dataclasses.dataclass(eq=False)
class Made:
    """One answer of the app.

    :param key: what it was an answer for.
    :param request: environ as the client sent it.
    :param time: when, in seconds since the epoch.
    :param generation: how often the key was changed before.
    :param identity: what nothing else that is different has.
    :param whole: the bytes that it would have sent if nothing failed.
    """

    key: tuple[str, ...]
    request: dict[str, Any]
    plan: Plan
    time: float
    version: int
    generation: int
    identity: bytes
    whole: bytes
    thread: int = dataclasses.field(default_factory=threading.get_ident)
    status: str = ""
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    sent: bytes = b""
    error: AppError | None = None
    opened: int = 0
    closed: int = 0

    @property
    def lies(self) -> bool:
        """Whether length or checksum cannot be those of the bytes."""
        plan = self.plan
        short = plan.length is Length.SHORT and plan.size > 0
        return plan.md5 == "wrong" or short or plan.length in _LIES

    @property
    def code(self) -> int:
        return int(self.status[:3] or 0)

    def field(self, name: str) -> str | None:
        return fields.get(self.headers, name)


class Origin:
    """A WSGI app.

    :param clock: gives the seconds since the epoch.
    :param key_of: what a request is for, by its environ.
    """

    def __init__(
        self, clock: Callable[[], float], key_of: Callable[[dict[str, Any]], tuple[str, ...]]
    ) -> None:
        self.plan = Plan()
        self.made: list[Made] = []
        self.errors: list[AppError] = []
        self.versions: dict[tuple[str, ...], int] = {}
        self.generations: dict[tuple[str, ...], int] = {}
        self._clock = clock
        self._key_of = key_of

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        plan, key = self.plan, self._key_of(environ)
        if plan.new_version or environ["REQUEST_METHOD"] in ("PUT", "DELETE"):
            self.versions[key] = self.versions.get(key, 0) + 1
        version = self.versions.get(key, 0)
        identity = _identity(key, version, environ, plan)
        made = Made(
            key,
            dict(environ),
            plan,
            self._clock(),
            version,
            self.generations.get(key, 0),
            identity,
            _body(identity, environ, plan),
        )
        self.made.append(made)
        made.headers = _fields(made)
        made.status = self._status(made)
        for name, value in plan.mutations:
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
        return self._answer(made, environ, start_response)

    def _status(self, made: Made) -> str:
        """A condition of the client's, or of the filter's, is kept."""
        tag = made.field("etag")
        if tag and made.plan.status == "200 OK" and made.request.get("HTTP_IF_NONE_MATCH") == tag:
            made.whole = b""
            return "304 Not Modified"
        return made.plan.status

    def _answer(
        self, made: Made, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Any:
        plan = made.plan
        if plan.kind is Kind.RAISE:
            raise self._error(made)
        if plan.kind is Kind.LATE:
            return self._late(made, start_response)
        if plan.kind is Kind.NEVER:
            return Body(made, self._chunks(made))
        writer = start_response(made.status, list(made.headers))
        if plan.kind is Kind.TWICE:
            start_response(made.status, list(made.headers))
        if plan.kind is Kind.RESTART_EARLY:
            made.status, made.headers = FAILED[0], list(FAILED[1])
            try:
                raise self._error(made)
            except AppError:
                start_response(made.status, list(made.headers), sys.exc_info())
        chunks: Any = self._chunks(made)
        if plan.kind is Kind.RESTART_LATE:
            chunks = self._restart(made, chunks, start_response)
        if plan.kind is Kind.WRITE:
            for chunk in chunks:
                writer(chunk)
                break
        wrapper = environ.get("wsgi.file_wrapper")
        if plan.kind is Kind.FILE and wrapper is not None:
            made.sent = made.whole
            return wrapper(_File(made))
        if plan.kind is Kind.LIST and plan.fails is None:
            return list(chunks)
        return Body(made, chunks)

    def _error(self, made: Made) -> AppError:
        made.error = AppError()
        self.errors.append(made.error)
        return made.error

    def _chunks(self, made: Made) -> Iterator[bytes]:
        step = max(1, -(-len(made.whole) // made.plan.chunks))
        starts = range(0, len(made.whole), step)
        for number, start in enumerate(starts):
            if number == made.plan.fails:
                raise self._error(made)
            chunk = made.whole[start : start + step]
            made.sent += chunk
            yield chunk
            if number == 1:
                yield b""
        if made.plan.fails is not None and made.plan.fails >= len(starts):
            raise self._error(made)

    def _late(self, made: Made, start_response: Callable[..., Any]) -> Iterator[bytes]:
        made.opened += 1
        try:
            start_response(made.status, list(made.headers))
            yield from self._chunks(made)
        finally:
            made.closed += 1

    def _restart(
        self, made: Made, chunks: Iterator[bytes], start_response: Callable[..., Any]
    ) -> Iterator[bytes]:
        yield from chunks
        try:
            raise self._error(made)
        except AppError:
            start_response(FAILED[0], list(FAILED[1]), sys.exc_info())


class Body:
    """The app's iterator; counts its closing."""

    def __init__(self, made: Made, chunks: Iterator[bytes]) -> None:
        made.opened += 1
        self._made = made
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        self._made.closed += 1


class _File(io.BytesIO):
    """A file; counts its first closing only, since a file may be closed again."""

    def __init__(self, made: Made) -> None:
        super().__init__(made.whole)
        made.opened += 1
        self._made = made

    def close(self) -> None:
        if not self.closed:
            self._made.closed += 1
        super().close()


def _identity(key: tuple[str, ...], version: int, environ: dict[str, Any], plan: Plan) -> bytes:
    """What no other key, version, variant or person has."""
    variant = [environ.get(f"HTTP_{name.upper().replace('-', '_')}") for name in plan.vary]
    person = [environ.get(name) for name in CREDENTIALS]
    return repr((key, version, plan.vary, variant, person)).encode("utf-8", "surrogatepass")


def _body(identity: bytes, environ: dict[str, Any], plan: Plan) -> bytes:
    if environ["REQUEST_METHOD"] == "HEAD" or plan.status[:3] in ("204", "304"):
        return b""
    return hashlib.shake_128(identity).digest(plan.size)


def _fields(made: Made) -> list[tuple[str, str]]:
    plan = made.plan
    headers = list(plan.fields)
    if plan.content_type is not None:
        headers.append(("Content-Type", plan.content_type))
    if plan.control:
        headers.append(("Cache-Control", ", ".join(plan.control)))
    if plan.raw_control is not None:
        headers.append(("Cache-Control", plan.raw_control))
    for name, shift in (
        ("Date", plan.dated),
        ("Last-Modified", plan.modified),
        ("Expires", plan.expires_in),
    ):
        if shift is not None:
            headers.append((name, formatdate(made.time + shift, usegmt=True)))
    headers += [("Vary", name) for name in plan.vary]
    if plan.tag:
        headers.append(("ETag", _tag(made)))
    if plan.md5:
        digest = hashlib.md5(made.whole + (b"!" if plan.md5 == "wrong" else b"")).digest()
        headers.append(("Content-MD5", base64.b64encode(digest).decode()))
    size = plan.size if made.request["REQUEST_METHOD"] == "HEAD" else len(made.whole)
    return headers + [("Content-Length", value) for value in _lengths(plan.length, size)]


def _tag(made: Made) -> str:
    if made.plan.tag in ("strong", "weak"):
        name = hashlib.md5(made.identity).hexdigest()
        return f'"{name}"' if made.plan.tag == "strong" else f'W/"{name}"'
    return '"constant"' if made.plan.tag == "constant" else 'bro"ken'


def _lengths(length: Length, size: int) -> list[str]:
    return {
        Length.RIGHT: [str(size)],
        Length.NONE: [],
        Length.SHORT: [str(max(0, size - 1))],
        Length.LONG: [str(size + 1)],
        Length.DOUBLE: [str(size), str(size)],
        Length.TWO: [str(size), str(size + 1)],
        Length.GARBAGE: [f"+{size}x"],
    }[length]
