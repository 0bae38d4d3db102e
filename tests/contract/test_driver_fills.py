"""What a fill shows other processes, over every driver."""

import contextlib
import os
import threading
import time

import pytest

from cachemw.drivers.base import CHUNK, Record
from cachemw.errors import DriverError, FillUnderWay

from .drivers import (
    LONG_HEADERS,
    assert_sound,
    begin,
    fills,
    in_incomplete,
    open_descriptors,
    open_driver,
    pattern,
    read,
    record_of,
    settled_descriptors,
    store,
)

BODY = pattern(3 * CHUNK + 1000)


@pytest.fixture
def other(make_driver, driver):
    """Another instance, as another process has it."""
    return make_driver()


def looking(driver, image_id="cat", variant=0):
    return contextlib.closing(driver.tail(image_id, variant))


def test_there_is_no_tail_without_a_fill(driver):
    store(driver, "cat")

    assert driver.tail("cat") is None
    assert driver.tail("none") is None


def test_before_it_is_announced_a_fill_is_only_alive(driver, other):
    sink = driver.start_fill("cat")
    with looking(other) as tail:
        state = tail.state()
        assert (state.record, state.length, state.readable, state.outcome) == (None, None, 0, "")
        assert tail.is_alive()
        assert tail.pread(10, 0) == b""
    sink.leave()


@pytest.mark.parametrize("length", [None, 0, len(BODY), 2**62])
def test_a_fill_shows_what_was_announced(driver, other, length):
    record = Record("cat", 0, "", LONG_HEADERS, (("accept", None),), 12.5, 3.0, guarded=True)
    sink = driver.start_fill("cat")
    sink.announce(record, length)
    with looking(other) as tail:
        state = tail.state()
        assert state.length == length
        for name in ("image_id", "size", "checksum", "headers", "vary", "stored", "guarded"):
            assert getattr(state.record, name) == getattr(record, name)
    sink.leave()


def test_a_variant_is_a_fill_of_its_own(driver, other):
    sink = begin(driver, "cat", variant=3)

    assert other.tail("cat") is None
    with looking(other, variant=3) as tail:
        assert tail.state().record.variant == 3
    sink.leave()


def test_readers_get_what_was_published_and_no_more(driver, other):
    sink = begin(driver, "cat", len(BODY))
    sink.reserve(len(BODY))
    sink.write(BODY)
    with looking(other) as tail:
        assert tail.state().readable == 0
        assert tail.pread(10, 0) == b""
        sink.publish(CHUNK + 5)
        assert tail.state().readable == CHUNK + 5
        assert tail.pread(10**9, 3) == BODY[3 : CHUNK + 5]
        assert tail.pread(10, CHUNK) == BODY[CHUNK : CHUNK + 5]
        assert tail.pread(10, CHUNK + 5) == b""
        assert tail.pread(10, 10**18) == b""
    sink.leave()


def test_a_writer_learns_how_far_readers_want_to_go(driver, other):
    sink = begin(driver, "cat", len(BODY))
    assert sink.wanted() == 0
    with looking(other) as tail, looking(driver) as second:
        tail.want(500)
        assert sink.wanted() == 500
        second.want(300)
        assert sink.wanted() == 500
        second.want(2**60)
        assert sink.wanted() == 2**60
    sink.leave()


