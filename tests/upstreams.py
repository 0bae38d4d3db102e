"""Upstream HTTP servers that follow a script: real sockets on loopback.

Each request takes the next reply from the queue; its steps are carried out in
order, and then the connection waits for the next request. Nothing sleeps:
where the order of things matters, a step waits for an event that a test sets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: A test that waits for longer than so many seconds has failed.
PATIENCE = 20

Step = bytes | Callable[["Connection"], None]


class HangUp(Exception):
    """The script is done with this connection."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client sent.

    :param line: the request line, without its end.
    :param headers: names in lower case with values, in the order sent.
    :param chunks: the body, one element per chunk if it came in chunks.
    :param connection: counts the connections, from 0.
    """

    line: str
    headers: list[tuple[str, str]]
    chunks: list[bytes]
    connection: int

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.headers if field == name]

    def names(self) -> set[str]:
        return {field for field, _ in self.headers}


@dataclasses.dataclass
class Reply:
    """What to do with one request.

    :param steps: bytes to send, or things to do with the connection.
    :param unread: start when the request's head is there; its body stays unread.
    """

    steps: tuple[Step, ...]
    unread: bool = False


class Connection:
    """One client's connection, as the steps see it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.socket = sock
        self.number = number
        self.file = sock.makefile("rb")

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def close(connection: Connection) -> None:
    """End the connection in good order."""
    raise HangUp


def reset(connection: Connection) -> None:
    """End the connection with RST."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise HangUp


def wait_for(event: threading.Event) -> Step:
    """Go on when the test says so."""

    def step(connection: Connection) -> None:
        assert event.wait(PATIENCE)

    return step


def tell(event: threading.Event) -> Step:
    """Tell the test that this step was reached."""

    def step(connection: Connection) -> None:
        event.set()

    return step


def close_and_tell(event: threading.Event) -> Step:
    """End the connection; tell the test when that is done."""

    def step(connection: Connection) -> None:
        connection.close()
        event.set()
        raise HangUp

    return step


def until_client_leaves(event: threading.Event, sending: bytes = b"") -> Step:
    """Tell the test when the client has closed the connection.

    :param sending: is sent again and again meanwhile.
    """

    def step(connection: Connection) -> None:
        connection.socket.settimeout(PATIENCE)
        try:
            while sending:
                connection.socket.sendall(sending)
            assert connection.socket.recv(1) == b""
        except ConnectionError:
            pass
        event.set()
        raise HangUp

    return step


class ScriptedUpstream:
    """A server on a free port of the loopback interface; a context manager.

    :ivar requests: what came in, in order of arrival.
    :ivar connections: how many clients have connected.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._replies: queue.Queue[Reply] = queue.Queue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()
        self.port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def reply(self, *steps: Step, unread: bool = False) -> None:
        """Say what the next request that has no reply yet gets."""
        self._replies.put(Reply(steps, unread))

    def stop_listening(self) -> None:
        """Refuse connections from now on; those that are open stay."""
        # close() alone does not wake up accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> ScriptedUpstream:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_listening()
        self._threads[0].join(PATIENCE)
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
            connection = Connection(sock, self.connections)
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while self._serve_one(connection):
                pass
        except (HangUp, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection.socket)
                connection.close()

    def _serve_one(self, connection: Connection) -> bool:
        line = connection.file.readline()
        if not line:
            return False
        headers = list(_read_headers(connection))
        try:
            reply = self._replies.get_nowait()
        except queue.Empty:
            reply = Reply((b"HTTP/1.1 599 Nothing Scripted\r\nContent-Length: 0\r\n\r\n",))
        chunks = [] if reply.unread else list(_read_body(connection, dict(headers)))
        self.requests.append(
            Request(line.decode("latin-1").rstrip("\r\n"), headers, chunks, connection.number)
        )
        for step in reply.steps:
            if isinstance(step, bytes):
                connection.socket.sendall(step)
            else:
                step(connection)
        return True


def response(
    body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = None
) -> bytes:
    """Build a response with a Content-Length.

    :param headers: ``"Name: value"``.
    :param length: what Content-Length says, if not the truth.
    """
    lines = [f"HTTP/1.1 {status}", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _read_headers(connection: Connection) -> Iterator[tuple[str, str]]:
    while (line := connection.file.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _read_body(connection: Connection, headers: dict[str, Any]) -> Iterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while True:
            line = connection.file.readline()
            assert re.fullmatch(rb"[0-9a-f]+\r\n", line), line
            chunk = connection.file.read(int(line, 16))
            assert connection.file.readline() == b"\r\n"
            if not chunk:
                return
            yield chunk
    length = int(headers.get("content-length", 0))
    if length:
        body = connection.file.read(length)
        if len(body) < length:
            raise HangUp
        yield body
