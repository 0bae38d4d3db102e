"""Hits and eviction, over every driver."""

import fcntl
import os
import threading
import time

import pytest

from cachemw.drivers import _xattrs
from cachemw.drivers.base import Record

from .drivers import (
    assert_sound,
    die_while_filling,
    hit,
    ids,
    path_of,
    read,
    sha256,
    store,
)


def test_hits_are_exact_from_many_threads_and_written_together(driver, monkeypatch):
    store(driver, "cat")
    store(driver, "dog")
    writes = []
    write = driver.hits._write
    monkeypatch.setattr(driver.hits, "_write", lambda hits: (writes.append(hits), write(hits)))

    def read_often():
        for number in range(1000):
            hit(driver, "cat" if number % 4 else "dog")

    threads = [threading.Thread(target=read_often) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began

    assert driver.get_hit_count("cat") == 6000
    assert driver.get_hit_count("dog") == 2000
    assert len(writes) <= seconds + 3


def test_hits_are_exact_from_several_processes(driver, driver_name, start_python):
    store(driver, "cat")
    code = """
import sys, time
from tests.contract.drivers import open_driver
driver = open_driver(sys.argv[1], sys.argv[2])
for _ in range(50):
    for _ in range(20):
        driver.record_hit("cat", time.time())
    driver.flush_hits()
driver.record_hit("cat", time.time())
"""
    readers = [start_python(code, driver_name, driver.directory) for _ in range(3)]
    for _ in range(1000):
        hit(driver, "cat")
    for reader in readers:
        assert reader.wait(timeout=60) == 0

    assert driver.get_hit_count("cat") == 4 * 1000 + 3


@pytest.mark.parametrize("driver_name", ["xattr"], indirect=True)
def test_nobody_else_writes_an_attribute_of_hits_meanwhile(driver, monkeypatch):
    """Reading and writing it are two steps."""
    store(driver, "cat")
    write, tried = _xattrs.set, []

    def write_while_locked(fd, name, value):
        other = os.open(path_of(driver, "cat"), os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        tried.append(name)
        write(fd, name, value)

    monkeypatch.setattr(_xattrs, "set", write_while_locked)
    hit(driver, "cat")
    driver.flush_hits()

    assert tried == ["user.hits"]
    assert driver.get_hit_count("cat") == 1


def test_a_hit_is_written_within_about_a_second_and_moves_the_access_time(driver, make_driver):
    store(driver, "cat")
    other = make_driver()
    when = time.time() + 100
    driver.record_hit("cat", when)

    deadline = time.monotonic() + 20
    while other.get_hit_count("cat") == 0 and time.monotonic() < deadline:
        driver.hits._wake.wait(0.01)
    [image] = other.get_cached_images()
    assert image["hits"] == 1
    assert image["last_accessed"] == pytest.approx(when, abs=0.001)


def test_reading_counts_no_hit_and_moves_no_access_time(driver):
    store(driver, "cat")
    before = driver.get_cached_images()

    assert read(driver, "cat") == b"image"
    assert driver.get_cached_images() == before


def test_a_hit_that_cannot_be_written_does_not_count_the_others_twice(driver, caplog):
    for image_id in ("ant", "bee", "cat"):
        store(driver, image_id)
        hit(driver, image_id)
    path_of(driver, "bee").unlink()
    path_of(driver, "bee").symlink_to("ant")
    for _ in range(3):
        driver.flush_hits()

    assert driver.get_hit_count("ant") == 1
    assert driver.get_hit_count("cat") == 1


def test_hits_gathered_for_an_image_that_is_gone_are_dropped(driver):
    store(driver, "cat")
    hit(driver, "cat")
    path_of(driver, "cat").unlink()
    driver.flush_hits()

    assert not driver.is_cached("cat")
    assert driver.get_hit_count("cat") == 0
    assert ids(driver) == []


def test_the_least_recently_read_image_goes_first(driver):
    now = time.time()
    for number, image_id in enumerate(("ant", "bee", "cat", "a/b")):
        store(driver, image_id, b"x" * 10)
        driver.record_hit(image_id, now + number)
    driver.record_hit("ant", now + 10)
    driver.flush_hits()

    assert driver.get_least_recently_accessed() == ("bee", 10)
    assert driver.evict(11) == (2, 20)
    assert ids(driver) == ["a/b", "ant"]
    driver.record_hit("a/b", now + 20)
    assert driver.get_least_recently_accessed() == ("ant", 10)
    assert driver.evict(1) == (1, 10)
    assert driver.evict(100) == (1, 10)
    assert driver.evict(1) == (0, 0)
    assert driver.get_least_recently_accessed() is None


def test_a_new_image_counts_as_read_when_it_was_stored(driver):
    """However long ago its fill began, and whoever used the file before."""
    die_while_filling(driver, "slow")
    os.utime(path_of(driver, "slow", "incomplete"), (1000, 1000))
    sink = driver.start_fill("slow")
    sink.write(b"1")
    store(driver, "quick", b"1")
    driver.record_hit("quick", time.time())
    driver.flush_hits()
    sink.commit(Record("slow", 1, f"sha256:{sha256(b'1')}"))

    assert driver.get_least_recently_accessed() == ("quick", 1)


def test_an_access_time_does_not_go_back(driver):
    store(driver, "cat")
    store(driver, "dog")
    driver.record_hit("cat", time.time() + 100)
    driver.flush_hits()
    driver.record_hit("cat", 5.0)
    driver.flush_hits()

    assert driver.get_least_recently_accessed()[0] == "dog"


def test_eviction_frees_failed_and_abandoned_fills_first(driver):
    store(driver, "cat", b"x" * 10)
    failed = driver.start_fill("failed")
    failed.write(b"x" * 10)
    failed.rollback("reason")
    die_while_filling(driver, "dead", b"x" * 10)
    sink = driver.start_fill("filling")
    sink.reserve(10)

    assert driver.evict(10) == (0, 10)
    assert driver.get_invalid_images() == []
    assert driver.evict(1) == (0, 10)
    assert not path_of(driver, "dead", "incomplete").exists()
    assert driver.evict(1) == (1, 10)
    assert driver.evict(1) == (0, 0)
    assert driver.get_usage() == 10
    sink.rollback("done")


def test_more_images_are_evicted_than_fit_one_batch(driver):
    for number in range(250):
        store(driver, f"image-{number}", b"x")

    assert driver.evict(230) == (230, 230)
    assert len(ids(driver)) == driver.get_cache_size() == 20


def test_images_removed_by_hand_are_noticed(driver):
    for number in range(10):
        store(driver, f"image-{number}", b"x" * 10)
    for number in range(8):
        path_of(driver, f"image-{number}").unlink()

    driver.evict(10)
    assert driver.get_usage() == 10
    assert driver.get_cache_size() == 10
    assert_sound(driver)


def test_usage_is_right_after_the_size_was_asked_for(driver):
    store(driver, "cat", b"x" * 10)
    store(driver, "dog", b"x" * 10)
    path_of(driver, "cat").unlink()
    driver.is_cached("cat")

    assert driver.get_cache_size() == 10
    assert driver.get_usage() == 10
