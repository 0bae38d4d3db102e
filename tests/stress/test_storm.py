"""Everything at once: a minute of it in every run, half an hour with ``--stress``.

Eight gunicorn workers with the filter and the proxy share a cache of half the
images, in front of an origin with bad moments (``storm/origin.py``). Two hundred
clients do whatever one can do with an image (``storm/clients.py``). Meanwhile
workers are killed and the file system runs full (``storm/trouble.py``), and
another process prunes, cleans and looks at the bounds (``storm/house.py``).

Then: not one byte was wrong, nothing failed that the origin answered
(``storm/judge.py``), the bounds held, nothing is left over, and hits are
counted exactly. ``CACHEMW_STORM_SEED`` repeats a run's choices, as far as the
machine does; ``CACHEMW_STORM_SECONDS`` sets how long it lasts, and
``CACHEMW_STORM_OPTIONS`` some of the filter's options, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw import ImageCache, names
from cachemw.core import pipeline
from cachemw.core.supervisor import PUMPS
from cachemw.drivers._states import fill_of
from tests.conftest import has_attributes
from tests.servers import PATIENCE, ROOT, Server, descriptors, gunicorn

from .storm import content, served
from .storm.clients import OPERATIONS, Clients
from .storm.judge import unforgiven
from .storm.trouble import Ballast, Killer, Watcher, held_by, tmpfs

WORKERS, THREADS, CLIENTS = 8, 25, 200

#: Half of all images.
MAX_SIZE = sum(content.SIZES) // 2

#: Bytes that the file system has beyond the cache's bound, while nobody else fills it.
SPARE = 64 * 2**20

#: Bytes of memory that it takes: the file system, the processes, and what is on its way.
MEMORY = 2 * 2**30

#: What a run must have seen in a minute, so that none passes by doing nothing.
LEAST = {
    "killed": 5,
    "looked": 100,
    "pruned": 5,
    "cleaned": 5,
    "200 hit": 300,
    "206 hit": 50,
    "304 hit": 20,
    "200 fwd=uri-miss; stored": 100,
    "200 fwd=uri-miss; collapsed": 50,
    "origin cut": 10,
    "origin 500": 10,
    "origin hung up": 2,
    **dict.fromkeys(OPERATIONS, 10),
}

#: Options that differ from run to run.
CHOICES: dict[str, list[Any]] = {
    "driver": ["sqlite", "xattr"],
    "verify_reads": ["size", "always"],
    "durability": ["none", "data"],
    "memory_size": [0, 2**22],
    "on_abort": ["finish", "discard", "50%"],
    "range_miss": ["pass", "queue", "fill", "slice"],
    "pump": ["any", "leader"],
    "follow_timeout": [2, 30],
}

#: What is asked for when all is over, 14 MB together: in ways that change nothing.
CALM_IMAGES = range(36)
CALM_OPERATIONS = ("whole", "range", "parts", "unchanged", "head", "leave")

#: In the cache directory beside entries, once all is over.
OWN_FILES = {"incomplete", "invalid", "queue", ".records", ".sums"}
OWN_FILES |= {".lock", ".deletions", ".asking", ".stats", ".upkeep"}
INDEX_FILES = {"cache.db", "cache.db-wal", "cache.db-shm"}

#: What an answer that the origin broke off, or replaced, leaves in the server's log. Each of
#: these ended a request, and whether that was excused is the judge's to say.
EXPECTED_ERRORS = (
    "cachemw.errors.UpstreamFailed",
    "cachemw.errors.LengthMismatch",
    "cachemw.core.growing.",
)


@dataclasses.dataclass
class Storm:
    """One run.

    :param root: where cache and ballast are.
    :param no_disk: why the file system cannot run full; ``None``: it can.
    """

    seed: str
    seconds: float
    root: Path
    no_disk: str | None
    options: dict[str, Any]
    log: Path
    origin_log: Path

    @property
    def directory(self) -> Path:
        return Path(self.options["dir"])


def available_memory() -> int:
    match = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) * 1024 if match else 0


def choose_options(choice: random.Random, root: Path) -> dict[str, Any]:
    """Give the filter's options, some as chance has it."""
    chosen = {name: choice.choice(values) for name, values in CHOICES.items()}
    if not has_attributes(root):
        chosen["driver"] = "sqlite"
    chosen.update(json.loads(os.environ.get("CACHEMW_STORM_OPTIONS", "{}")))
    return {
        "dir": str(root / "cache"),
        "driver_fallback": False,
        "max_size": MAX_SIZE,
        "min_free": 0,
        "routes": "/images/(?P<image_id>.+)",
        **chosen,
    }


