"""Several threads and processes on one cache directory."""

import contextlib
import threading

import pytest

from cachemw.errors import (
    DriverError,
    ImageCorrupt,
    ImageNotFound,
)

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    hit,
    new_driver,
    open_descriptors,
    open_driver,
    path_of,
    read,
    settled_descriptors,
    store,
)

FORKING = """
import os, sys, threading, time
from tests.contract.drivers import *
driver = open_driver(sys.argv[1], sys.argv[2])
"""


def test_parent_and_child_of_a_fork_both_use_the_driver(driver_name, tmp_path, run_python):
    code = (
        FORKING
        + """
store(driver, "before", b"before")
driver.record_hit("before", time.time())
pids = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        for turn in range(20):
            assert read(driver, "before") == b"before"
            driver.record_hit("before", time.time())
            store(driver, f"child/{number}/{turn}", b"child")
            driver.get_cached_images()
        driver.close()
        os._exit(0)
    pids.append(pid)
for turn in range(20):
    store(driver, f"parent/{turn}", b"parent")
    driver.record_hit("before", time.time())
    driver.delete_cached_image(f"parent/{turn}")
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
assert driver.get_hit_count("before") == 81, driver.get_hit_count("before")
assert len(ids(driver)) == 61
assert_sound(driver)
"""
    )
    run_python(code, driver_name, tmp_path / "cache")


def test_a_fork_amid_locks_leaves_neither_side_locked(driver_name, tmp_path, run_python):
    """The child lives on and must neither hold nor wait for what its parent's threads held."""
    code = (
        FORKING
        + """
store(driver, "cat", b"image")
sink = driver.start_fill("dog")
inside, leave = threading.Event(), threading.Event()
def hold():
    with driver.exclusive():
        driver.get_usage()
        inside.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
there, here = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.read(there[0], 1)
    store(driver, "child", b"image")
    sink.rollback("not mine")
    os.write(here[1], b"x")
    os.read(there[0], 1)
    os._exit(0)
leave.set()
thread.join()
store(driver, "parent", b"image")  # while the child has copies of all descriptors
os.write(there[1], b"x")
os.read(here[0], 1)
assert driver.is_being_cached("dog")
sink.write(b"woof")
sink.commit(driver.describe("dog", sink))
driver.delete_cached_image("dog")
store(driver, "dog", b"again")
sink = driver.start_fill("emu")
os.write(there[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
assert ids(driver) == ["cat", "child", "dog", "parent"]
"""
    )
    run_python(code, driver_name, tmp_path / "cache")


def test_forks_while_threads_work(driver_name, tmp_path, run_python):
    code = (
        FORKING
        + """
stop = threading.Event()
store(driver, "cat", b"image")
def work(number):
    while not stop.is_set():
        store(driver, f"image/{number}", b"image")
        driver.record_hit("cat", time.time())
        driver.flush_hits()
        driver.get_usage()
        driver.delete_cached_image(f"image/{number}")
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for number in range(30):
    pid = os.fork()
    if pid == 0:
        store(driver, f"child/{number}", b"image")
        driver.record_hit("cat", time.time())
        driver.flush_hits()
        os._exit(0 if read(driver, "cat") == b"image" else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert len(ids(driver)) == 31
assert_sound(driver)
"""
    )
    run_python(code, driver_name, tmp_path / "cache")


WORK = """
import random, sys, time
from cachemw.errors import DriverError
from tests.contract.drivers import *
name, directory, seed, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
driver = open_driver(name, directory, durability="none")
chance = random.Random(seed)
LONG = [(f"X-{n}", "v" * 200) for n in range(40)]
for turn in range(turns):
    image_id = chance.choice(["cat", "dog", "a/b", "c/d", "e/f"])
    action = chance.randrange(10)
    try:
        if action < 4:
            body = b"%d" % chance.randrange(10**6) * chance.randrange(1, 50)
            store(driver, image_id, body, LONG if chance.random() < 0.3 else ())
        elif action < 6:
            with driver.open_for_read(image_id) as entry:
                body = entry.read()
                assert entry.record is not None
                assert entry.record.checksum == "sha256:" + sha256(body), "wrong bytes"
            driver.record_hit(image_id, time.time())
        elif action == 6:
            driver.delete_cached_image(image_id)
        elif action == 7:
            driver.evict(chance.randrange(300))
        elif action == 8:
            driver.invalidate(image_id, "for the test")
            driver.clean(0)
        else:
            die_while_filling(driver, image_id)
        driver.get_usage()
        driver.flush_hits()
    except DriverError as exc:
        assert exc.reason in (
            "not in the cache", "is being filled already",
            "deleted or changed while it was filled",
        ), exc
    if turn % 50 == 0:
        print(turn, flush=True)
driver.close()
"""


