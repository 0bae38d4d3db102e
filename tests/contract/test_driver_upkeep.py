"""Cleaning, the queue, and trouble with the disk, over every driver."""

import errno
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers import _writeback
from cachemw.errors import (
    BadDriverConfiguration,
    CacheFull,
    DriverError,
)

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    die_while_filling,
    fills,
    open_driver,
    path_of,
    read,
    store,
)

# Cleaning


def test_clean_empties_invalid_and_removes_old_abandoned_fills(make_driver):
    driver = make_driver(stall_time=1000)
    driver.start_fill("failed").rollback("reason")
    for image_id, age in (("old", 2000), ("young", 500)):
        die_while_filling(driver, image_id)
        then = time.time() - age
        os.utime(path_of(driver, image_id, "incomplete"), (then, then))

    assert driver.clean() == 2
    assert fills(driver) == ["young"]
    assert driver.clean() == 0
    assert driver.clean(stall_time=0) == 1
    assert os.listdir(Path(driver.directory) / "incomplete") == []


def test_reaping_spares_what_is_younger_than_its_grace(driver):
    for image_id, age in (("old", 2000), ("young", 500)):
        driver.start_fill(image_id).rollback("reason")
        die_while_filling(driver, image_id)
        then = time.time() - age
        for status in ("invalid", "incomplete"):
            os.utime(path_of(driver, image_id, status), (then, then))

    for reap, status in ((driver.reap_invalid, "invalid"), (driver.reap_stalled, "incomplete")):
        assert reap(3000) == 0
        assert reap(1000) == 1
        left = os.listdir(Path(driver.directory) / status)
        assert [name for name in left if not name.startswith(".")] == ["young"]
        assert reap() == 1
        assert reap() == 0


def test_cleaning_keeps_the_records_of_entries_and_no_others(driver):
    store(driver, "cat", BODY, LONG_HEADERS)
    records = Path(driver.directory) / ".records"
    (records / "gone").write_bytes(b"1 2\n")
    (records / ".half").write_bytes(b"1 2\n")
    (records / ".cat-5").write_bytes(b"1 2\n")
    (records / ".gone-5").write_bytes(b"1 2\n")
    driver.clean(0)

    assert os.listdir(records) == ["cat"]
    assert_sound(driver)


# Queue


def test_the_queue_keeps_its_order_also_over_a_restart(make_driver):
    driver = make_driver()
    waiting = ["zebra", "a/b", "ant", "../x", "\ud800", "bee"]
    for image_id in waiting:
        assert driver.queue_image(image_id) is True
        assert driver.queue_image(image_id) is False
    assert driver.get_queued_images() == waiting
    driver.close()

    driver = make_driver()
    assert driver.get_queued_images() == waiting
    assert driver.is_queued("a/b")
    assert driver.delete_queued_image("a/b") is True
    assert driver.delete_queued_image("a/b") is False
    assert not driver.is_queued("a/b")
    store(driver, "ant")
    assert driver.get_queued_images() == ["zebra", "../x", "\ud800", "bee"]
    assert driver.delete_all_queued_images() == 4
    assert driver.delete_all_queued_images() == 0


def test_what_is_cached_or_being_cached_is_not_queued(driver):
    store(driver, "cat")
    sink = driver.start_fill("dog")

    assert driver.queue_image("cat") is False
    assert driver.queue_image("dog") is False
    sink.rollback("")
    assert driver.queue_image("dog") is True


def test_files_in_the_queue_that_name_no_image_are_left_out(driver):
    queue = Path(driver.directory) / "queue"
    driver.queue_image("cat")
    (queue / names.entry_name("a/b")).write_bytes(b"")
    (queue / names.entry_name("c/d")).write_bytes(b"other")
    (queue / names.entry_name("e/f")).write_bytes(b"\xff")
    (queue / ".hidden").write_bytes(b"")

    assert driver.get_queued_images() == ["cat"]


