"""Records: in attributes, aside, damaged, lost, given later."""

import errno
import os
import stat
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers import _writeback
from cachemw.drivers.base import Record
from cachemw.errors import (
    DriverError,
    ImageNotFound,
)

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    ids,
    path_of,
    read,
    sha256,
    store,
)


@pytest.fixture(params=["too long", "no attributes"])
def aside(request, driver_name, no_attributes, monkeypatch):
    """Headers with which every record is kept aside."""
    if request.param == "no attributes":
        if driver_name == "xattr":
            pytest.skip("the xattr driver needs attributes")
        return ()
    monkeypatch.undo()
    return LONG_HEADERS


@pytest.mark.parametrize("image_id", ["cat", "a/b"])
def test_a_record_without_an_attribute_is_kept_aside(driver, aside, image_id):
    store(driver, image_id, BODY, aside)
    name = names.entry_name(image_id)
    records = Path(driver.directory) / ".records"

    assert os.listdir(records) == [name]
    assert stat.S_IMODE((records / name).stat().st_mode) == 0o600
    with driver.open_for_read(image_id) as entry:
        assert entry.record.headers == aside
    assert_sound(driver)
    store(driver, image_id, b"replaced", aside)
    assert read(driver, image_id) == b"replaced"
    assert_sound(driver)
    driver.invalidate(image_id, "for the test")
    assert os.listdir(records) == []
    assert [i["image_id"] for i in driver.get_invalid_images()] == [image_id]
    assert [i["reason"] for i in driver.get_invalid_images()] == ["for the test"]


def test_a_record_aside_belongs_to_one_file_only(driver, aside):
    store(driver, "cat", BODY, aside)
    store(driver, "a/b", BODY, aside)
    for image_id in ("cat", "a/b"):
        path = path_of(driver, image_id)
        path.unlink()
        path.write_bytes(BODY[::-1])
        os.utime(path, (1, 1))

    with driver.open_for_read("cat") as entry:
        assert entry.record is None  # to be compared with the app's answer
    with pytest.raises(ImageNotFound, match="record is lost"):
        driver.open_for_read("a/b")
    assert ids(driver) == ["cat"]


def test_a_copy_that_keeps_times_keeps_the_record(driver, aside):
    store(driver, "cat", BODY, aside)
    path = path_of(driver, "cat")
    status = path.stat()
    path.unlink()
    path.write_bytes(BODY)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with driver.open_for_read("cat") as entry:
        assert entry.record.headers == aside


def test_a_failed_replacement_leaves_the_older_ones_record(driver, aside, monkeypatch):
    store(driver, "a/b", b"old", aside)

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_writeback, "sync", fail)
        with pytest.raises(DriverError, match="input/output error"):
            store(driver, "a/b", b"newer", aside)

    assert read(driver, "a/b") == b"old"
    driver.clean(0)
    assert read(driver, "a/b") == b"old"


def test_a_fill_that_was_voided_leaves_no_record(driver, aside, monkeypatch):
    sink = driver.start_fill("a/b")
    record = Record("a/b", 0, f"sha256:{sha256(b'')}", aside)
    sync = _writeback.sync

    def delete_meanwhile(fd):
        driver.delete_cached_image("a/b")
        sync(fd)

    monkeypatch.setattr(_writeback, "sync", delete_meanwhile)
    with pytest.raises(DriverError, match="deleted"):
        sink.commit(record)

    assert os.listdir(Path(driver.directory) / ".records") == []


@pytest.mark.usefixtures("attributes")
def test_a_longer_record_goes_aside_and_a_shorter_one_comes_back(driver):
    store(driver, "cat", b"1", ())
    store(driver, "cat", b"22", LONG_HEADERS)
    with driver.open_for_read("cat") as entry:
        assert entry.record.headers == LONG_HEADERS
    store(driver, "cat", b"333", (("A", "b"),))
    with driver.open_for_read("cat") as entry:
        assert entry.record.headers == (("A", "b"),)
    assert os.listdir(Path(driver.directory) / ".records") == []