@pytest.mark.timeout(300)
def test_storm_of_a_minute(tmp_path, capsys):
    weather(tmp_path, capsys, float(os.environ.get("CACHEMW_STORM_SECONDS", 60)))


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_storm_of_half_an_hour(tmp_path, capsys):
    weather(tmp_path, capsys, float(os.environ.get("CACHEMW_STORM_SECONDS", 1800)))


def weather(tmp_path: Path, capsys: Any, seconds: float) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("it looks into /proc")
    if available_memory() < MEMORY:
        pytest.skip(f"it takes {MEMORY} bytes of memory")
    seed = os.environ.get("CACHEMW_STORM_SEED") or str(random.SystemRandom().randrange(10**6))
    root = tmp_path / "disk"
    root.mkdir()
    with tmpfs(root, MAX_SIZE + SPARE) as no_disk:
        options = choose_options(random.Random(f"options {seed}"), root)
        logs = tmp_path / "gunicorn.log", tmp_path / "origin.log"
        storm = Storm(seed, seconds, root, no_disk, options, *logs)
        table: Counter[str] = Counter()
        try:
            run(storm, table)
        except BaseException as exc:
            exc.add_note(f"CACHEMW_STORM_SEED={seed}, options {options}")
            raise
        finally:
            with capsys.disabled():
                print(describe(storm, table))


def run(storm: Storm, table: Counter[str]) -> None:
    with origin(storm) as port:
        environ = {
            "TEST_CACHE_OPTIONS": json.dumps(storm.options),
            "TEST_ORIGIN": f"http://127.0.0.1:{port}",
            # Eight workers that begin at once on few processors take their time.
            "GUNICORN_CMD_ARGS": "--timeout 120",
        }
        app = "tests.stress.storm.served:application()"
        with gunicorn(app, storm.log, workers=WORKERS, threads=THREADS, environ=environ) as server:
            clients = Clients(server.address, storm.seed)
            blow(storm, server, clients, table)
            asyncio.run(ask(port, "/calm"))
            wait_until_idle(storm, server)
            check_hits(storm, server, clients)
            check_entries(storm, clients)
            check_workers(storm, server)
            check_directory(storm)
    errors = unexpected_errors(storm.log.read_text())
    assert not errors, listed(errors)


