"""A disk that is full or broken costs hits, never a download.

Promise 3 of the design. Three ways to make trouble: calls that fail in
process, system calls that strace(1) makes fail, and a real full tmpfs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys

import pytest

from cachemw.core import capacity, pipeline
from cachemw.drivers._lock import MOST_NAMES
from cachemw.drivers.base import Record
from cachemw.errors import BadDriverConfiguration

from . import downloads
from .checks import assert_index_agrees, assert_sound, entry_files, opened
from .faults import Faults
from .origin import LARGE, body, download, image_id
from .zygote import ROOT

#: How each call fails. SQLite says the same in its own words.
ERRORS = {
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
}
SQLITE_ERRORS = {
    "full": lambda: sqlite3.OperationalError("database or disk is full"),
    "EIO": lambda: sqlite3.OperationalError("disk I/O error"),
    "corrupt": lambda: sqlite3.DatabaseError("database disk image is malformed"),
}

CALLS = {
    "write": ("pwrite", "write"),
    "sync": ("fsync",),
    "rename": ("rename", "replace"),
    "truncate": ("ftruncate",),
    "setxattr": ("setxattr",),
    "open": ("open",),
    "unlink": ("unlink",),
    "stat": ("stat", "fstat", "statvfs"),
}

#: Of these a full disk says nothing.
FAILS_BY = {
    **dict.fromkeys(CALLS, ("ENOSPC", "EIO")),
    **dict.fromkeys(("open", "unlink", "stat"), ("EIO",)),
}

FAULTS = [
    *((call, name, ERRORS[name]) for call in CALLS for name in ERRORS if name in FAILS_BY[call]),
    *(("sqlite", name, error) for name, error in SQLITE_ERRORS.items()),
]

#: "The first 50."
FIRST = range(1, 51)

#: The trouble is over at once, or stays for some images.
LASTING = {"once": FIRST, "on": range(1, 51, 7)}


def faulty_calls(call):
    return CALLS.get(call, (call,))


@pytest.mark.parametrize("lasting", LASTING)
@pytest.mark.parametrize(
    ("call", "name", "error"), [pytest.param(*f, id=f"{f[0]}-{f[1]}") for f in FAULTS]
)
def test_every_download_is_right_whichever_call_fails(
    driver_name, tmp_path, monkeypatch, call, name, error, lasting
):
    if call == "sqlite" and driver_name != "sqlite":
        pytest.skip("the xattr driver has no index")
    faults = Faults(faulty_calls(call), error, 0, 0)
    faults.install(monkeypatch)
    with opened(tmp_path / "cache", driver_name, **downloads.OPTIONS) as app:
        for nth in LASTING[lasting]:
            make_trouble(app, faults, nth, nth if lasting == "once" else math.inf)
        # It is over: everything is cached again.
        check_works(app)
    assert_sound(tmp_path / "cache", driver_name, (0, 7, LARGE, 12), **downloads.OPTIONS)


def make_trouble(app, faults, nth, last):
    """Download until the ``nth`` call failed, then some more."""
    faults.made = faults.failed = 0
    faults._first, faults._last = nth, last
    faults.on = True
    numbers = [12, *([7] if nth % 5 == 1 else []), *([LARGE] if nth % 15 == 1 else [])]
    try:
        for attempt in range(10 * nth):
            if faults.failed:
                break
            # Also those that are stored, so that entries are replaced.
            number = 24 + attempt % 5 * 12
            download(app, number, fresh=True).assert_right(number)
        assert faults.failed, f"call {nth} was never made"
        # What was stored of it, if anything, is right.
        download(app, number).assert_right(number)
        for number in numbers:
            download(app, number, fresh=True).assert_right(number)
            download(app, number).assert_right(number)
    except BaseException as exc:
        exc.add_note(f"call {nth} to {last}")
        raise
    finally:
        faults.on = False


def check_works(app):
    for number in (0, 7, LARGE, 12):
        download(app, number, fresh=True).assert_right(number)
        answer = download(app, number)
        answer.assert_right(number)
        assert answer.cache_status == "hit"
    assert app.app.open == 0
    # What could not be moved away stays, but is nobody's.
    for name in os.listdir(os.path.join(app.cache.driver.directory, "incomplete")):
        assert not app.cache.is_being_cached(name)


@pytest.mark.parametrize(
    ("call", "name", "error"), [pytest.param(*f, id=f"{f[0]}-{f[1]}") for f in FAULTS]
)
def test_trouble_at_the_start_is_refused_clearly_or_overcome(
    driver_name, tmp_path, monkeypatch, call, name, error
):
    """Nothing but ``BadDriverConfiguration`` leaves, and it names the directory."""
    faults = Faults(faulty_calls(call), error, 0, 0)
    faults.install(monkeypatch)
    for nth in range(1, 31):
        directory = tmp_path / f"cache-{nth}"
        faults.made = faults.failed = 0
        faults._first = faults._last = nth
        faults.on = True
        try:
            with opened(directory, driver_name, **downloads.OPTIONS) as app:
                download(app, 12).assert_right(12)
        except BadDriverConfiguration as exc:
            refusal = exc
        else:
            refusal = None
        finally:
            faults.on = False
        if refusal is not None:
            assert refusal.directory == str(directory)
            assert refusal.reason
            assert refusal.mend
        if not faults.failed:
            break
        with opened(directory, driver_name, **downloads.OPTIONS) as app:
            download(app, 12, fresh=True).assert_right(12)
            assert download(app, 12).cache_status == "hit"
    assert nth > 1 or call in ("unlink", "rename", "sqlite", "setxattr")


# Around the files


class NoThreads(concurrent.futures.ThreadPoolExecutor):
    """A pool at a limit of threads, or of an interpreter that is about to end."""

    left = 0

    def submit(self, *args, **kwargs):
        if NoThreads.left == 0:
            raise RuntimeError("can't start new thread")
        NoThreads.left -= 1
        return super().submit(*args, **kwargs)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_download_is_right_where_no_thread_can_start(driver_name, tmp_path, monkeypatch, allowed):
    """Whatever cannot be worked on beside the response is worked on in it, or not at all."""
    monkeypatch.setattr(pipeline, "_pool", None)
    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", NoThreads)
    monkeypatch.setattr(NoThreads, "left", allowed)
    with opened(tmp_path / "cache", driver_name, **downloads.OPTIONS) as app:
        download(app, LARGE).assert_right(LARGE)
        download(app, LARGE).assert_right(LARGE)
    if pipeline._pool is not None:
        pipeline._pool.shutdown()
    monkeypatch.setattr(pipeline, "_pool", None)


def test_download_is_right_if_free_space_cannot_be_told(driver_name, tmp_path, monkeypatch):
    """Also where that is found out in the middle of an image."""

    class Os:
        asked = 0

        def __getattr__(self, name):
            return getattr(os, name)

        def statvfs(self, path):
            self.asked += 1
            if self.asked > 1:
                raise ERRORS["EIO"]()
            return os.statvfs(path)

    monkeypatch.setattr(capacity, "STEP", 100_000)
    monkeypatch.setattr(capacity, "os", Os())
    with opened(tmp_path / "cache", driver_name, min_free=1) as app:
        download(app, 11).assert_right(11)
    assert capacity.os.asked > 1


# With strace

TRACED = {
    "write": "write,pwrite64",
    "sync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
}


@functools.cache
def strace_trouble():
    """Why strace cannot be used here, or an empty string."""
    if shutil.which("strace") is None:
        return "there is no strace"
    tried = subprocess.run(["strace", "-e", "trace=none", "true"], capture_output=True, text=True)
    return f"strace may not trace: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.fixture
def _strace():
    if strace_trouble():
        pytest.skip(strace_trouble())


def traced_paths(directory, from_the_start):
    """What is written, synced and renamed: fills' files, their directory and the index.

    ``-P`` takes a path for what it is called, so the files need not be there yet.
    """
    incomplete = directory / "incomplete"
    fills = {os.path.basename(image_id(n)) for n in downloads.NUMBERS if n % 2 == 0}
    paths = [directory, incomplete, directory / "cache.db", directory / "cache.db-wal"]
    paths += [incomplete / name for name in sorted(fills)]
    if from_the_start:
        paths += [directory / ".lock", directory / "cache.db-journal"]
    return [argument for path in paths for argument in ("-P", str(path))]


def run_traced(directory, driver, kind, error, nth, from_the_start=False):
    """Download with the ``nth`` call of each thread failing.

    :return: what the downloads reported, and how many calls failed.
    """
    report, log = directory.with_suffix(".report"), directory.with_suffix(".strace")
    inject = f"inject={TRACED[kind]}:error={error}:when={nth}"
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={TRACED[kind]}", "-e", inject]
    command += traced_paths(directory, from_the_start)
    command += [sys.executable, "-W", "error", "-m", "tests.crash.downloads"]
    command += [str(directory), driver, str(report)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    note = f"{driver} {kind} {error} {nth}: {ran.stderr[-3000:]}"
    assert ran.returncode == 0, note
    return json.loads(report.read_text()), len(re.findall(r"\(INJECTED\)", log.read_text())), note


def strace_cases(request, count):
    every = [(kind, error, nth) for kind in TRACED for error in ("ENOSPC", "EIO") for nth in FIRST]
    if request.config.getoption("--stress"):
        return every
    # The first of each, and some of the others.
    first = [case for case in every if case[2] == 1]
    return first + random.Random(count).sample(every, count)


@pytest.mark.usefixtures("_strace")
def test_every_download_is_right_with_failing_system_calls(driver_name, tmp_path, request):
    def one(case):
        kind, error, nth = case
        directory = tmp_path / f"cache-{kind}-{error}-{nth}"
        with opened(directory, driver_name, **downloads.OPTIONS) as app:
            download(app, 4).assert_right(4)
        result, injected, note = run_traced(directory, driver_name, *case)
        assert injected, note
        assert len(result["statuses"]) == len(downloads.NUMBERS), note
        # Most of it was cached as if nothing had been.
        assert sum("stored" in status for status in result["statuses"]) > 50, note
        return directory

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        directories = list(pool.map(one, strace_cases(request, 4)))
    for directory in directories:
        numbers = (0, 7, LARGE, 4)
        assert_sound(directory, driver_name, numbers, **downloads.OPTIONS)
        shutil.rmtree(directory)


@pytest.mark.usefixtures("_strace")
def test_trouble_with_system_calls_at_the_start(driver_name, tmp_path, request):
    def one(case):
        kind, error, nth = case
        directory = tmp_path / f"cache-{kind}-{error}-{nth}"
        result, injected, note = run_traced(directory, driver_name, *case, from_the_start=True)
        assert injected, note
        if "refused" in result:
            assert str(directory) in result["refused"]
        else:
            assert len(result["statuses"]) == len(downloads.NUMBERS), note

    cases = [
        (kind, error, nth) for kind in TRACED for error in ("ENOSPC", "EIO") for nth in range(1, 9)
    ]
    if not request.config.getoption("--stress"):
        cases = random.Random(1).sample(cases, 4)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(one, cases))


# A real small file system

#: Images of a page each, more than the directory's lock takes down by name.
SMALL = range(0, 12 * (MOST_NAMES + 5), 12)


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    # Lazily, since a test that failed may have files open there.
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_file_system_costs_hits_only(small_disk, driver_name):
    """Bounds that the file system cannot keep: only its own errors say that it is full."""
    options = {"max_size": 2**30, "min_free": 0}
    numbers = [LARGE, 7, 0, 3, LARGE, 11, 5, 43, 31, 55, LARGE, 67, 7, 0]
    with opened(small_disk / "cache", driver_name, **options) as app:
        for _ in range(3):
            for number in numbers:
                download(app, number).assert_right(number)
                download(app, number, fresh=True).assert_right(number)

        # What is asked for again and again fits in the end.
        for _ in range(3):
            download(app, 12).assert_right(12)
        app.cache.delete_all_cached_images()
        app.cache.clean(0)
        for number in (12, 7, 0):
            assert download(app, number).cache_status == "fwd=uri-miss; stored"
            assert download(app, number).cache_status == "hit"
        # Larger than all of it: passed on whole, and no trace of it kept.
        answer = download(app, number=LARGE)
        answer.assert_right(LARGE)
    assert_sound(small_disk / "cache", driver_name, (12, 0, 4), **options)


def test_full_file_system_of_others_costs_hits_only(small_disk, driver_name):
    """Somebody else fills the disk to the last byte, and later makes room again."""
    options = {"max_size": 2**30, "min_free": 0}
    others = small_disk / "others"
    with opened(small_disk / "cache", driver_name, **options) as app:
        download(app, 7).assert_right(7)
        fill_up(others)

        for number in (0, 7, LARGE, 12, 3, 4):
            download(app, number).assert_right(number)
            download(app, number, fresh=True).assert_right(number)
            download(app, number, method="DELETE")

        others.unlink()
        for number in (7, 12, 3):
            download(app, number, fresh=True).assert_right(number)
            assert download(app, number).cache_status == "hit"
    assert_sound(small_disk / "cache", driver_name, (12, 0, 4), **options)


def test_deleting_makes_room_on_a_full_file_system(small_disk, driver_name):
    """What is full must not keep one from making room."""
    options = {"max_size": 2**30, "min_free": 0}
    with opened(small_disk / "cache", driver_name, **options) as app:
        for number in (7, 19, 31, 43):
            download(app, number).assert_right(number)
        fill_up(small_disk / "others")
        download(app, 0).assert_right(0)

        assert app.cache.prune(1_000_000)[0] > 0
        assert app.cache.get_cache_size() <= 1_000_000
        assert app.cache.delete_all_cached_images() > 0

        download(app, 12).assert_right(12)
        assert download(app, 12).cache_status == "hit"


def test_what_no_index_knows_of_is_counted_and_evicted(small_disk, driver_name, caplog):
    """The last bytes of the device are an image's; the index cannot be written."""
    with opened(small_disk / "cache", driver_name, max_size=1_000_000) as app:
        cache, driver = app.cache, app.cache.driver
        for number in (0, 12):
            download(app, number).assert_right(number)
        before = driver.get_usage()
        sink = driver.start_fill("dog")
        sink.announce(Record("dog", 0, ""), 600_000)
        sink.write(bytes(600_000))
        other = driver.start_fill("cow")
        fill_up(small_disk / "others")
        sink.commit(Record("dog", 600_000, "md5:" + hashlib.md5(bytes(600_000)).hexdigest()))
        sink.close()
        assert cache.is_cached("dog")

        assert driver.get_usage() == before + 600_000
        assert cache.get_cache_size() == sum(entry_files(small_disk / "cache").values())
        # Room for another of that size is found only where this one goes.
        cache.capacity.make_room("cow", other, 600_000, 600_000)
        assert not cache.is_cached("dog")
        assert driver.get_usage() <= 1_000_000
        other.leave()
        other.close()

        os.unlink(small_disk / "others")
        download(app, 12).assert_right(12)
        assert_index_agrees(cache)
    assert caplog.text.count("to be repaired later") == (driver_name == "sqlite")


