"""What the benchmarks share: servers, load, turns and tables.

A figure of one run says little on a machine that others use too, so nothing
here is reported alone: a thing is measured in turns with a named reference,
and what counts is the ratio or difference within each round, its median and
its spread over the rounds.

Linux only: processor time and memory come from ``/proc``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import http.client
import importlib.util
import json
import mmap
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent

KIB, MIB, GIB = 2**10, 2**20, 2**30

#: The Host field of every request: an image keeps its id whatever the port.
HOST = "images.example"

#: Seconds that a server may take to answer its first request, or to end.
PATIENCE = 30


class BenchmarkError(Exception):
    """A run whose figures would mean nothing: the message says why."""


# The command line and the place to work in


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Make a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--rounds", type=positive, default=rounds, help="turns of each")
    made.add_argument("--quick", action="store_true", help="see that it works; figures are rough")
    made.add_argument("--json", metavar="FILE", help="write the figures there, too")
    made.add_argument(
        "--dir",
        metavar="DIR",
        default=str(HERE),
        help="where the temporary directory is made, and with it which disk is measured",
    )
    return made


def positive(text: str) -> int:
    """Read a count from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


@contextlib.contextmanager
def workplace(where: str, wanted: int = 0, inodes: int = 0) -> Iterator[Path]:
    """Give a new directory, removed at the end.

    :param wanted: bytes that must be free there.
    :param inodes: files that must be free there.
    :raises BenchmarkError: there is less.
    """
    device = os.statvfs(where)
    if device.f_bavail * device.f_frsize < wanted:
        raise BenchmarkError(f"{where}: {human(wanted)} of free space are needed (--dir)")
    # Some file systems make inodes as they go, and say 0.
    if device.f_files and device.f_favail < inodes:
        raise BenchmarkError(f"{where}: {inodes} free inodes are needed (df -i, --dir)")
    path = tempfile.mkdtemp(prefix=".bench-", dir=where)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


def make_file(path: Path, size: int) -> Path:
    """Write a file of random bytes; a block of 1 MiB repeats, changed a little each time."""
    block = bytearray(os.urandom(min(size, MIB)))
    with open(path, "wb") as file:
        for position in range(0, size, MIB):
            count = position.to_bytes(8, "big")[: size - position]
            block[: len(count)] = count
            file.write(memoryview(block)[: size - position])
    return path


def warm_memory(size: int) -> None:
    """Use so much memory and free it again, in another process.

    A virtual machine may get a page from its host only when it is first used,
    which takes longer than writing to it; pages freed a moment ago are there.
    """
    code = (
        "import mmap\n"
        f"memory = mmap.mmap(-1, {size})\n"
        f"for page in range(0, {size}, {mmap.PAGESIZE}): memory[page] = 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Servers


@dataclasses.dataclass
class Server:
    """A server under way.

    :param name: how the table calls it.
    :param port: on the loopback interface.
    :param log: what it says.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, method: str = "GET") -> http.client.HTTPResponse:
        """Get a whole answer and throw its body away.

        :raises BenchmarkError: it is not a whole 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers={"Host": HOST})
            answer = connection.getresponse()
            while answer.read(MIB):
                pass
        except (OSError, http.client.HTTPException) as exc:
            raise self.failed(f"{method} {path}: {exc!r}") from exc
        finally:
            connection.close()
        if answer.status != 200:
            raise self.failed(f"{method} {path}: {answer.status} {answer.reason}")
        return answer

    def failed(self, what: str) -> BenchmarkError:
        """Make the error that tells what went wrong, with the end of the server's log."""
        return BenchmarkError(
            f"{self.name}: {what}\n{self.log.read_text(errors='replace')[-3000:]}"
        )

    def cpu_seconds(self) -> float:
        """Give the processor time that its processes have used."""
        return sum(map(_cpu_seconds, process_tree(self.process.pid)))


@contextlib.contextmanager
def gunicorn(
    app: str, settings: Mapping[str, str], log: Path, *, threads: int = 8, workers: int = 1
) -> Iterator[Server]:
    """Run an app of ``_apps.py`` under gunicorn: gthread.

    :param settings: environment variables that the app reads.
    :param log: file for what the server says.
    """

    def command(port: int) -> list[str]:
        return [
            # -P: what is measured is what is installed, whatever the working directory holds.
            *(sys.executable, "-P", "-m", "gunicorn", f"_apps:{app}()", "--chdir", str(HERE)),
            *("--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"),
            *("--workers", str(workers), "--threads", str(threads), "--keep-alive", "75"),
            *(
                "--timeout",
                "600",
                "--graceful-timeout",
                "5",
                "--log-level",
                "warning",
                "--no-control-socket",
            ),
        ]

    with running(f"gunicorn {app}", command, settings, log) as server:
        yield server