# Trouble with the disk


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, CacheFull), (errno.EDQUOT, CacheFull), (errno.EIO, DriverError)],
)
def test_a_disk_error_in_a_fill_is_a_drivers_error(driver, monkeypatch, number, error):
    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    sink = driver.start_fill("cat")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(error) as caught:
            sink.write(b"image")
    assert caught.value.image_id == "cat"
    assert type(caught.value) is error
    sink.rollback("could not be written", keep=False)
    assert driver.is_cacheable("cat")


@pytest.mark.parametrize("call", ["fsync", "rename", "ftruncate"])
def test_a_disk_error_in_a_commit_stores_nothing(driver, monkeypatch, call):
    store(driver, "cat", b"old")

    def fail(*arguments, **directories):
        raise OSError(errno.EIO, "Input/output error")

    sink = driver.start_fill("cat")
    sink.reserve(100)
    sink.write(b"new")
    record = driver.describe("cat", sink)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(DriverError, match="input/output error"):
            sink.commit(record)

    assert read(driver, "cat") == b"old"
    assert not driver.is_being_cached("cat")
    assert_sound(driver)


def test_too_few_descriptors_lose_no_entry(driver, driver_name, run_python, tmp_path):
    """A repair that cannot open files must not take them for gone."""
    for number in range(5):
        store(driver, f"image-{number}")
    driver.close()
    run_python(
        """
import os, resource, sys
from cachemw.errors import CacheMwError
from tests.contract.drivers import *
driver = open_driver(sys.argv[1], sys.argv[2])
read(driver, "image-0")
driver.get_usage()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for spare in range(6):
    open_now = open_descriptors() - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + spare, hard))
    try:
        with driver.lock.changing([f"image-{n}" for n in range(5)]):
            raise KeyError
    except (KeyError, OSError, CacheMwError):
        pass
    for call in (driver.get_usage, driver.get_cached_images, lambda: read(driver, "image-1")):
        try:
            call()
        except CacheMwError:
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert len(ids(driver)) == 5
assert_sound(driver)
""",
        driver_name,
        tmp_path / "cache",
    )


def test_a_file_system_without_attributes_is_named_with_its_mend(
    driver_name, tmp_path, no_attributes
):
    if driver_name != "xattr":
        driver = open_driver(driver_name, tmp_path / "cache")
        store(driver, "a/b", BODY)
        assert read(driver, "a/b") == BODY
        driver.start_fill("c/d").rollback("the reason")
        [failed] = driver.get_invalid_images()
        assert (failed["image_id"], failed["reason"]) == ("c/d", "the reason")
        assert driver.clean(0) == 1
        driver.close()
        return
    with pytest.raises(BadDriverConfiguration, match="no extended attributes") as caught:
        open_driver(driver_name, tmp_path / "cache")
    assert "driver = sqlite" in caught.value.mend


@pytest.mark.skipif(sys.platform != "linux", reason="sends no pages ahead elsewhere")
def test_a_large_image_is_sent_to_the_device_as_it_is_written(driver, monkeypatch):
    started = []
    monkeypatch.setattr(_writeback, "start", lambda fd, offset, size: started.append(size))
    with driver.open_for_write("large") as sink:
        for _ in range(5):
            sink.write(b"x" * (8 * 2**20))

    assert started == [16 * 2**20, 16 * 2**20]
    assert driver.get_image_size("large") == 40 * 2**20


def test_warnings_name_the_image(driver, caplog):
    store(driver, "cat")
    with caplog.at_level(logging.WARNING):
        driver.invalidate("cat", "the reason")

    assert "cat: the reason; moved to invalid/" in caplog.text


def test_failed_fill_is_evicted_with_its_reason(driver, tmp_path):
    """A long id fits no attribute, so that the reason stands beside the file."""
    image_id = "x" * 2000
    store(driver, image_id)
    driver.invalidate(image_id, "the reason")
    invalid = tmp_path / "cache" / "invalid"
    held = sum(path.stat().st_size for path in invalid.iterdir())

    assert driver.evict(1) == (0, held)
    assert list(invalid.iterdir()) == []
    assert driver.get_invalid_images() == []