@contextlib.contextmanager
def origin(storm: Storm) -> Iterator[int]:
    """Run the origin; gives its port."""
    command = [sys.executable, "-m", "tests.stress.storm.origin"]
    command += [str(storm.origin_log), storm.seed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def ask(port: int, target: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {target} HTTP/1.1\r\nHost: origin\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


# The storm itself


def blow(storm: Storm, server: Server, clients: Clients, table: Counter[str]) -> None:
    """Let everything loose, and judge what came of it."""
    killer = Killer(server, WORKERS, 5, storm.seed)
    ballast = Ballast(storm.root / "ballast", storm.seed)
    watcher = Watcher(server, storm.directory)
    jobs = [killer.run, watcher.run] + ([] if storm.no_disk else [ballast.run])
    with keeping_house(storm) as report, in_threads(jobs):
        asyncio.run(clients.storm(CLIENTS, storm.seconds))
    log = [json.loads(line) for line in storm.origin_log.read_text().splitlines()]
    table.update(clients.seen)
    table.update(report["seen"])
    table.update({"killed": len(killer.kills), "disk full": ballast.times})
    table.update(f"origin {line['outcome']}" for line in log)
    table.update({f"most {kind}": count for kind, count in watcher.most.items()})
    table.update({f"most bytes by {kind}": count for kind, count in report["largest"].items()})

    assert not clients.wrong, listed(clients.wrong)
    assert not report["wrong"], listed(report["wrong"])
    failed = unforgiven(clients.failures, log, killer.kills)
    assert not failed, listed(failed)
    assert max(report["largest"].values()) <= MAX_SIZE, report["largest"]
    assert watcher.most["threads"] <= most_threads()
    # For each response under way: the entry or the fill, and now and then its record.
    assert watcher.most["files"] <= 2 * THREADS + 12
    # One worker may have accepted every client, while the others begin.
    assert watcher.most["descriptors"] <= CLIENTS + 3 * THREADS + 40
    scale = min(1.0, storm.seconds / 60)
    for what, least in LEAST.items():
        assert table[what] >= least * scale, f"only {table[what]} times {what}"
    assert storm.no_disk or table["disk full"] >= 3 * scale


@contextlib.contextmanager
def keeping_house(storm: Storm) -> Iterator[dict[str, Any]]:
    """Run the housekeeper; what it reports is there at the end of the block."""
    command = [sys.executable, "-m", "tests.stress.storm.house"]
    command += [json.dumps(storm.options), storm.seed]
    report: dict[str, Any] = {}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield report
            output, _ = process.communicate(timeout=PATIENCE)
            report.update(json.loads(output))
        finally:
            process.kill()


@contextlib.contextmanager
def in_threads(jobs: list[Any]) -> Iterator[None]:
    """Run jobs beside the block; what one raises is raised at its end."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guard(job: Any) -> None:
        try:
            job(stop)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=guard, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def most_threads() -> int:
    """Of one worker: the server's own, the fills', and those for hits, the queue and upkeep."""
    return 1 + THREADS + pipeline.THREADS + PUMPS + 6


# When it is over


@contextlib.contextmanager
def opened(storm: Storm) -> Iterator[ImageCache]:
    cache = ImageCache(**storm.options)
    try:
        yield cache
    finally:
        cache.close()


def wait_until_idle(storm: Storm, server: Server) -> None:
    """Until the last clients' fills are over: nobody holds one, and no worker is missing."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        workers = server.workers()
        if len(workers) == WORKERS and not any(
            "/incomplete/" in path for worker in workers for path in own_files(storm, worker)
        ):
            return
        time.sleep(0.1)
    raise AssertionError("fills are still under way")


def own_files(storm: Storm, worker: int) -> list[str]:
    """What a worker has open in the cache directory."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        return [path for path in descriptors(worker).values() if path.startswith(f"{storm.root}/")]
    return []


def counted(cache: ImageCache) -> Counter[int]:
    """Hits by image."""
    hits: Counter[int] = Counter()
    for image in cache.get_cached_images():
        hits[content.number_of(image["image_id"])] += image["hits"]
    return hits


def check_hits(storm: Storm, server: Server, clients: Clients) -> None:
    """No hit of the storm was counted twice, and in the calm after it each one once."""
    with opened(storm) as cache:
        for number, hits in settled(cache).items():
            known = clients.hits[number] + clients.unseen[number]
            assert hits <= known, f"image {number}: {hits} hits, {known} were seen or could be"
        # The last fills may have been given up on a full disk: now there is room for these.
        first = Clients(server.address, storm.seed)
        first.floors = clients.floors
        asyncio.run(be_calm(first, CALM_IMAGES, ["whole"]))
        assert not first.wrong, listed(first.wrong)
        assert not first.failures, listed(first.failures)
        before = settled(cache)
        assert set(before) >= set(CALM_IMAGES)
        calm = Clients(server.address, f"{storm.seed} calm")
        calm.floors = clients.floors
        asyncio.run(be_calm(calm, CALM_IMAGES, CALM_OPERATIONS))
        assert not calm.wrong, listed(calm.wrong)
        assert not calm.failures, listed(calm.failures)
        assert calm.hits.total() >= (len(CALM_OPERATIONS) - 1) * len(CALM_IMAGES)
        expected = before + calm.hits
        deadline = time.monotonic() + 10
        while counted(cache) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert settled(cache) == expected


def settled(cache: ImageCache) -> Counter[int]:
    """Hits by image, once no process has any left to write."""
    time.sleep(2.5)
    return counted(cache)


async def be_calm(clients: Clients, images: Sequence[int], operations: Sequence[str]) -> None:
    """Do one thing after the other with all images at once."""
    choice = random.Random("calm")
    for operation in operations:
        async with asyncio.TaskGroup() as group:
            for number in images:
                group.create_task(clients.do(operation, number, choice))


def check_entries(storm: Storm, clients: Clients) -> None:
    """Every entry is an image, in a version that may still be served."""
    with opened(storm) as cache:
        images = cache.get_cached_images()
        assert images
        for image in images:
            number = content.number_of(image["image_id"])
            with cache.driver.open_any(image["image_id"]) as entry:
                assert entry.record is not None
                tag = next(v for n, v in entry.record.headers if n.lower() == "etag")
                tagged, version = content.parse_tag(tag)
                assert tagged == number
                assert version >= clients.floors[number], f"image {number} is out of date"
                assert entry.size == content.size(number, version)
                at = 0
                while data := entry.pread(2**20, at):
                    place = content.first_difference(number, version, at, data)
                    assert place is None, f"image {number}, version {version}, byte {place}"
                    at += len(data)


def check_workers(storm: Storm, server: Server) -> None:
    """No worker has more than it needs to wait for the next request."""
    for worker in server.workers():
        kept = Counter(os.path.relpath(path, storm.directory) for path in own_files(storm, worker))
        # The directories and the index stay open; nothing of any image, nothing deleted.
        # Each process counts in a file of its own, which it has mapped.
        counted = {path for path in kept if path.endswith(".counts")}
        assert len(counted) <= 1, kept
        assert set(kept) - counted <= {".", *OWN_FILES, *INDEX_FILES}, kept
        assert kept.total() <= 12, kept
        sockets = sum(path.startswith("socket:") for path in descriptors(worker).values())
        # What waits for new clients, and for the origin; gunicorn has some of its own.
        assert sockets <= served.POOL + 4
        held = held_by(worker, storm.directory)
        assert held["descriptors"] <= 40, descriptors(worker)
        assert held["threads"] <= most_threads()


def check_directory(storm: Storm) -> None:
    """Nothing is left over but entries, and what may be gone on with."""
    directory = storm.directory
    entries = {path.name for path in directory.iterdir() if names.is_entry_name(path.name)}
    entries -= OWN_FILES
    assert {path.name for path in directory.iterdir()} - entries <= OWN_FILES | INDEX_FILES
    known = {
        names.entry_name(content.target(number).removeprefix("/images/"))
        for number in range(content.IMAGES)
    }
    assert entries <= known
    for path in (directory / "incomplete").iterdir():
        fill = fill_of(path.name)
        if fill is None:
            assert path.name in known
            assert not is_held(path), f"{path.name} is held by somebody"
        else:
            assert fill[0] in known
    with opened(storm) as cache:
        indexed = {names.entry_name(image["image_id"]) for image in cache.get_cached_images()}
        assert indexed == entries
        assert cache.get_cache_size() == sum((directory / name).stat().st_size for name in entries)
        cache.clean(0)
    assert os.listdir(directory / "incomplete") == []
    assert os.listdir(directory / "invalid") == []
    assert set(os.listdir(directory / ".records")) <= entries
    assert set(os.listdir(directory / ".sums")) <= entries


def is_held(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def unexpected_errors(log: str) -> list[str]:
    """Give the exceptions in the server's log that nothing of the storm explains."""
    found = []
    for trace in re.split(r"(?m)^Traceback \(most recent call last\):$", log)[1:]:
        if "of the above exception" in trace or "The above exception" in trace:
            continue  # the next one is what became of it
        # The lines of a trace are indented; what was raised is not.
        raised = next((line for line in trace.splitlines() if line and line[0] != " "), "")
        if not raised.startswith(EXPECTED_ERRORS):
            found.append(trace[:2000])
    return found


def listed(found: Sequence[object]) -> str:
    """Give the first few, in full: the report of a failed test would cut them."""
    return "\n".join([f"{len(found)} in all", *map(str, found[:5])])


def describe(storm: Storm, table: Counter[str]) -> str:
    """Say what happened, so that a run with too little of it is seen."""
    lines = ["", f"storm of {storm.seconds:g} s, seed {storm.seed}, {storm.options}"]
    if storm.no_disk:
        lines.append(f"  the file system did not run full: {storm.no_disk}")
    lines += [f"  {count:10} {what}" for what, count in sorted(table.items())]
    return "\n".join(lines)
