"""Requests to a WSGI app by hand, with whatever a client or a server may put into the environ."""

from __future__ import annotations

import io
from typing import Any


class Reply:
    """What a server got from an app, read to its end.

    :param error: what the body raised in place of its end.
    """

    def __init__(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status = int(status[:3])
        self.headers = headers
        self.body = b""
        self.error: Exception | None = None

    def get(self, name: str) -> str | None:
        """The value of the last field of that name."""
        return {field.lower(): value for field, value in self.headers}.get(name.lower())

    @property
    def cache(self) -> str | None:
        """What Cache-Status says of our cache."""
        return (self.get("Cache-Status") or "").removeprefix("cachemw; ")


class Begun:
    """A request whose body is read when the test wants it."""

    def __init__(self, app: Any, path: str, method: str, environ: dict[str, Any]) -> None:
        self._started: list[Any] = []
        self._read: list[bytes] = []
        self._body = app(environ_of(path, method, environ), self._start)
        self._chunks = iter(self._body)

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self._started.append((status, headers))
        return self._read.append

    def step(self) -> bytes:
        """Read one chunk."""
        self._read.append(next(self._chunks))
        return self._read[-1]

    def finish(self) -> Reply:
        """Read the rest, and close."""
        error = None
        try:
            self._read.extend(self._chunks)
        except Exception as exc:
            error = exc
        finally:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        reply = Reply(*self._started[-1])
        reply.body, reply.error = b"".join(self._read), error
        return reply


def environ_of(path: str, method: str, extra: dict[str, Any]) -> dict[str, Any]:
    """Make an environ.

    :param path: with a query, if there is one; the path unquoted, as in PATH_INFO.
    :param extra: keys with a dash or a small letter are request fields, but for those with a dot.
    """
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for key, value in extra.items():
        if "." in key or (key.isupper() and "-" not in key):
            environ[key] = value
        else:
            environ[f"HTTP_{key.upper().replace('-', '_')}"] = value
    return environ


def begin(app: Any, path: str, method: str = "GET", **environ: Any) -> Begun:
    """Send a request."""
    return Begun(app, path, method, environ)


def get(app: Any, path: str, method: str = "GET", **environ: Any) -> Reply:
    """Send a request, and read the answer to its end."""
    return Begun(app, path, method, environ).finish()