def find_uwsgi() -> str | None:
    """Give the path of uWSGI: next to this Python, or on ``PATH``."""
    beside = os.path.dirname(sys.executable)
    for name in ("uwsgi", "pyuwsgi"):
        found = shutil.which(name, path=beside) or shutil.which(name)
        if found:
            return found
    return None


@contextlib.contextmanager
def uwsgi(
    app: str, settings: Mapping[str, str], log: Path, *, threads: int = 8
) -> Iterator[Server]:
    """Run an app of ``_apps.py`` under uWSGI: one process, HTTP with Keep-Alive.

    :param settings: environment variables that the app reads.
    :param log: file for what the server says.
    """

    def command(port: int) -> list[str]:
        return [
            *(find_uwsgi() or "uwsgi", "--http11-socket", f"127.0.0.1:{port}"),
            *("--module", f"_apps:{app}()", "--pythonpath", str(HERE), "--need-app"),
            *("--processes", "1", "--threads", str(threads), "--disable-logging"),
            # Without the second, each small answer on a kept connection waits for the
            # client's delayed acknowledgement: 40 ms.
            *("--socket-timeout", "600", "--tcp-nodelay", "--die-on-term"),
            *(["--virtualenv", sys.prefix] if sys.prefix != sys.base_prefix else []),
        ]

    with running(f"uWSGI {app}", command, settings, log) as server:
        yield server


#: The servers that are measured, by the name that the table has.
SERVERS = {"gunicorn": gunicorn, "uWSGI": uwsgi}


def servers() -> list[str]:
    """Give the names of those that are installed; the others are named on stderr."""
    there = {
        "gunicorn": importlib.util.find_spec("gunicorn") is not None,
        "uWSGI": find_uwsgi() is not None,
    }
    for name, found in there.items():
        if not found:
            print(f"{name} is not installed and is left out", file=sys.stderr)
    return [name for name, found in there.items() if found]