def work_in_processes(start_python, driver_name, directory, count, turns):
    workers = [
        start_python(WORK, driver_name, directory, seed, turns) for seed in range(1, count + 1)
    ]
    for worker in workers:
        worker.communicate(timeout=280)
        assert worker.returncode == 0
    driver = open_driver(driver_name, directory)
    assert_sound(driver)
    driver.clean(0)
    assert driver.get_usage() == driver.get_cache_size()
    assert_sound(driver)
    driver.close()


def test_processes_that_change_the_same_images_leave_a_sound_directory(
    driver_name, tmp_path, start_python
):
    work_in_processes(start_python, driver_name, tmp_path / "cache", 3, 250)


@pytest.mark.stress
def test_many_processes_change_the_same_images_for_long(driver_name, tmp_path, start_python):
    work_in_processes(start_python, driver_name, tmp_path / "cache", 8, 5000)


def test_processes_killed_while_they_change_images_leave_a_sound_directory(
    driver_name, tmp_path, start_python
):
    for seed in range(4):
        workers = [
            start_python(WORK, driver_name, tmp_path / "cache", 10 * seed + n, 10**6)
            for n in range(2)
        ]
        for worker in workers:
            worker.stdout.readline()
            worker.stdout.readline()
        for worker in workers:
            worker.kill()
            worker.communicate()
        driver = open_driver(driver_name, tmp_path / "cache")
        assert_sound(driver)
        for image_id in ("cat", "dog", "a/b", "c/d", "e/f"):
            store(driver, image_id)
        driver.close()


def test_threads_that_do_everything_at_once_neither_deadlock_nor_leak(driver):
    """Flushing, eviction, listing and commits take their locks in different orders."""
    errors = []

    def work(number):
        try:
            for turn in range(40):
                image_id = f"image/{(number + turn) % 5}"
                with contextlib.suppress(DriverError):  # somebody else fills it
                    store(driver, image_id)
                hit(driver, image_id)
                with driver.exclusive():
                    driver.get_cached_images()
                    driver.get_hit_count(image_id)
                    driver.flush_hits()
                    driver.get_least_recently_accessed()
                    driver.get_usage()
                    driver.evict(1)
                driver.flush_hits()
                driver.is_cached(image_id)
        except BaseException as exc:
            errors.append(exc)

    store(driver, "warm")
    driver.evict(1)
    driver.get_usage()
    before = settled_descriptors()
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []
    assert open_descriptors() == before
    assert_sound(driver)


def test_flushing_inside_the_lock_does_not_wait_for_a_flush_that_waits_for_the_lock(
    driver, monkeypatch
):
    store(driver, "cat")
    hit(driver, "cat")
    writing = threading.Event()
    write = driver.hits._write

    def write_with_lock(gathered):
        writing.set()
        with driver.exclusive():  # as for an index that must be made again
            write(gathered)

    monkeypatch.setattr(driver.hits, "_write", write_with_lock)
    with driver.exclusive():
        flusher = threading.Thread(target=driver.flush_hits, daemon=True)
        flusher.start()
        assert writing.wait(20)
        driver.get_cached_images()
    flusher.join(20)
    assert driver.get_hit_count("cat") == 1


def test_nothing_leaks_descriptors(driver):
    def everything():
        store(driver, "cat", BODY, LONG_HEADERS)
        store(driver, "a/b", BODY)
        read(driver, "cat")
        with pytest.raises(ImageNotFound):
            driver.open_for_read("none")
        hit(driver, "cat")
        driver.flush_hits()
        driver.get_cached_images()
        sink = driver.start_fill("cat")
        with pytest.raises(DriverError):
            driver.start_fill("cat")
        driver.delete_cached_image("cat")
        sink.rollback("")
        driver.start_fill("dog").rollback("reason")
        driver.get_invalid_images()
        driver.queue_image("dog")
        driver.get_queued_images()
        path_of(driver, "a/b").write_bytes(b"cut")
        with pytest.raises(ImageCorrupt):
            driver.open_for_read("a/b")
        driver.evict(10)
        driver.clean(0)
        driver.get_usage()
        driver.delete_all_cached_images()

    everything()
    before = settled_descriptors()
    for _ in range(3):
        everything()
    assert open_descriptors() == before


def test_closing_lets_go_of_everything_and_may_be_repeated(driver_name, tmp_path):
    before = settled_descriptors()
    driver = open_driver(driver_name, tmp_path / "cache")
    store(driver, "cat")
    hit(driver, "cat")
    driver.close()
    driver.close()
    assert open_descriptors() == before
    with pytest.raises(DriverError):
        driver.open_for_read("cat")

    driver = open_driver(driver_name, tmp_path / "cache")
    assert driver.get_hit_count("cat") == 1
    driver.close()


def test_a_driver_may_be_configured_in_one_place_by_many_at_once(driver_name, tmp_path):
    drivers = [new_driver(driver_name, tmp_path / "cache") for _ in range(8)]
    errors = []

    def configure(driver):
        try:
            driver.configure()
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=configure, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, driver in enumerate(drivers):
        if not errors:
            store(driver, f"image-{number}")
        driver.close()
    assert errors == []
