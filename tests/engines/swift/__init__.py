"""OpenStack Swift on loopback: one replica, TempAuth, the released package from PyPI.

The servers run in a virtual environment of their own, which is kept between
runs (``CACHEMW_ENGINES_DIR``, by default ``/tmp/cachemw-engines``). They have
one process each and end with the process that started them, however it ends.

Imports: servers of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import cachemw
from tests.servers import Client, Reply

HERE = Path(__file__).parent

#: Where the virtual environments of engines are kept.
ENGINES = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / "cachemw-engines"

#: What is installed. The newest release is what operators get.
PACKAGES = ("swift",)

#: Seconds after which a server that does not answer has failed.
PATIENCE = 60

#: Our filter is right of TempAuth, so that the authorize callback is set when it is called, and
#: right of ``slo`` and ``dlo``, so that it sees each segment as an object with an MD5 and a
#: container of its own. (A 304 for a large object says nothing of who may read its segments.)
PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats tempurl tempauth"
    " copy slo dlo versioned_writes symlink cachemw proxy-server"
)

KINDS = ("account", "container", "object")

_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(eq=False)
class Process:
    """A server of Swift's.

    :param log: its messages.
    """

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


class Proxy(Process):
    """A proxy that listens, and requests to it."""

    def begin(
        self, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b""
    ) -> Client:
        """Ask, and read nothing yet."""
        return Client(("127.0.0.1", self.port), target, headers, method, body)

    def request(
        self, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b""
    ) -> Reply:
        """Ask, and read to the end."""
        if method in ("PUT", "POST") and not body:
            headers = (*headers, ("Content-Length", "0"))
        return self.begin(target, *headers, method=method, body=body).finish()

    def token(self, user: str, key: str = "secret") -> tuple[str, str]:
        """Log in. :return: the field that carries the token."""
        reply = self.request("/auth/v1.0", ("X-Auth-User", f"test:{user}"), ("X-Auth-Key", key))
        assert reply.status == 200, reply
        return "X-Auth-Token", reply.headers["x-auth-token"]


class Swift:
    """A cluster of one node; proxies are started on it one by one.

    :param base: directory for all that it keeps, on a file system with extended attributes.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.etc = base / "etc"
        self.storage: dict[str, Process] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Swift]:
        """Make the rings and run the storage servers."""
        install()
        (self.base / "node" / "d1").mkdir(parents=True)
        self.etc.mkdir()
        self._link_package()
        (self.etc / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = cachemw\nswift_hash_path_prefix = cachemw\n"
            "[swift-constraints]\nmax_file_size = 107374182400\n"
        )
        with contextlib.ExitStack() as stack:
            for kind in KINDS:
                port = _free_port()
                self._make_ring(kind, port)
                conf = self._write_conf(
                    "storage-server.conf", kind, port=port, kind=kind, devices=self.base / "node"
                )
                self.storage[kind] = stack.enter_context(self._run(Process, kind, conf, port))
            yield self

    @contextlib.contextmanager
    def proxy(
        self, name: str, pipeline: str = PIPELINE, options: Mapping[str, object] | None = None
    ) -> Iterator[Proxy]:
        """Run a proxy.

        :param name: tells its files from those of other proxies.
        :param options: of our filter.
        """
        port = _free_port()
        lines = "\n".join(f"{key} = {value}" for key, value in (options or {}).items())
        conf = self._write_conf(
            "proxy-server.conf", name, port=port, pipeline=pipeline, options=lines
        )
        with self._run(Proxy, "proxy", conf, port) as proxy:
            yield proxy

    @contextlib.contextmanager
    def proxy_of(self, conf: str, directory: Path) -> Iterator[Proxy]:
        """Run a proxy by an operator's file, but for its port, its directories and memcached.

        :param conf: text of the file.
        :param directory: for what is cached.
        """
        port = _free_port()
        for theirs, ours in (
            ("bind_port = 8080", f"bind_port = {port}"),
            ("swift_dir = /etc/swift", f"swift_dir = {self.etc}"),
            ("dir = /var/cache/cachemw", f"dir = {directory}"),
            ("workers = 1", "workers = 0\nlog_address ="),
            ("use = egg:swift#memcache", "paste.filter_factory = swift_memory:filter_factory"),
        ):
            if theirs not in conf:
                raise ValueError(f"the file has no line {theirs!r}")
            conf = conf.replace(theirs, ours)
        path = self.etc / "operator.conf"
        path.write_text(conf)
        with self._run(Proxy, "proxy", path, port) as proxy:
            yield proxy

    def object_requests(self) -> list[str]:
        """Give the lines that the object server has logged of requests, the oldest first."""
        text = self.storage["object"].log.read_text()
        return [line for line in text.splitlines() if '" ' in line and "/d1/" in line]

    def _link_package(self) -> None:
        """Lay out our package for the proxy, without the rest of this environment."""
        site = self.base / "site"
        ours = importlib.metadata.distribution("cachemw")
        metadata = site / f"cachemw-{ours.version}.dist-info"
        metadata.mkdir(parents=True)
        (site / "cachemw").symlink_to(Path(cachemw.__file__).parent)
        (site / "swift_memory.py").symlink_to(HERE / "memory.py")
        (metadata / "METADATA").write_text(f"Name: cachemw\nVersion: {ours.version}\n")
        (metadata / "entry_points.txt").write_text(ours.read_text("entry_points.txt") or "")

    def _write_conf(self, template: str, name: str, **values: object) -> Path:
        path = self.etc / f"{name}.conf"
        text = (HERE / template).read_text()
        path.write_text(text.format(etc=self.etc, **values))
        return path

    def _make_ring(self, kind: str, port: int) -> None:
        builder = f"{kind}.builder"
        for arguments in (
            ["create", "4", "1", "0"],
            ["add", f"r1z1-127.0.0.1:{port}/d1", "1"],
            ["rebalance"],
        ):
            subprocess.run(
                [_program("swift-ring-builder"), builder, *arguments],
                cwd=self.etc,
                stdout=subprocess.DEVNULL,
                check=True,
            )

    @contextlib.contextmanager
    def _run(self, kind_of: type[Process], kind: str, conf: Path, port: int) -> Iterator[Process]:
        log = self.base / f"{conf.stem}.log"
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [_program(f"swift-{kind}-server"), str(conf), "--verbose"],
                env={
                    **os.environ,
                    "PYTHONPATH": str(self.base / "site"),
                    "SWIFT_DIR": str(self.etc),
                    "PYTHONWARNINGS": "ignore",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,
            )
        try:
            server = kind_of(port, process, log)
            _wait_until_healthy(server)
            yield server
        finally:
            _end(process)


def install() -> None:
    """Make the virtual environment if there is none."""
    directory = ENGINES / "swift"
    if (directory / "bin" / "swift-proxy-server").exists():
        return
    ENGINES.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
    subprocess.run([directory / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)


def version() -> str:
    """Give the version of Swift that runs."""
    command = [_program("pip"), "list", "--format", "json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return next(package["version"] for package in found if package["name"] == "swift")


def _program(name: str) -> str:
    return str(ENGINES / "swift" / "bin" / name)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_healthy(server: Process) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        with contextlib.suppress(OSError, ValueError):
            if Client(("127.0.0.1", server.port), "/healthcheck").finish().status == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"no answer: {server.log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