@contextlib.contextmanager
def running(
    name: str,
    command: Callable[[int], list[str]],
    settings: Mapping[str, str],
    log: Path,
) -> Iterator[Server]:
    """Run a server that listens on a port of our choice.

    :param name: how the table calls it.
    :param command: for a port.
    :param settings: environment variables.
    :param log: file for what it says.
    :raises BenchmarkError: it does not start.
    """
    environment = {**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": "1"}
    # Between choosing a port and binding it somebody else may take it.
    for _ in range(5):
        port = _free_port()
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command(port),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = Server(name, port, process, log)
        try:
            if _is_ready(server):
                break
        except BaseException:
            _end(process)
            raise
    else:
        raise server.failed("did not start")
    try:
        yield server
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _is_ready(server: Server) -> bool:
    """Wait until the port takes connections; ``False`` if the server ended before."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            return server.process.poll() is None
        except OSError:
            try:
                server.process.wait(timeout=0.02)
                return False
            except subprocess.TimeoutExpired:
                pass
    raise server.failed("takes no connections")


def _end(process: subprocess.Popen[bytes]) -> None:
    tree = process_tree(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        # Its children first: they would stay.
        for pid in reversed(tree):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


# Processes


def process_tree(pid: int) -> list[int]:
    """Give a process and all its descendants, parents first."""
    tree = [pid]
    for parent in tree:
        for task in Path(f"/proc/{parent}/task").glob("*"):
            with contextlib.suppress(OSError):
                tree += [int(child) for child in (task / "children").read_text().split()]
    return tree


def _cpu_seconds(pid: int) -> float:
    """Give what a process's living threads have used, in nanosecond steps.

    Source: the kernel's Documentation/scheduler/sched-stats.rst.
    """
    used = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            used += int((task / "schedstat").read_text().split()[0])
    return used / 1e9


def memory(pid: int, field: str) -> int:
    """Read ``VmRSS`` (now) or ``VmHWM`` (the peak) of a process, in bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    if match is None:
        raise BenchmarkError(f"/proc/{pid}/status has no {field}")
    return int(match[1]) * KIB


def free_memory() -> int:
    """Give the bytes of memory that nobody needs now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def forget_peak(pid: int) -> None:
    """Let the peak of a process's memory begin again at what it is now.

    Source: proc(5), ``/proc/pid/clear_refs``.
    """
    Path(f"/proc/{pid}/clear_refs").write_text("5")


# Load


@dataclasses.dataclass
class Load:
    """What some clients got.

    :param requests: answers that were read to their end.
    """

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def load(url: str, connections: int, seconds: float) -> Load:
    """Ask for one URL on kept connections for a while, from another process.

    :raises BenchmarkError: an answer was not a whole 200.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        return _client(url, "--connections", str(connections), "--seconds", str(seconds))
    duration = f"{max(1, round(seconds))}s"
    command = [wrk, "-t1", f"-c{connections}", f"-d{duration}", "-H", f"Host: {HOST}", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"wrk: {done.stdout}{done.stderr}")
    return parse_wrk(done.stdout)


def parse_wrk(text: str) -> Load:
    """Read the report of wrk.

    :raises BenchmarkError: it tells of errors, or cannot be read.
    """
    found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    trouble = re.search(r"^\s*(Socket errors:.*|Non-2xx.*)$", text, re.M)
    if found is None or trouble is not None:
        raise BenchmarkError(f"wrk: {trouble[1] if trouble else text}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[3]]
    return Load(int(found[1]), float(found[2]) * unit)


def download(url: str, times: int = 1) -> float:
    """Read an answer to its end so many times, from another process.

    :return: seconds for one, connecting not counted.
    :raises BenchmarkError: an answer was not a whole 200.
    """
    done = _client(url, "--connections", "1", "--requests", str(times))
    return done.seconds / done.requests


def _client(url: str, *options: str) -> Load:
    command = [sys.executable, str(HERE / "_client.py"), url, "--host", HOST, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"client: {done.stderr.strip()}")
    return Load(**json.loads(done.stdout))


# Turns


Figure = TypeVar("Figure")


def in_turns(rounds: int, measures: Mapping[str, Callable[[], Figure]]) -> dict[str, list[Figure]]:
    """Measure each, again and again.

    Every second round goes backwards, so that none is always first.

    :param measures: by name; each gives one figure, or several that belong together.
    :return: the figures of each, one a round.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in measures}
    for number in range(rounds):
        names = list(measures)
        for name in names if number % 2 == 0 else reversed(names):
            figures[name].append(measures[name]())
    return figures


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a measure of a function: the seconds that it takes."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return measure


# Results


@dataclasses.dataclass
class Row:
    """One line of a table.

    :param what: that was measured.
    :param unit: of the two medians.
    :param reference: figures of what it is compared with, one a round.
    :param measured: figures of the thing itself, in the same rounds.
    :param kind: ``"ratio"`` (measured over reference), ``"difference"``
        (measured less reference) or ``"itself"`` (the reference is only named).
    :param goal: for that; ``None``: there is none.
    :param at_least: whether the goal is a lower bound.
    """

    what: str
    unit: str
    reference: Sequence[float]
    measured: Sequence[float]
    kind: str = "ratio"
    goal: float | None = None
    at_least: bool = False

    @property
    def results(self) -> list[float]:
        """The ratio or difference in each round."""
        pairs = zip(self.measured, self.reference, strict=True)
        if self.kind == "ratio":
            return [mine / other for mine, other in pairs]
        if self.kind == "difference":
            return [mine - other for mine, other in pairs]
        return list(self.measured)

    @property
    def result(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.results)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; ``None``: there is none."""
        if self.goal is None:
            return None
        return self.result >= self.goal if self.at_least else self.result <= self.goal

    def cells(self) -> list[str]:
        """The line as text."""
        goal = "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        return [
            self.what,
            number(statistics.median(self.reference)),
            number(statistics.median(self.measured)),
            self.unit,
            self.kind,
            number(self.result),
            f"{number(min(self.results))} .. {number(max(self.results))}",
            goal,
            {None: "", True: "met", False: "MISSED"}[self.met],
        ]

    def as_json(self) -> dict[str, Any]:
        """The line with every round's figures."""
        return {
            **dataclasses.asdict(self),
            "result": self.result,
            "lowest": min(self.results),
            "highest": max(self.results),
            "met": self.met,
        }


#: The heads of a table's columns.
COLUMNS = ("what", "reference", "measured", "unit", "kind", "median", "spread", "goal", "")


def number(value: float) -> str:
    """A figure with three or four places that mean something."""
    if value == 0 or not 0.001 <= abs(value) < 1e6:
        return f"{value:.3g}"
    places = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:.{places}f}"


def human(size: int) -> str:
    """A size as people write it."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} bytes"


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns."""
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    left = {0, 3, 4, 6, 7, 8}
    return "\n".join(
        "  ".join(
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(name: str, reference: str, rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Print the table and, where it was asked for, write the figures as JSON.

    :param reference: what the second column is.
    """
    load1, _, _ = os.getloadavg()
    machine = f"{os.cpu_count()} processors, Python {platform.python_version()}, load {load1:.1f}"
    rounds = len(rows[0].measured) if rows else 0
    print(f"{name}: {rounds} rounds in turns; reference: {reference} ({machine})")
    print(table(rows), flush=True)
    if args.json:
        found = {
            "benchmark": name,
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "reference": reference,
            "options": vars(args),
            "rows": [row.as_json() for row in rows],
        }
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Be the script: what makes the figures worthless goes to stderr, status 1.

    Being told to end (SIGTERM) ends the servers and removes the directory, too.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(None)
    except BenchmarkError as exc:
        print(exc, file=sys.stderr)
        sys.exit(1)