def test_eviction_goes_on_until_enough_is_free(small_disk, driver_name):
    """Also where each image that goes frees too little for the index to be told of it, and
    somebody takes the room at once."""
    with opened(small_disk / "cache", driver_name, max_size=2**30) as app:
        for number in SMALL:
            download(app, number).assert_right(number)
        directory = small_disk / "cache"
        others = small_disk / "others"
        fill_up(others)
        while files := entry_files(directory):
            assert app.cache.driver.evict(1)[0] == 1
            fill_up_more(others)
            left = entry_files(directory)
            assert len(left) == len(files) - 1
            assert app.cache.get_cache_size() == sum(left.values())
        assert app.cache.driver.evict(1) == (0, 0)
        os.unlink(others)
        download(app, 12).assert_right(12)
        assert_index_agrees(app.cache)


def test_eviction_needs_no_index(small_disk, driver_name):
    """One that cannot even be opened: its shared memory finds no room on a full disk."""
    with opened(small_disk / "cache", driver_name, max_size=2**30) as app:
        for number in (0, 7, 12):
            download(app, number).assert_right(number)
        if driver_name == "sqlite":
            app.cache.driver.index.close()
        fill_up(small_disk / "others")
        size = app.cache.get_cache_size()
        assert size == sum(entry_files(small_disk / "cache").values())
        assert app.cache.prune(0) == (3, size)


def fill_up_more(path):
    with open(path, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**12))


def fill_up(path):
    with open(path, "wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(size))


def test_image_larger_than_the_file_system_comes_whole(small_disk, driver_name):
    with opened(small_disk / "cache", driver_name, max_size=2**30, min_free=0) as app:
        fill_up(small_disk / "others")
        os.truncate(small_disk / "others", 2**20)  # 3 MiB are free, less our own directories
        for _ in range(2):
            answer = download(app, LARGE)
            answer.assert_right(LARGE)
            assert len(answer.body) == len(body(LARGE))
        download(app, 12).assert_right(12)
        assert download(app, 12).cache_status == "hit"