@pytest.mark.parametrize("size", [0, 1, CHUNK, len(BODY)])
def test_a_tail_outlives_the_commit(driver, other, size):
    sink = begin(driver, "cat", size)
    with looking(other) as tail:
        sink.write(BODY[:size])
        sink.publish(size // 2)
        sink.commit(record_of("cat", BODY[:size]))
        state = tail.state()
        assert (state.outcome, state.readable) == ("committed", size)
        assert not tail.is_alive()
        other.delete_cached_image("cat")
        assert tail.pread(10**9, 0) == BODY[:size]
    assert other.tail("cat") is None
    assert in_incomplete(driver) == []


def test_an_image_that_turned_out_wrong_is_told(driver, other):
    sink = begin(driver, "cat")
    sink.write(BODY)
    sink.publish(100)
    with looking(other) as tail:
        sink.rollback("md5 is 1, not 2")
        assert tail.state().outcome == "failed: md5 is 1, not 2"
        assert tail.state().readable == 100
        assert tail.pread(10**9, 0) == BODY[:100]
        assert not tail.is_alive()
    assert other.tail("cat") is None
    assert in_incomplete(driver) == []
    assert driver.get_invalid_images()[0]["size"] == len(BODY)
    assert_sound(driver)


def test_an_app_that_broke_off_is_no_word_against_the_image(driver, other):
    sink = begin(driver, "cat")
    sink.write(BODY)
    with looking(other) as tail:
        sink.rollback("the app hung up", is_wrong=False)
        assert tail.state().outcome == "broken: the app hung up"
        assert not tail.is_alive()
    assert other.tail("cat") is None
    assert in_incomplete(driver) == []
    assert driver.get_invalid_images()[0]["reason"] == "the app hung up"
    assert_sound(driver)


@pytest.mark.parametrize("reason", ["x" * 5000, "\N{SNOWMAN}" * 500, "lone \udcff", ""])
def test_any_reason_can_be_told(driver, other, reason):
    sink = begin(driver, "cat")
    with looking(other) as tail:
        sink.rollback(reason)
        told = tail.state().outcome.removeprefix("failed: ")
        assert reason.encode("utf-8", "replace").decode().startswith(told)
        assert len(told.encode()) > 400 or told == reason.encode("utf-8", "replace").decode()


def test_trouble_of_the_cache_says_nothing_against_the_image(driver, other):
    def fail_to_commit(sink):
        with pytest.raises(DriverError):
            sink.commit(record_of("cat", BODY))

    for end in (lambda sink: sink.rollback("no room", keep=False), fail_to_commit):
        sink = begin(driver, "cat")
        sink.write(BODY[:-1])
        with looking(other) as tail:
            end(sink)
            assert tail.state().outcome.startswith("declined: ")
            assert not tail.is_alive()
        assert in_incomplete(driver) == []


def test_an_answer_that_is_not_stored_is_told_and_leaves_nothing(driver, other):
    sink = begin(driver, "cat")
    sink.write(BODY)
    with looking(other) as tail:
        sink.leave(declined="no-store")
        assert tail.state().outcome == "declined: no-store"
        assert not tail.is_alive()
    assert other.tail("cat") is None
    assert in_incomplete(driver) == []
    assert driver.get_usage() == 0


def test_a_deleted_image_goes_on_for_its_followers_and_for_nobody_else(driver, other):
    sink = begin(driver, "cat")
    sink.write(BODY)
    sink.publish(10)
    with looking(other) as tail:
        assert (tail.is_current(), sink.is_current()) == (True, True)
        other.delete_cached_image("cat")
        assert (tail.is_current(), sink.is_current()) == (False, False)
        assert other.tail("cat") is None
        sink.publish(20)
        assert (tail.state().outcome, tail.is_alive()) == ("", True)
        assert tail.pread(100, 0) == BODY[:20]
        assert in_incomplete(driver) == []
        again = begin(other, "cat")
        with pytest.raises(DriverError, match="deleted"):
            sink.commit(record_of("cat", BODY))
        # It is right, and those who read it have all of it.
        assert (tail.state().outcome, tail.is_alive()) == ("verified", False)
        assert tail.state().readable == len(BODY)
        assert tail.pread(10**9, 0) == BODY
        with looking(driver) as second:
            assert second.is_alive()
        again.write(b"new")
        again.commit(record_of("cat", b"new"))
    assert read(driver, "cat") == b"new"
    assert in_incomplete(driver) == []


def test_who_comes_second_learns_that_a_fill_is_under_way(driver, other):
    sink = driver.start_fill("cat")
    for second in (driver, other):
        with pytest.raises(FillUnderWay):
            second.start_fill("cat")
    with looking(other) as tail:
        assert tail.is_alive()
    sink.leave()
    other.start_fill("cat").leave()


def test_looking_whether_a_writer_lives_keeps_nobody_from_becoming_it(driver, other):
    store_nothing = driver.start_fill("cat")
    stop = threading.Event()
    with looking(other) as tail:
        looks = [0]

        def look():
            while not stop.is_set():
                tail.is_alive()
                looks[0] += 1

        thread = threading.Thread(target=look)
        thread.start()
        store_nothing.leave()
        try:
            for _ in range(300):
                driver.start_fill("cat").leave()
        finally:
            stop.set()
            thread.join()
        assert looks[0]


def test_writes_may_come_in_any_order(driver, other):
    sink = begin(driver, "cat", len(BODY))
    pieces = [(2 * CHUNK - 7, len(BODY)), (100, 2 * CHUNK), (0, 5), (3, 200)]
    for start, stop in pieces:
        assert sink.write(BODY[start:stop], start) == stop - start
    assert sink.written == 200
    assert sink.pread(10**9, 0) == BODY
    with pytest.raises(DriverError, match="written"):
        sink.commit(record_of("cat", BODY + b"x"))

    sink = begin(driver, "cat", len(BODY))
    for start, stop in pieces:
        sink.write(BODY[start:stop], start)
    sink.commit(record_of("cat", BODY))
    assert read(other, "cat") == BODY
    with other.open_for_read("cat") as entry:
        sums = other.sums(entry)
        assert all(sums.check(n, BODY[n * CHUNK :][:CHUNK]) for n in range(4))


def test_an_image_with_a_hole_is_not_stored(driver):
    sink = begin(driver, "cat", len(BODY))
    sink.reserve(len(BODY))
    sink.write(BODY[:100])
    sink.write(BODY[101:], 101)
    assert sink.pread(10**9, 0) == BODY[:100]
    assert sink.pread(10**9, 100) == b""
    with pytest.raises(DriverError, match="written"):
        sink.commit(record_of("cat", BODY))

    assert not driver.is_cached("cat")
    assert_sound(driver)


def test_what_comes_after_the_end_does_nothing(driver):
    for end in (
        lambda sink: sink.commit(record_of("cat", b"image")),
        lambda sink: sink.rollback("wrong"),
        lambda sink: sink.leave(),
    ):
        sink = begin(driver, "cat")
        sink.write(b"image")
        end(sink)
        there = sorted(os.listdir(driver.directory)), in_incomplete(driver)
        sink.announce(Record("cat", 0, ""), 5)
        sink.reserve(10)
        sink.write(b"more")
        sink.publish(9)
        assert sink.wanted() == 0
        sink.commit(record_of("cat", b"imagemore"))
        sink.rollback("wrong")
        sink.leave("no")
        sink.close()
        sink.close()
        assert (sorted(os.listdir(driver.directory)), in_incomplete(driver)) == there
        driver.clean(0)
    assert read(driver, "cat") == b"image"


def test_a_closed_tail_gives_a_drivers_error_and_no_other_files_bytes(driver, other, tmp_path):
    sink = begin(driver, "cat")
    sink.write(BODY)
    sink.publish(100)
    before = settled_descriptors()
    tail = other.tail("cat")
    tail.close()
    tail.close()
    assert open_descriptors() == before
    (tmp_path / "another").write_bytes(b"another")
    with open(tmp_path / "another", "r+b"), open(tmp_path / "another", "r+b"):
        for call in (tail.state, lambda: tail.pread(5, 0)):
            with pytest.raises(DriverError):
                call()
        tail.want(5)
        assert not tail.is_alive()
    assert (tmp_path / "another").read_bytes() == b"another"
    sink.leave()


def test_fills_and_tails_leak_no_descriptors(driver, other):
    def everything():
        sink = begin(driver, "cat")
        tail = other.tail("cat")
        sink.write(BODY)
        tail.state()
        sink.leave()
        sink.close()
        sink = driver.start_fill("cat")
        sink.announce(Record("cat", 0, ""), None, keep=False)
        sink.commit(record_of("cat", b""))
        sink.close()
        tail.close()
        driver.get_partial_images()
        driver.get_usage()
        with other.open_for_read("cat") as entry:
            other.sums(entry)

    everything()
    before = settled_descriptors()
    for _ in range(3):
        everything()
    assert open_descriptors() == before


FOLLOW = """
import sys, time
from tests.contract.drivers import *
driver = open_driver(sys.argv[1], sys.argv[2])
size = int(sys.argv[3])
body = pattern(size)
tail = None
while tail is None:
    tail = driver.tail("cat")
print("there", flush=True)
position = 0
while True:
    state = tail.state()
    while position < state.readable:
        data = tail.pread(100_000, position)
        assert data == body[position : position + len(data)], position
        position += len(data)
    if state.outcome or not tail.is_alive():
        break
    tail.want(position + 1)
    time.sleep(0.001)
print(tail.state().outcome, position, flush=True)
"""


def test_another_process_follows_a_fill_to_its_end(driver, driver_name, tmp_path, start_python):
    body = pattern(2_000_000)
    sink = begin(driver, "cat", len(body))
    followers = [start_python(FOLLOW, driver_name, tmp_path / "cache", len(body)) for _ in range(2)]
    for follower in followers:
        assert follower.stdout.readline().split() == ["there"]
    for start in range(0, len(body), 50_000):
        while sink.wanted() <= start:
            time.sleep(0.001)
        sink.write(body[start : start + 50_000])
        sink.publish(start + 50_000)
    sink.commit(record_of("cat", body))
    for follower in followers:
        out, _ = follower.communicate(timeout=60)
        assert out.split() == ["committed", str(len(body))]
        assert follower.returncode == 0


def test_a_child_of_fork_holds_no_fill_of_its_parent(driver, driver_name, tmp_path, run_python):
    run_python(
        """
import os, sys
from tests.contract.drivers import *
driver = open_driver(sys.argv[1], sys.argv[2])
sink = begin(driver, "cat", 400_000)
sink.write(b"x" * 300_000)
tail = driver.tail("cat")
there, here = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    sink.publish(5)
    sink.leave()
    assert tail.is_alive() and tail.state().readable == 0
    files = [os.readlink(f.path) for f in os.scandir("/proc/self/fd") if os.path.exists(f.path)]
    # Those of the tail.
    assert len([path for path in files if "/incomplete/" in path]) == 2, files
    os.write(here[1], b"x")
    os.read(there[0], 1)
    assert not tail.is_alive()
    assert driver.start_fill("cat").kept.parts == ((0, 300_000),)
    os._exit(0)
os.read(here[0], 1)
assert tail.is_alive()
sink.leave()
os.write(there[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
""",
        driver_name,
        tmp_path / "cache",
    )


def test_files_of_fills_are_listed_and_counted_once(driver):
    sink = begin(driver, "cat")
    sink.write(BODY)
    assert len(in_incomplete(driver)) == 2
    assert fills(driver) == ["cat"]
    assert driver.get_usage() == len(BODY)
    assert driver.clean(0) == 0
    assert driver.evict(1) == (0, 0)
    sink.leave()
    assert driver.get_usage() == len(BODY)
    assert driver.clean(0) == 1
    assert in_incomplete(driver) == []
    assert driver.get_usage() == 0


def test_one_process_asks_for_an_image_at_a_time(driver, driver_name, start_python):
    assert driver.begin_asking("cat")
    asking = """
import sys
from tests.contract.drivers import open_driver
driver = open_driver(sys.argv[1], sys.argv[2])
print(driver.is_asked_elsewhere("cat"), driver.begin_asking("cat"), driver.begin_asking("dog"))
sys.stdout.flush()
sys.stdin.read()
"""
    other = start_python(asking, driver_name, driver.directory)
    assert other.stdout.readline() == "True False True\n"

    assert driver.is_asked_elsewhere("dog")
    assert not driver.begin_asking("dog")
    driver.end_asking("cat")
    another = start_python(asking, driver_name, driver.directory)
    assert another.stdout.readline() == "False True False\n"

    other.kill()
    other.wait()
    assert driver.begin_asking("dog")


STORM = """
import functools, random, sys
from cachemw.drivers.base import CHUNK
from cachemw.errors import DriverError, FillUnderWay
from tests.contract.drivers import *
driver = open_driver(sys.argv[1], sys.argv[2], durability="none")
chance, turns = random.Random(int(sys.argv[3])), int(sys.argv[4])
SIZE = 2 * CHUNK + 5000
whole = functools.cache(lambda version: pattern(SIZE, version))

def version_of(record):
    return dict(record.headers)["ETag"]

def fill(image_id):
    sink = driver.start_fill(image_id)
    version, keep, position = str(chance.randrange(4)), False, 0
    if sink.kept is not None:
        old = version_of(sink.kept.record)
        for start, stop in sink.kept.parts:
            assert sink.pread(stop - start, start) == whole(old)[start:stop], "kept wrong bytes"
        if chance.random() < 0.6:
            version, keep = old, True
            counts["gone on"] += 1
    try:
        if chance.random() < 0.1:
            sink.leave()
            return
        headers = (("ETag", version),)
        sink.announce(Record(image_id, 0, "", headers), SIZE, keep)
        sink.reserve(SIZE)
        body, position = whole(version), sink.written
        while position < SIZE:
            step = chance.choice([1000, 50_000, CHUNK, 400_000])
            sink.write(body[position : position + step], position)
            position = min(position + step, SIZE)
            sink.publish(max(0, position - 10))
            if chance.random() < 0.15:
                chance.choice([sink.leave, sink.leave, sink.forget_parent])()
                counts["left"] += 1
                return
        record = record_of(image_id, body)
        sink.commit(Record(image_id, SIZE, record.checksum, headers))
        counts["stored"] += 1
    except DriverError as exc:
        assert "deleted" in exc.reason, exc
        sink.leave()
    finally:
        sink.close()

def follow(image_id):
    tail = driver.tail(image_id)
    if tail is None:
        return
    for _ in range(chance.randrange(1, 20)):
        state = tail.state()
        if state.record is not None:
            data = tail.pread(SIZE, 0)
            assert data == whole(version_of(state.record))[: len(data)], "wrong bytes"
            counts["followed"] += bool(data)
        tail.is_alive()
        tail.want(chance.randrange(SIZE))
    tail.close()

def look(image_id):
    with driver.open_for_read(image_id) as entry:
        sums = driver.sums(entry)
        body = whole(version_of(entry.record))
        assert entry.read() == body, "wrong image"
        if sums is not None:
            assert all(sums.check(n, body[n * CHUNK :][:CHUNK]) for n in range(3)), "wrong sums"
            counts["sums"] += 1

counts = dict.fromkeys(["gone on", "left", "stored", "followed", "sums"], 0)
for turn in range(turns):
    image_id = chance.choice(["cat", "a/b"])
    try:
        action = chance.choice([fill, fill, fill, fill, follow, follow, follow, look, look, None])
        if action is not None:
            action(image_id)
        else:
            chance.choice([
                lambda: driver.delete_cached_image(image_id),
                lambda: driver.evict(chance.randrange(2 * SIZE)),
                lambda: driver.clean(0),
                lambda: driver.invalidate(image_id, "for the test"),
                driver.get_partial_images,
            ])()
        driver.get_usage()
    except FillUnderWay:
        follow(image_id)
    except DriverError as exc:
        assert exc.reason in ("not in the cache", "bytes of its fill are missing"), exc
    if turn % 20 == 0:
        print(turn, flush=True)
assert all(counts.values()), counts
"""


def test_processes_that_share_fills_meet_no_wrong_byte(driver_name, tmp_path, start_python):
    directory = tmp_path / "cache"
    workers = [start_python(STORM, driver_name, directory, seed, 250) for seed in range(3)]
    for worker in workers:
        worker.communicate(timeout=280)
        assert worker.returncode == 0
    assert_clean(driver_name, directory)


def test_processes_killed_while_they_share_fills_leave_a_sound_directory(
    driver_name, tmp_path, start_python
):
    directory = tmp_path / "cache"
    for seed in range(3):
        workers = [
            start_python(STORM, driver_name, directory, 10 * seed + n, 10**6) for n in range(3)
        ]
        for worker in workers:
            worker.stdout.readline()
            worker.stdout.readline()
        for worker in workers:
            assert worker.poll() is None
            worker.kill()
            worker.communicate()
    assert_clean(driver_name, directory)


def assert_clean(driver_name, directory):
    driver = open_driver(driver_name, directory)
    assert_sound(driver)
    driver.clean(0)
    assert in_incomplete(driver) == []
    assert set(os.listdir(directory / ".sums")) <= set(os.listdir(directory))
    assert driver.get_usage() == driver.get_cache_size()
    driver.close()


def test_a_fill_that_ends_while_it_is_looked_for_is_deleted(driver, other, monkeypatch):
    sink = begin(driver, "cat")
    sink.write(BODY)
    access, looks = os.access, []

    def look(*args, **options):
        found = access(*args, **options)
        looks.append(args)
        if len(looks) == 1:
            sink.commit(record_of("cat", BODY))
        return found

    monkeypatch.setattr(os, "access", look)

    assert other.delete_cached_image("cat")
    assert not driver.is_cached("cat")


@pytest.mark.parametrize("end", ["rollback", "leave", "close"])
def test_a_fill_that_ends_in_the_middle_of_a_write_leaves_no_hole(driver, other, monkeypatch, end):
    """Where its file is cut, and written to behind the cut, zeros would take the bytes' place."""
    sink = begin(driver, "cat")
    sink.write(BODY)
    sink.publish(len(BODY))
    inside, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slowly(fd, data, position):
        if position == len(BODY) and fd == sink.fd:
            inside.set()
            assert go_on.wait(20)
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "pwrite", slowly)
    with looking(other) as tail:
        writer = threading.Thread(target=sink.write, args=(BODY,))
        writer.start()
        assert inside.wait(20)
        ends = {
            "rollback": lambda: sink.rollback("full", keep=False),
            "leave": sink.leave,
            "close": sink.close,
        }
        ender = threading.Thread(target=ends[end])
        ender.start()
        ender.join(0.05)
        go_on.set()
        writer.join(20)
        ender.join(20)
        assert not writer.is_alive()
        assert not ender.is_alive()
        try:
            data = tail.pread(3 * len(BODY), 0)
        except DriverError:
            data = b""
        assert (BODY + BODY).startswith(data)
    sink.close()


def test_bytes_that_are_cut_while_they_are_read_are_not_given(driver, other, monkeypatch):
    sink = begin(driver, "cat")
    sink.write(BODY)
    sink.publish(len(BODY))
    pread = os.pread

    def cut_first(fd, size, position):
        if size == len(BODY) and position == 0:
            monkeypatch.undo()
            sink.rollback("full", keep=False)
            return bytes(size)
        return pread(fd, size, position)

    with looking(other) as tail:
        monkeypatch.setattr(os, "pread", cut_first)
        with pytest.raises(DriverError, match="missing"):
            tail.pread(len(BODY), 0)
    sink.close()