def test_a_record_too_long_to_be_read_again_is_refused(driver):
    with pytest.raises(DriverError, match="its record is 3"):
        store(driver, "cat", BODY, [("X-Field", "v" * 300_000)])
    assert not driver.is_cached("cat")


@pytest.mark.usefixtures("attributes")
@pytest.mark.parametrize("damage", [b"", b"cachemw1", b"cachemw2 00000000 {}", "flip"])
def test_a_damaged_record_counts_as_none(driver, driver_name, damage):
    for image_id in ("cat", "a/b"):
        store(driver, image_id, BODY)
        path = path_of(driver, image_id)
        data = os.getxattr(path, "user.cachemw")
        flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
        os.setxattr(path, "user.cachemw", flipped if damage == "flip" else damage)

    with driver.open_for_read("cat") as entry:
        assert entry.record is None
    with pytest.raises(ImageNotFound, match="record is lost"):
        driver.open_for_read("a/b")
    assert ids(driver) == ["cat"]
    store(driver, "a/b", BODY)
    assert read(driver, "a/b") == BODY


@pytest.mark.usefixtures("attributes")
def test_entries_whose_id_is_lost_are_evicted_like_others(make_driver):
    driver = make_driver()
    for number in range(120):
        store(driver, f"lost/{number}", b"x" * 10)
        os.removexattr(path_of(driver, f"lost/{number}"), "user.cachemw")
    store(driver, "cat", b"x" * 10)
    driver.close()
    os.unlink(Path(driver.directory) / ".lock")  # everything is looked at again

    driver = make_driver()
    driver.evict(1205)
    assert driver.get_usage() <= 10
    assert len(os.listdir(driver.directory)) <= 9


@pytest.mark.usefixtures("attributes")
def test_a_file_with_the_record_of_another_id_is_not_served_for_it(driver):
    """As ``cp -a cat dog`` leaves it."""
    store(driver, "cat", BODY)
    path_of(driver, "dog").write_bytes(BODY)
    record = os.getxattr(path_of(driver, "cat"), "user.cachemw")
    os.setxattr(path_of(driver, "dog"), "user.cachemw", record)

    with pytest.raises(ImageNotFound, match="another id"):
        driver.open_for_read("dog")
    assert read(driver, "cat") == BODY
    store(driver, "dog", b"dog")
    assert read(driver, "dog") == b"dog"


# Adopting


def adopted_entry(driver, image_id="cat", body=BODY):
    path_of(driver, image_id).write_bytes(body)
    return driver.open_for_read(image_id)


def test_an_adopted_entry_gets_its_record(driver):
    for headers in ((), LONG_HEADERS):
        with adopted_entry(driver) as entry:
            assert entry.record is None
            driver.adopt(entry, Record("cat", len(BODY), f"sha256:{sha256(BODY)}", headers))
            assert entry.record is not None
        with driver.open_for_read("cat") as entry:
            assert entry.record.headers == headers
        assert_sound(driver)
        driver.delete_cached_image("cat")


def test_adopting_an_entry_that_was_replaced_meanwhile_changes_nothing(driver):
    with adopted_entry(driver) as entry:
        store(driver, "cat", b"new", LONG_HEADERS)
        driver.adopt(entry, Record("cat", len(BODY), f"sha256:{sha256(BODY)}", LONG_HEADERS))

    assert read(driver, "cat") == b"new"
    assert_sound(driver)


def test_adopting_an_entry_that_was_deleted_meanwhile_changes_nothing(driver):
    with adopted_entry(driver) as entry:
        driver.delete_cached_image("cat")
        driver.adopt(entry, Record("cat", len(BODY), f"sha256:{sha256(BODY)}"))

    assert not driver.is_cached("cat")
    assert_sound(driver)
