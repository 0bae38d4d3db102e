"""Everything at once for a minute, on a real server.

Two gunicorn workers share a cache of half the images. Thirty clients download
them, wholly and in parts, leave early, delete, and replace; the cache is
pruned and cleaned meanwhile, and workers are killed. Whatever a client gets to
its end is right, the bound holds, and nothing is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from cachemw import CacheFilter, ImageCache, names
from tests.servers import BrokenOff, descriptors, gunicorn

SECONDS = 60
CLIENTS = 30
IMAGES = 50

#: From 1 KB to 8 MB, about 80 MB together.
SIZES = [int(1000 * 8000 ** (number / (IMAGES - 1))) for number in range(IMAGES)]
MAX_SIZE = sum(SIZES) // 2

VERSIONS = 4
CHUNK = 100_000


def body(number: int, version: int) -> memoryview:
    """A part of one block of noise that begins where no other does."""
    start = number * 4096 + version * 64
    return memoryview(noise())[start : start + SIZES[number] + version]


_noise: list[bytes] = []


def noise() -> bytes:
    if not _noise:
        _noise.append(random.Random(0).randbytes(max(SIZES) + 2**19))
    return _noise[0]


class Origin:
    """Images whose entity tag names number and version; ``X-Version`` chooses one.

    Every third comes without a length.
    """

    def __call__(self, environ, start_response):
        if not environ["PATH_INFO"].startswith("/images/"):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(os.getpid()).encode()]
        number = int(environ["PATH_INFO"].rpartition("/")[2])
        if environ["REQUEST_METHOD"] != "GET":
            start_response("204 No Content", [])
            return []
        version = int(environ.get("HTTP_X_VERSION", 0))
        data = body(number, version)
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Cache-Control", "public, max-age=3600"),
            ("ETag", f'"{number}.{version}"'),
        ]
        if number % 3:
            headers.append(("Content-Length", str(len(data))))
        if number % 5 == 0:
            headers.append(("X-Notes", "n" * 5000))
        start_response("200 OK", headers)
        return (bytes(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))


def application() -> CacheFilter:
    """What gunicorn serves."""
    return CacheFilter(Origin(), **json.loads(os.environ["TEST_CACHE_OPTIONS"]))


class Mayhem:
    """The clients, and what they saw."""

    def __init__(self, server, cache):
        self.server, self.cache = server, cache
        self.seen = Counter()
        self.wrong: list[str] = []
        self.largest = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, seconds, kill_every):
        jobs = [(self._be_client, (number,)) for number in range(CLIENTS)]
        jobs += [(self._watch_size, ()), (self._keep_house, ()), (self._kill, (kill_every,))]
        threads = [threading.Thread(target=self._guard, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    def _guard(self, job, arguments):
        try:
            job(*arguments)
        except Exception as exc:
            self._complain(f"{job.__name__}: {exc!r}")

    def _complain(self, text):
        with self._lock:
            self.wrong.append(text)
        self._stop.set()

    def _count(self, what):
        with self._lock:
            self.seen[what] += 1

    def _be_client(self, seed):
        choice = random.Random(f"client {seed}")
        while not self._stop.is_set():
            number = min(int(choice.paretovariate(0.6)) - 1, IMAGES - 1)
            if choice.random() < 0.5:
                number = choice.randrange(IMAGES)
            try:
                self._do_something(choice, number)
            except (BrokenOff, OSError):
                self._count("broken off")

    def _do_something(self, choice, number):
        what = choice.random()
        fields = [("X-Version", str(choice.randrange(VERSIONS)))]
        if choice.random() < 0.1:
            fields.append(("Cache-Control", "no-cache"))
        target = f"/images/{number}"
        if what < 0.03:
            self.server.request(target, method="DELETE")
            self._count("deleted")
        elif what < 0.2:
            client = self.server.begin(target, *fields)
            client.read(choice.randrange(SIZES[number]))
            client.leave()
            self._count("left")
        elif what < 0.4:
            start = choice.randrange(SIZES[number])
            stop = start + choice.randrange(1, SIZES[number])
            self._check(
                number, self.server.request(target, *fields, ("Range", f"bytes={start}-{stop}"))
            )
        else:
            self._check(number, self.server.request(target, *fields))

    def _check(self, number, reply):
        if not reply.complete:
            self._count("broken")
            return
        if reply.status not in (200, 206):
            self._count(f"status {reply.status}")
            return
        tagged, version = map(int, reply.headers["etag"].strip('"').split("."))
        expected = body(tagged, version)
        if reply.status == 206:
            start, stop, size = map(
                int,
                re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers["content-range"]).groups(),
            )
            if size != len(expected):
                self._complain(f"{number}: {size} bytes in {reply.headers}")
            expected = expected[start : stop + 1]
        if tagged != number or reply.body != expected:
            self._complain(f"wrong bytes for {number}: {reply.headers}")
        self._count(f"{reply.status} {reply.cache_status}")

    def _watch_size(self):
        """As somebody sees it who holds the directory's lock, so that nothing moves meanwhile."""
        directory = Path(self.cache.driver.directory)
        while not self._stop.wait(0.02):
            with self.cache.driver.exclusive():
                size = sum(
                    file.stat().st_size
                    for where in (directory, directory / "incomplete", directory / "invalid")
                    for file in where.iterdir()
                    if file.is_file() and (where != directory or names.is_entry_name(file.name))
                )
            self.largest = max(self.largest, size)
            self._count("looked")

    def _keep_house(self):
        choice = random.Random("house")
        while not self._stop.wait(choice.uniform(0.2, 1)):
            if choice.random() < 0.5:
                self.cache.prune(choice.randrange(MAX_SIZE))
                self._count("pruned")
            else:
                self.cache.clean(0)
                self._count("cleaned")

    def _kill(self, every):
        choice = random.Random("kill")
        while not self._stop.wait(choice.uniform(every / 2, every)):
            workers = self.server.workers()
            if len(workers) == 2:
                os.kill(choice.choice(workers), signal.SIGKILL)
                self._count("killed")


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_mayhem(driver_name, tmp_path, capsys):
    options = {
        "dir": str(tmp_path / "cache"),
        "driver": driver_name,
        "driver_fallback": False,
        "max_size": MAX_SIZE,
        "max_image_size": 9_000_000,
        "min_free": 0,
    }
    app = "tests.stress.test_mayhem:application()"
    environ = {"TEST_CACHE_OPTIONS": json.dumps(options)}
    with gunicorn(app, tmp_path / "log", workers=2, threads=8, environ=environ) as server:
        cache = ImageCache(**options)
        mayhem = Mayhem(server, cache)
        try:
            mayhem.run(SECONDS, kill_every=3)
            with capsys.disabled():
                print(f"\n{driver_name}: at most {mayhem.largest} of {MAX_SIZE} bytes")
                for what, count in sorted(mayhem.seen.items()):
                    print(f"  {count:6} {what}")
            assert mayhem.wrong == []
            assert mayhem.largest <= MAX_SIZE
            assert_was_mayhem(mayhem.seen)
            wait_until_idle(server, cache)
            assert_nothing_left_over(server, cache)
            assert_all_right(server)
        finally:
            cache.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def assert_was_mayhem(seen):
    for what in ("killed", "pruned", "cleaned", "left", "deleted", "looked", "200 hit", "206 hit"):
        assert seen[what] > 5, what
    assert seen["200 fwd=uri-miss; stored"] > 50


