"""Real WSGI servers on loopback, and a client that sees every byte.

The client reads HTTP/1.1 by itself, so that it can tell a transfer that came
to its end from one that broke off. A server is ready when it answers, and is
ended by its own process id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
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

    @property
    def received(self) -> int:
        """Bytes of the body that :meth:`finish` has read by now, for other threads to look at."""
        return sum(map(len, self._body))

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
    worker_class: str = "gthread",
    options: Sequence[str] = (),
) -> Iterator[Server]:
    """Run gunicorn on a free port, in a process group of its own.

    :param app: ``module:callable`` or ``module:factory()``.
    :param log: file for all that it says.
    :param environ: set beside this process's own environment.
    :param python: the interpreter that has gunicorn and the app.
    :param patience: seconds that it may take to start.
    :param options: more of gunicorn's own.
    """
    # The listener is made here and handed down, so that its port cannot be somebody else's.
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        arguments = ["--workers", str(workers), "--threads", str(threads), "--worker-class"]
        arguments += [worker_class, "--bind", f"fd://{listener.fileno()}", *options]
        arguments += ["--graceful-timeout", "5", "--no-control-socket", app]
        process = _start([python, "-m", "gunicorn", *arguments], log, environ, [listener.fileno()])
        address = listener.getsockname()
    with _running(process, address, log, patience) as server:
        yield server


@contextlib.contextmanager
def uwsgi(
    app: str,
    log: Path,
    *,
    workers: int = 1,
    threads: int = 8,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run uWSGI on a free port: forks after the app is loaded, each process with threads."""
    address = ("127.0.0.1", _free_port())
    command = [
        *(uwsgi_path(), "--http11-socket", f"{address[0]}:{address[1]}", "--module", app),
        *("--master", "--processes", str(workers), "--threads", str(threads)),
        *("--die-on-term", "--disable-logging", "--need-app"),
        *("--home", sys.prefix, "--pythonpath", str(ROOT)),
    ]
    with _running(_start(command, log, environ), address, log, PATIENCE) as server:
        yield server


def uwsgi_path() -> str:
    """Where uWSGI is, if it is installed: on ``PATH`` or next to this Python."""
    return shutil.which("pyuwsgi") or str(Path(sys.executable).with_name("pyuwsgi"))


@contextlib.contextmanager
def waitress_process(
    app: str, log: Path, *, threads: int = 8, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run waitress on a free port, in a process of its own."""
    address = ("127.0.0.1", _free_port())
    listen = f"--listen={address[0]}:{address[1]}"
    command = [sys.executable, "-m", "waitress", listen, f"--threads={threads}", app]
    with _running(_start(command, log, environ), address, log, PATIENCE) as server:
        yield server


def _start(
    command: Sequence[str],
    log: Path,
    environ: Mapping[str, str] | None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,
        )


@contextlib.contextmanager
def _running(
    process: subprocess.Popen[bytes], address: tuple[str, int], log: Path, patience: float
) -> Iterator[Server]:
    try:
        _wait_until_it_answers(address, process, log, patience)
        yield Server(address, process.pid, log)
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


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
        time.sleep(0.02)
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
