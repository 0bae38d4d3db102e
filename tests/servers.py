"""Real WSGI servers on loopback, and a client that sees every byte.

The client reads HTTP/1.1 by itself, so that it can tell a transfer that came
to its end from one that broke off. Nothing sleeps: a server is ready when it
takes connections, and is ended by its own process id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import waitress.server

ROOT = Path(__file__).parents[1]

#: Seconds after which a test that waits has failed.
PATIENCE = 30


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a client got.

    :param headers: names in lower case.
    :param complete: whether the body came to the end that its framing promised.
    :param body: the bytes that came, without framing.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "").removeprefix("cachemw; ")


class BrokenOff(Exception):
    """The connection ended before there was a whole head."""


class Client:
    """One request on a connection of its own.

    :param address: host and port.
    """

    def __init__(
        self,
        address: tuple[str, int],
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        method: str = "GET",
        body: bytes = b"",
    ) -> None:
        self.socket = socket.create_connection(address, PATIENCE)
        self._file = self.socket.makefile("rb")
        fields = [("Host", "test"), ("Connection", "close"), *headers]
        if body:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        self._method = method
        self._body: list[bytes] = []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Read status and fields.

        :raises BrokenOff: there was not so much.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise BrokenOff(line)
        status, headers = int(line.split(b" ")[1]), {}
        while (line := self._file.readline()) != b"\r\n":
            if not line.endswith(b"\r\n"):
                raise BrokenOff(line)
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return status, headers

    def read(self, size: int) -> bytes:
        """Read so many bytes of the body, or what there is before it breaks off."""
        try:
            return self._file.read(size)
        except OSError:
            return b""

    def leave(self) -> None:
        """Close with a reset, so that the server sees it at its next write."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def finish(self) -> Reply:
        """Read to the end."""
        try:
            status, headers = self.read_head()
            complete = self._read_body(status, headers)
        finally:
            self.close()
        return Reply(status, headers, b"".join(self._body), complete)

    def _read_body(self, status: int, headers: Mapping[str, str]) -> bool:
        if self._method == "HEAD" or status in (204, 304):
            return True
        try:
            if headers.get("transfer-encoding") == "chunked":
                return self._read_chunks()
            if "content-length" in headers:
                return self._keep(int(headers["content-length"]))
            # Only the end of the connection ends this one: nobody can tell.
            while block := self._file.read1(2**16):
                self._body.append(block)
            return True
        except (OSError, ValueError):
            return False

    def _read_chunks(self) -> bool:
        while True:
            size = int(self._file.readline(), 16)
            if not (self._keep(size) and self._file.readline() == b"\r\n"):
                return False
            if size == 0:
                return True

    def _keep(self, size: int) -> bool:
        while size:
            block = self._file.read1(min(size, 2**16))
            if not block:
                return False
            self._body.append(block)
            size -= len(block)
        return True


@dataclasses.dataclass
class Server:
    """A server that listens.

    :param pid: of the process that listens; for waitress this one.
    :param log: its messages.
    """

    address: tuple[str, int]
    pid: int
    log: Path | None = None

    def request(self, target: str, *headers: tuple[str, str], **options: Any) -> Reply:
        """Ask, and read to the end."""
        return self.begin(target, *headers, **options).finish()

    def begin(self, target: str, *headers: tuple[str, str], **options: Any) -> Client:
        """Ask, and read nothing yet."""
        return Client(self.address, target, headers, **options)

    def workers(self) -> list[int]:
        """Give the process ids of the processes that it has forked."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@contextlib.contextmanager
def gunicorn(
    app: str,
    log: Path,
    *,
    workers: int = 1,
    threads: int = 8,
    environ: Mapping[str, str] | None = None,
    python: str = sys.executable,
    patience: float = PATIENCE,
) -> Iterator[Server]:
    """Run gunicorn with threads on a free port, in a process group of its own.

    :param app: ``module:callable`` or ``module:factory()``.
    :param log: file for all that it says.
    :param environ: set beside this process's own environment.
    :param python: the interpreter that has gunicorn and the app.
    :param patience: seconds that it may take to start.
    """
    # The listener is made here and handed down, so that its port cannot be somebody else's.
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, open(log, "ab") as output:
        arguments = ["--workers", str(workers), "--threads", str(threads), "--worker-class"]
        arguments += ["gthread", "--bind", f"fd://{listener.fileno()}", "--graceful-timeout", "5"]
        process = subprocess.Popen(
            [python, "-m", "gunicorn", *arguments, "--no-control-socket", app],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        address = listener.getsockname()
    try:
        _wait_until_it_answers(address, process, log, patience)
        yield Server(address, process.pid, log)
    finally:
        _end(process)


def _wait_until_it_answers(
    address: tuple[str, int], process: subprocess.Popen[bytes], log: Path, patience: float
) -> None:
    """The socket takes connections from the start: whoever answers is there."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError, BrokenOff):
            Client(address, "/", method="OPTIONS").finish()
            return
    raise AssertionError(f"no answer: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own group, by its own id
        process.wait(PATIENCE)


@contextlib.contextmanager
def in_waitress(app: Any, threads: int = 4) -> Iterator[Server]:
    """Run waitress with an app in threads of this process."""
    server = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=threads)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Server(("127.0.0.1", server.effective_port), os.getpid())
    finally:
        # The loop of asyncore ends where its map is empty.
        server.trigger.pull_trigger(server.close)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def descriptors(pid: int) -> dict[str, str]:
    """Give what a process has open: number -> path."""
    found = {}
    directory = f"/proc/{pid}/fd"
    for number in os.listdir(directory):
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"{directory}/{number}")
    return found
