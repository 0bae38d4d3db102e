"""Exchanges with an upstream HTTP server: kept connections, answers as they arrive.

RFC 9112 is the authority. urllib3's connections are used without its pools,
which write the request target anew (``%7e`` becomes ``%7E``) and do not say
whether a connection that failed had been used before; the pool here is a stack
of connections that wait for the next request.

Any number of threads may exchange; one answer belongs to one thread at a time.

Imports: errors, web.apps._connections; urllib3 (the extra ``serve``).
"""

from __future__ import annotations

import dataclasses
import http.client
import queue
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3Timeout
from urllib3.util import SKIP_HEADER

from ...errors import RequestFailed, UpstreamFailed, UpstreamTimeout
from ._connections import PlainConnection, TlsConnection

#: The most that one read takes from the socket, in bytes.
BLOCK = 512 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = re.compile(r"\r?\n[ \t]+|[\x00-\x1f\x7f]")


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """One request to be sent.

    :param target: what goes between method and version, sent as it is.
    :param headers: all of them but Content-Length and Transfer-Encoding; those
        that are not there are not made up.
    :param body: the bytes to send, in blocks; ``None``: there is no body.
    :param length: bytes of the body; ``None`` with a body: sent in chunks.
    """

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: Iterable[bytes] | None = None
    length: int | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice is the same as once (RFC 9110, section 9.2.2)."""
        return self.body is None and self.method in ("GET", "HEAD")


class Upstream:
    """One server, and the connections to it that wait for the next request.

    :param host: name or address, without brackets.
    :param timeout: seconds to wait for any next byte.
    :param connect_timeout: seconds to wait for a connection to each address.
    :param pool_size: connections kept while idle; more may be in use.
    """

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int | None,
        *,
        timeout: float,
        connect_timeout: float,
        pool_size: int,
    ) -> None:
        kind = TlsConnection if scheme == "https" else PlainConnection
        self._connect: Callable[[], HTTPConnection] = lambda: kind(
            host, port, timeout=connect_timeout
        )
        self._timeout = timeout
        self._idle: queue.LifoQueue[HTTPConnection] = queue.LifoQueue(pool_size)

    def exchange(self, request: Exchange) -> Answer:
        """Send a request; the answer's header section has arrived, its body not.

        A kept connection that turns out to be dead costs one more try, if the
        request may be sent twice.

        :raises UpstreamTimeout: it took too long.
        :raises UpstreamFailed: there is no usable answer.
        :raises RequestFailed: the request cannot be sent, or its body broke off.
        """
        try:
            connection = self._kept()
            if connection is not None:
                try:
                    return self._send(connection, request)
                except ConnectionError:
                    if not request.repeatable:
                        raise
            return self._send(self._fresh(), request)
        except (OSError, http.client.HTTPException, HTTPError) as exc:
            raise translated(exc) from exc

    def close(self) -> None:
        """Close the idle connections; those in use are closed after use."""
        while (connection := self._kept(any_state=True)) is not None:
            connection.close()

    def keep(self, connection: HTTPConnection) -> None:
        """Take back a connection on which an exchange has ended in good order."""
        if connection.is_closed:
            return
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()

    def _kept(self, any_state: bool = False) -> HTTPConnection | None:
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return None
            # Readable while idle: the other side closed it, or sent what nobody asked for.
            if any_state or connection.is_connected:
                return connection
            connection.close()

    def _fresh(self) -> HTTPConnection:
        connection = self._connect()
        try:
            connection.connect()
            connection.timeout = self._timeout
            connection.sock.settimeout(self._timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _send(self, connection: HTTPConnection, request: Exchange) -> Answer:
        try:
            whole = _write(connection, request)
            response = connection.getresponse()
            try:
                return Answer(self, connection, response, request.method, reusable=whole)
            except BaseException:
                response.close()
                raise
        except BaseException:
            connection.close()
            raise


class Answer:
    """An answer whose body has yet to be read: a WSGI body that ends well or raises.

    Exhausted, it gives its connection back; closed before that, it closes the
    connection and leaves the rest unread. A second close does nothing. A body
    that did not end well never ends: each further read raises again.

    :ivar headers: the fields; Content-Length is there, once, if it frames the body.
    :ivar bodyless: there is nothing to read.
    """

    def __init__(
        self,
        upstream: Upstream,
        connection: HTTPConnection,
        response: HTTPResponse,
        method: str,
        reusable: bool,
    ) -> None:
        self._upstream = upstream
        self._connection: HTTPConnection | None = connection
        self._response = response
        self._reusable = reusable
        self._failure = UpstreamFailed("the body was closed before its end")
        self._complete = False
        self.status = response.status
        self.reason = clean_value(response.reason or "")
        self.headers = [
            (name, clean_value(value))
            for name, value in _forwardable(response)
            if _TOKEN.fullmatch(name)
        ]
        self.bodyless = method == "HEAD" or response.status in (204, 304)
        if self.bodyless:
            # A 204 or 304 that announces chunks may be followed by some.
            self._reusable = reusable and (method == "HEAD" or not response.chunked)
            self._release(done=True)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._connection is None:
            if self._complete:
                raise StopIteration
            raise self._failure
        try:
            block = self._response.read1(BLOCK, decode_content=False)
        except (OSError, http.client.HTTPException, HTTPError) as exc:
            self._failure = translated(exc)
            self._release(done=False)
            raise self._failure from exc
        except BaseException:
            self._release(done=False)
            raise
        # urllib3 closes a response, not its connection, with the last byte of its body.
        if self._response.closed:
            self._release(done=True)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        self._release(done=False)

    def _release(self, *, done: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._complete = done
        self._response.close()
        if done and self._reusable:
            self._upstream.keep(connection)
        else:
            connection.close()


def clean_value(value: str) -> str:
    """A field's value on one line, without control characters.

    Source: RFC 9110, section 5.5, and RFC 9112, section 5.2.
    """
    return _CONTROLS.sub(" ", value).strip(" ")


def translated(exc: Exception) -> UpstreamFailed:
    """Turn what sockets, http.client and urllib3 raise into one of ours."""
    if isinstance(exc, NewConnectionError):  # in urllib3 2 a kind of time-out
        return UpstreamFailed(str(exc))
    if isinstance(exc, TimeoutError | Urllib3Timeout):
        return UpstreamTimeout(str(exc))
    return UpstreamFailed(str(exc) or type(exc).__name__)


def _forwardable(response: HTTPResponse) -> Iterator[tuple[str, str]]:
    """The fields with one Content-Length at most, and none beside chunks.

    Source: RFC 9112, section 6.3.
    """
    for name, value in response.headers.items():
        if name.lower() != "content-length":
            yield name, value
    length = response.headers.getlist("content-length")
    if length and not response.chunked:
        yield "Content-Length", length[0]


def _write(connection: HTTPConnection, request: Exchange) -> bool:
    """Send the request.

    :return: whether all of it was sent; if not, the answer may still be there.
    """
    headers = HTTPHeaderDict()
    for name, value in request.headers:
        headers.add(name, value)
    for name in ("Accept-Encoding", "User-Agent"):
        headers.setdefault(name, SKIP_HEADER)
    chunked = request.body is not None and request.length is None
    if request.length is not None:
        headers.add("Content-Length", str(request.length))
    try:
        connection.request(
            request.method,
            request.target,
            body=request.body,
            headers=headers,
            chunked=chunked,
            preload_content=False,
            decode_content=False,
        )
    except (BrokenPipeError, ConnectionResetError):
        return False
    except (ValueError, http.client.InvalidURL) as exc:
        raise RequestFailed(f"the request cannot be sent on: {exc}") from exc
    return True
