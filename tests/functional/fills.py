"""Shared fills over real sockets: an origin that stops where a test says, and what watches.

Nothing here relies on how long something takes: the origin stops at a byte,
a test waits until its clients have what they can have by then, and lets the
origin go on. Every wait has an end, after which the test has failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import random
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw import ImageCache
from tests import servers
from tests.servers import BrokenOff, Client, Reply, Server
from tests.waiting import PATIENCE, wait_until

MIB = 2**20

#: Bytes before a stop that need not have reached the readers, or the disk: chunks
#: of the app, blocks that are gathered, chunks that have a checksum.
SLACK = MIB

#: Bytes that the kernel cannot take for a client that does not read: more than the
#: buffers of both ends may grow to.
LARGE = 24 * MIB

#: Bytes that the origin sends at once.
PIECE = 64 * 1024

APP = "tests.functional.served_fills:app"

#: Threads of a server: each client that waits has one.
THREADS = 32


@functools.cache
def content(size: int, seed: int = 1) -> bytes:
    """Bytes that are found nowhere else in themselves, the same in each run."""
    return random.Random(seed).randbytes(size)


# The origin


class Gate:
    """A byte of an image where the origin stops until the test lets it go on.

    :param offset: in the image; ``-1``: before the head.
    :param only: number of the request that stops there; ``None``: all.
    """

    def __init__(self, offset: int, only: int | None = None) -> None:
        self.offset = offset
        self.only = only
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def is_before(self, number: int, position: int) -> bool:
        """Say whether a request has this gate before it."""
        return self.only in (None, number) and position <= self.offset

    def wait(self) -> None:
        """Wait until the origin stands here."""
        assert self.reached.wait(PATIENCE), f"the origin did not get to {self.offset}"


@dataclasses.dataclass
class Asked:
    """A request that reached the origin.

    :param number: counts those for the same path, from 0.
    :param sent: bytes of the image sent in answer.
    :param left: whether the peer closed the connection before it had all.
    """

    number: int
    method: str
    path: str
    fields: dict[str, str]
    sent: int = 0
    left: bool = False
    ended: bool = False

    @property
    def start(self) -> int | None:
        """The first byte that it wants; ``None``: it has no Range."""
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.fields.get("range", ""))
        return int(match[1]) if match else None


class Image:
    """What the origin has at a path, and how it sends it; may be changed at any time.

    :ivar cuts: where the answer to the request of that number breaks off.
    :ivar languages: other bytes by Accept-Language, with ``Vary``.
    :ivar honest: whether If-Range is looked at.
    :ivar shift: bytes by which a part begins earlier than it was asked for.
    """

    def __init__(self, body: bytes, etag: str | None = '"one"') -> None:
        self.body = body
        self.etag = etag
        self.fields = ["Cache-Control: public, max-age=3600"]
        self.chunked = False
        self.ranges = True
        self.honest = True
        self.shift = 0
        self.pace: float | None = None
        self.cuts: dict[int, int] = {}
        self.gates: list[Gate] = []
        self.languages: dict[str, bytes] = {}

    def gate(self, offset: int, only: int | None = None) -> Gate:
        """Have the origin stop at a byte."""
        self.gates.append(Gate(offset, only))
        return self.gates[-1]

    def part(self, asked: Asked) -> tuple[int, int]:
        """Choose the part to send, half-open."""
        size = len(self.body_for(asked))
        if self.ranges and "range" in asked.fields:
            condition = asked.fields.get("if-range")
            if condition in (None, self.etag) or not self.honest:
                first, last = asked.fields["range"].removeprefix("bytes=").split("-")
                stop = min(int(last) + 1, size) if last else size
                return max(0, int(first) - self.shift), stop
        return 0, size

    def body_for(self, asked: Asked) -> bytes:
        return self.languages.get(asked.fields.get("accept-language", ""), self.body)

    def head(self, asked: Asked, start: int, stop: int) -> bytes:
        whole = len(self.body_for(asked))
        partial = (start, stop) != (0, whole)
        lines = [f"HTTP/1.1 {'206 Partial Content' if partial else '200 OK'}"]
        lines += ["Content-Type: application/octet-stream", *self.fields]
        lines += [f"X-Answer: {asked.number}"]
        if self.etag is not None:
            lines.append(f"ETag: {self.etag}")
        if self.languages:
            lines.append("Vary: Accept-Language")
        if self.ranges:
            lines.append("Accept-Ranges: bytes")
        if partial:
            lines.append(f"Content-Range: bytes {start}-{stop - 1}/{whole}")
        if self.chunked and not partial:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {stop - start}")
        return "\r\n".join([*lines, "", ""]).encode()


class _Left(Exception):
    """The peer has gone, or the test is over."""


class Origin:
    """An HTTP/1.1 server in threads of the test; a context manager.

    :ivar images: what it has, by path.
    :ivar asked: all requests, in the order in which they came.
    """

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def put(self, path: str, body: bytes, etag: str | None = '"one"') -> Image:
        self.images[path] = Image(body, etag)
        return self.images[path]

    def gets(self, path: str) -> list[Asked]:
        """Give the GET requests for an image."""
        with self._lock:
            return [a for a in self.asked if (a.method, a.path) == ("GET", path)]

    def let_go(self) -> None:
        """Open every gate, so that whatever still waits comes to an end."""
        for image in self.images.values():
            for gate in image.gates:
                gate.open()

    def __enter__(self) -> Origin:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over = True
        self.let_go()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
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
            # Little waits in the kernel: what was sent has nearly been read.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
            thread = threading.Thread(target=self._serve, args=(sock,))
            with self._lock:
                self._open.add(sock)
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            try:
                while (asked := self._read(file)) is not None:
                    try:
                        self._answer(sock, asked)
                    finally:
                        asked.ended = True
            except (OSError, _Left):
                pass
            with self._lock:
                self._open.discard(sock)

    def _read(self, file: Any) -> Asked | None:
        line = file.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        fields = {}
        while field := file.readline().decode("latin-1").strip():
            name, _, value = field.partition(":")
            fields[name.lower()] = value.strip()
        file.read(int(fields.get("content-length", 0)))
        with self._lock:
            number = sum((a.method, a.path) == (line[0], line[1]) for a in self.asked)
            self.asked.append(Asked(number, line[0], line[1], fields))
            return self.asked[-1]

    def _answer(self, sock: socket.socket, asked: Asked) -> None:
        image = self.images.get(asked.path)
        if image is None or asked.method not in ("GET", "HEAD"):
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        if image.etag and asked.fields.get("if-none-match") == image.etag:
            sock.sendall(f"HTTP/1.1 304 Not Modified\r\nETag: {image.etag}\r\n\r\n".encode())
            return
        try:
            self._send(sock, asked, image)
        except (OSError, _Left):
            asked.left = True
            raise

    def _send(self, sock: socket.socket, asked: Asked, image: Image) -> None:
        body, (start, stop) = image.body_for(asked), image.part(asked)
        head, chunked, cut = (
            image.head(asked, start, stop),
            image.chunked,
            image.cuts.get(asked.number),
        )
        if asked.method == "HEAD":
            sock.sendall(head)
            return
        gates = [gate for gate in image.gates if gate.is_before(asked.number, start)]
        self._stop_at([gate for gate in image.gates if gate.is_before(asked.number, -1)], -1, sock)
        sock.sendall(head)
        position = start
        while position < stop:
            self._stop_at(gates, position, sock)
            if cut is not None and position >= cut:
                sock.shutdown(socket.SHUT_RDWR)
                raise _Left
            ends = [gate.offset for gate in gates if gate.offset > position]
            end = min(position + PIECE, stop, *ends, *([cut] if cut is not None else []))
            piece = body[position:end]
            is_chunk = chunked and head.find(b"chunked") > 0
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunk else piece)
            position, asked.sent = end, asked.sent + len(piece)
            if image.pace:
                time.sleep(len(piece) / image.pace)
        if head.find(b"chunked") > 0:
            sock.sendall(b"0\r\n\r\n")

    def _stop_at(self, gates: Sequence[Gate], position: int, sock: socket.socket) -> None:
        for gate in gates:
            if gate.offset != position:
                continue
            gate.reached.set()
            while not gate.is_open:
                readable, _, _ = select.select([sock], [], [], 0.02)
                if self._over or (readable and not sock.recv(1, socket.MSG_PEEK)):
                    raise _Left


# Clients


class Reader(threading.Thread):
    """A client that reads an answer in a thread of its own."""

    def __init__(
        self, server: Server, path: str, *headers: tuple[str, str], method: str = "GET"
    ) -> None:
        super().__init__(daemon=True)
        self.client = server.begin(path, *headers, method=method)
        self._reply = Reply(0, {}, b"", False)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, BrokenOff, ValueError):
            self._reply = self.client.finish()

    @property
    def received(self) -> int:
        """Bytes of the body that are here by now."""
        return self.client.received

    def result(self) -> Reply:
        """Wait for the end; status 0: not even a head came."""
        self.join(2 * PATIENCE)
        assert not self.is_alive(), f"still reading after {self.received} bytes"
        return self._reply


def start_reading(server: Server, path: str, *headers: tuple[str, str], **options: Any) -> Reader:
    return Reader(server, path, *headers, **options)


def wait_for_bytes(readers: Sequence[Reader], size: int) -> None:
    """Wait until each has so many bytes."""
    wait_until(
        lambda: all(reader.received >= size for reader in readers),
        f"every client has {size} bytes",
    )


def results(readers: Sequence[Reader]) -> list[Reply]:
    return [reader.result() for reader in readers]


def assert_whole(reply: Reply, body: bytes) -> None:
    """Compare without showing megabytes."""
    assert (reply.status, reply.complete, len(reply.body)) == (200, True, len(body))
    assert reply.body == body


def assert_never_mixed(reply: Reply, versions: dict[str, bytes]) -> None:
    """Whatever came is the beginning of the version that its ETag names; all of it if whole.

    :param versions: bytes by ETag.
    """
    if reply.status == 0:
        return
    body = versions[reply.headers["etag"]]
    assert body.startswith(reply.body), f"mixed bytes among {len(reply.body)}"
    assert not reply.complete or len(reply.body) == len(body)


# The cache in between


class World:
    """An origin, servers with one cache directory, and what was noted in them."""

    def __init__(self, place: Path, driver: str, stack: contextlib.ExitStack) -> None:
        self.place = place
        self.driver = driver
        self.origin = stack.enter_context(Origin())
        self._stack = stack
        self._killed: set[int] = set()
        self._count = 0
        self._clients: list[Client] = []
        (place / "world").mkdir()
        self.directory = place / "world"

    def serve(
        self,
        kind: str = "gunicorn",
        workers: int = 1,
        threads: int = THREADS,
        server_options: Sequence[str] = (),
        **options: Any,
    ) -> Server:
        """Start a server, another process on the same directory as the others.

        :param options: the filter's.
        """
        made = {"driver": self.driver, "driver_fallback": False, "min_free": 0, **options}
        environ = {
            "CACHEMW_TEST_DIR": str(self.directory),
            "CACHEMW_TEST_UPSTREAM": self.origin.url,
            "CACHEMW_TEST_OPTIONS": json.dumps(made),
        }
        self._count += 1
        log = self.place / f"server-{self._count}.log"
        started: contextlib.AbstractContextManager[Server]
        if kind in ("gunicorn", "gevent"):
            pytest.importorskip("gunicorn")
            extra = {} if kind == "gunicorn" else {"worker_class": "gevent"}
            if kind == "gevent":
                pytest.importorskip("gevent")
            started = servers.gunicorn(
                APP,
                log,
                workers=workers,
                threads=threads,
                environ=environ,
                options=server_options,
                **extra,
            )
        elif kind == "uwsgi":
            if not os.path.exists(servers.uwsgi_path()):
                pytest.skip("uWSGI (pyuwsgi) is not installed")
            started = servers.uwsgi(APP, log, workers=workers, threads=threads, environ=environ)
        else:
            assert kind == "waitress"
            started = servers.waitress_process(APP, log, threads=threads, environ=environ)
        return self._stack.enter_context(started)

    def pair(self, where: str, **options: Any) -> tuple[Server, Server]:
        """Give the server of the leader and that of the followers.

        :param where: ``"same"`` process, or ``"other"``.
        """
        first = self.serve(**options)
        return first, first if where == "same" else self.serve(**options)

    def begin(self, server: Server, path: str, *headers: tuple[str, str]) -> Client:
        """Ask, and read nothing yet; closed when the test is over."""
        self._clients.append(server.begin(path, *headers))
        return self._clients[-1]

    def hang_up(self) -> None:
        """Close the clients that :meth:`begin` made."""
        for client in self._clients:
            client.close()

    def kill_workers(self, server: Server) -> None:
        """End the processes that answer with SIGKILL; gunicorn starts others."""
        for pid in server.workers():
            self._killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    def kill(self, server: Server) -> None:
        """End all of a server with SIGKILL."""
        self._killed.update(server.workers())
        os.killpg(server.pid, signal.SIGKILL)  # a session of its own, by its own id

    def reload(self, server: Server) -> None:
        """Have gunicorn put new workers in place of the old ones, which finish what they have."""
        os.kill(server.pid, signal.SIGHUP)

    def died(self, *pids: int) -> None:
        """Do not expect of these processes that they closed what they had open."""
        self._killed.update(pids)

    @contextlib.contextmanager
    def cache(self) -> Iterator[ImageCache]:
        """Look into the directory, as yet another process does."""
        cache = ImageCache(dir=self.directory / "cache", driver=self.driver, min_free=0)
        try:
            yield cache
        finally:
            cache.close()

    def wait_until_cached(self, path: str) -> None:
        with self.cache() as cache:
            wait_until(lambda: cache.is_cached(f"http://test{path}"), f"{path} is cached")

    def is_cached(self, path: str) -> bool:
        with self.cache() as cache:
            return cache.is_cached(f"http://test{path}")

    def hits(self, path: str) -> int:
        with self.cache() as cache:
            return next(
                image["hits"]
                for image in cache.get_cached_images()
                if image["image_id"] == f"http://test{path}"
            )

    def invalid_reasons(self) -> list[str]:
        with self.cache() as cache:
            return [image["reason"] for image in cache.driver.get_invalid_images()]

    def bytes_left(self) -> int:
        """Count the bytes on disk of fills that did not become entries."""
        return sum(
            path.stat().st_blocks * 512
            for name in ("incomplete", "invalid")
            for path in (self.directory / "cache" / name).rglob("*")
            if path.is_file()
        )

    def noted(self, event: str) -> list[dict[str, Any]]:
        try:
            lines = (self.directory / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [note for note in map(json.loads, lines) if note["event"] == event]

    def calls(self, path: str) -> list[dict[str, Any]]:
        """Give the GET requests for an image that reached the app, in any process."""
        noted = self.noted("called")
        return [note for note in noted if (note["path"], note["method"]) == (path, "GET")]

    def check_closed(self) -> None:
        """Every body that the app gave was closed exactly once, but for processes that died."""

        def numbers(event: str) -> list[tuple[int, int]]:
            return sorted(
                (note["process"], note["call"])
                for note in self.noted(event)
                if note["process"] not in self._killed
            )

        wait_until(lambda: len(numbers("closed")) >= len(numbers("called")), "all is closed")
        assert numbers("closed") == numbers("called")


@contextlib.contextmanager
def world_in(place: Path, driver: str) -> Iterator[World]:
    """Make a world; when the test is over, the app's bodies must have been closed."""
    with contextlib.ExitStack() as stack:
        world = World(place, driver, stack)
        try:
            yield world
        finally:
            # Before the servers are told to end, which would wait for what is under way.
            world.origin.let_go()
            world.hang_up()
        world.check_closed()


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