def wait_until_idle(server, cache):
    """Until the last clients' fills are over: each worker answers, and nobody holds a fill."""
    deadline = time.monotonic() + 30
    directory = Path(cache.driver.directory)
    while time.monotonic() < deadline:
        server.request("/idle")
        if not any(
            own_descriptors(worker, directory / "incomplete") for worker in server.workers()
        ):
            return
    raise AssertionError("fills are still under way")


def own_descriptors(worker, directory):
    with contextlib.suppress(FileNotFoundError, PermissionError):
        return [path for path in descriptors(worker).values() if path.startswith(f"{directory}/")]
    return []


def assert_nothing_left_over(server, cache):
    directory = Path(cache.driver.directory)
    cache.clean(0)
    assert os.listdir(directory / "incomplete") == []
    assert os.listdir(directory / "invalid") == []
    entries = {file.name for file in directory.iterdir() if names.is_entry_name(file.name)}
    assert set(os.listdir(directory / ".records")) <= entries
    listed = {names.entry_name(image["image_id"]) for image in cache.get_cached_images()}
    assert listed == entries - {"incomplete", "invalid", "queue"}
    for worker in server.workers():
        # The directories and the index stay open; nothing of any image, nothing deleted.
        kept = ["incomplete", "invalid", "queue", ".records", ".sums"]
        kept += [".asking", ".upkeep", "cache.db", "cache.db-wal", "cache.db-shm"]
        open_files = own_descriptors(worker, directory)
        opened = {os.path.relpath(path, directory) for path in open_files}
        assert {path for path in opened if not path.startswith(".stats/")} <= set(kept)
        assert len(open_files) < 12


def assert_all_right(server):
    for number in range(IMAGES):
        for _ in range(2):
            reply = server.request(f"/images/{number}")
            assert (reply.status, reply.complete) == (200, True)
            version = int(reply.headers["etag"].strip('"').split(".")[1])
            assert reply.body == body(number, version)
        assert reply.cache_status == "hit"
