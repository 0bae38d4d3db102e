"""Call the app and look at its answer before anything of it goes out.

PEP 3333 lets an app call ``start_response`` late, twice (with ``exc_info``),
or write its body by the callable that it returns; all of it works here, and
no body is buffered.

Imports: nothing of ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

#: Bytes read at a time from a file that the app hands to the server.
BLOCK = 512 * 1024


class FileBody:
    """What the app gets as ``wsgi.file_wrapper``, so that its file can be read here.

    The server's own wrapper often reads in small blocks, made for a body that
    sendfile does not take.
    """

    def __init__(self, filelike: Any, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(max(self.block_size, BLOCK))
        if not block:
            raise StopIteration
        return block


class Answer:
    """The app's answer to one request.

    :param environ: handed to the app as it is, but for its file wrapper.
    :param start_response: the server's.
    :param write_field: field to add where the app writes its body itself.
    """

    #: When the app was asked, and when it answered: seconds since the epoch.
    asked = answered = 0.0

    def __init__(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        write_field: tuple[str, str],
    ) -> None:
        self.status = ""
        self.headers: Headers = []
        self.body: Iterable[bytes] = ()
        #: Whether the app has written through the callable, so that headers are out.
        self.written = False
        #: Whether the body is being stored, so that no other may take its place.
        self.stored = False
        #: What the image's last deletion had left when the app was asked.
        self.deletion_before = b""
        #: The request as it came: the app may change its environ, as routers do, and those
        #: who take credentials out of it.
        self.request = dict(environ)
        self._environ = environ
        self._start_response = start_response
        self._write_field = self._field = write_field
        self._exc_info: ExcInfo | None = None
        self._writer: Callable[[bytes], object] | None = None
        self._sent = False
        self._server_wrapper = environ.get("wsgi.file_wrapper")

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    @property
    def known_request(self) -> dict[str, Any]:
        """The request as it came, with what the app found out beside it (``REMOTE_USER``)."""
        return {**self._environ, **self.request}

    def fetch(self, app: Callable[..., Iterable[bytes]]) -> None:
        """Call the app, and go on until status and fields are known.

        :raises Exception: whatever the app raises.
        """
        if self._server_wrapper is not None:
            self._environ["wsgi.file_wrapper"] = FileBody
        self.asked = time.time()
        try:
            self.body = app(self._environ, self._start)
            if not self.status:
                self.body = _Begun(self.body)
        finally:
            self.answered = time.time()
            if self._server_wrapper is not None:
                self._environ["wsgi.file_wrapper"] = self._server_wrapper
        if not self.status:
            self.close()
            raise AssertionError("the app gave a body before it called start_response")

    def start_response(self, status: str, headers: Headers) -> Callable[[bytes], object]:
        """Send another status and other fields than the app's."""
        self._sent = True
        writer: Callable[[bytes], object] = self._start_response(status, headers)
        return writer

    def send(self, field: tuple[str, str]) -> None:
        """Send status and fields, with one more."""
        self._sent = True
        self._field = field
        self._call_server([*self.headers, field])

    def server_body(self) -> Iterable[bytes]:
        """Give the body as it is, or as the server's own wrapper if it is a file."""
        if isinstance(self.body, FileBody) and self._server_wrapper is not None:
            wrapped: Iterable[bytes] = self._server_wrapper(
                self.body.filelike, self.body.block_size
            )
            return wrapped
        return self.body

    def instead(self, code: int, field: tuple[str, str]) -> Iterable[bytes]:
        """Answer 304 or 412 in the place of a body that was closed unread."""
        self.status = {304: "304 Not Modified", 412: "412 Precondition Failed"}[code]
        length = [("Content-Length", "0")] if code == 412 else []
        of_body = ("content-length", "content-range", "content-type", "transfer-encoding")
        kept = [pair for pair in self.headers if pair[0].lower() not in of_body]
        if code == 412:
            kept.append(("Content-Type", "text/plain"))
        self.headers = [*kept, *length]
        self.send(field)
        return []

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the body if the block raises."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the body, unread; a second close does nothing."""
        body, self.body = self.body, ()
        close = getattr(body, "close", None)
        if close is not None:
            close()

    def _start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                if self._sent and not self.stored and not self.written:
                    # The server knows whether anything is out already.
                    fields = [*headers, self._field]
                    writer: Callable[[bytes], object]
                    writer = self._start_response(status, fields, exc_info)
                    return writer
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
                self._exc_info = exc_info
            finally:
                exc_info = None
        elif self.status:
            raise AssertionError("the app called start_response twice without exc_info")
        self.status, self.headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        if self._writer is None:
            self.written = self._sent = True
            self._writer = self._call_server([*self.headers, self._write_field])
        self._writer(data)

    def _call_server(self, headers: Headers) -> Callable[[bytes], object]:
        exc_info, self._exc_info = self._exc_info, None
        writer: Callable[[bytes], object]
        if exc_info is not None:
            writer = self._start_response(self.status, headers, exc_info)
        else:
            writer = self._start_response(self.status, headers)
        return writer


class _Begun:
    """A body whose first chunk was taken already, to learn the status."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        try:
            self._chunks = iter(body)
            first = next(self._chunks, None)
            self._first = [] if first is None else [first]
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._first.pop() if self._first else next(self._chunks)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def nobody(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
    """A ``start_response`` for an answer that no client waits for."""
    return lambda data: None
