"""The checksums of a stored image's chunks, over every driver."""

import dataclasses
import os
from pathlib import Path

import pytest

from cachemw.drivers.base import CHUNK, Record
from cachemw.errors import DriverError

from .drivers import (
    LONG_HEADERS,
    assert_sound,
    begin,
    die_while_filling,
    open_driver,
    path_of,
    pattern,
    plant,
    record_of,
    store,
)

BODY = pattern(3 * CHUNK + 1000)


def sums_of(driver, image_id="cat", variant=0):
    with driver.open_for_read(image_id, variant) as entry:
        return driver.sums(entry)


def kept_sums(driver):
    return sorted(os.listdir(Path(driver.directory) / ".sums"))


@pytest.mark.parametrize("image_id", ["cat", "a/b"])
@pytest.mark.parametrize("size", [CHUNK + 1, 2 * CHUNK, len(BODY)])
def test_a_stored_image_has_the_checksums_of_its_chunks(make_driver, image_id, size):
    driver = make_driver()
    store(driver, image_id, BODY[:size])
    chunks = [BODY[start : min(start + CHUNK, size)] for start in range(0, size, CHUNK)]
    for opened in (driver, make_driver()):
        sums = sums_of(opened, image_id)
        for index, chunk in enumerate(chunks):
            assert sums.check(index, chunk)
            assert not sums.check(index, chunk[:-1])
            assert not sums.check(index, bytes([chunk[0] ^ 1]) + chunk[1:])
    assert_sound(driver)


def test_an_image_of_one_chunk_has_its_own_checksum_only(driver):
    for size in (0, 1, CHUNK):
        store(driver, "cat", BODY[:size])
        assert sums_of(driver) is None
        assert kept_sums(driver) == []


def test_checksums_are_a_variants_own(driver):
    store(driver, "cat", BODY, variant=2)
    store(driver, "cat", BODY[::-1])

    assert sums_of(driver, "cat", 2).check(0, BODY[:CHUNK])
    assert sums_of(driver, "cat").check(0, BODY[::-1][:CHUNK])
    driver.delete_cached_image("cat")
    assert kept_sums(driver) == []


def test_what_was_written_by_two_has_checksums_too(driver):
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY[: CHUNK + 10])
    sink.leave()
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY[CHUNK + 10 :], CHUNK + 10)
    sink.commit(record_of("cat", BODY))

    sums = sums_of(driver)
    assert all(sums.check(index, BODY[index * CHUNK :][:CHUNK]) for index in range(4))


@pytest.mark.parametrize("headers", [(), LONG_HEADERS])
def test_another_record_keeps_the_checksums(driver, headers):
    store(driver, "cat", BODY)
    with driver.open_for_read("cat") as entry:
        assert driver.update(entry, dataclasses.replace(entry.record, headers=headers))

    assert sums_of(driver).check(0, BODY[:CHUNK])


def test_another_image_has_its_own(driver):
    store(driver, "cat", BODY)
    with driver.open_for_read("cat") as old:
        store(driver, "cat", BODY[::-1])
        assert driver.sums(old) is None
    assert sums_of(driver).check(0, BODY[::-1][:CHUNK])
    store(driver, "cat", b"small")
    assert kept_sums(driver) == []


def remove_by_eviction(driver):
    assert driver.evict(len(BODY))[0] == 1


@pytest.mark.parametrize(
    "remove",
    [
        lambda driver: driver.delete_cached_image("cat"),
        lambda driver: driver.delete_all_cached_images(),
        lambda driver: driver.invalidate("cat", "damaged"),
        remove_by_eviction,
    ],
)
def test_they_go_with_their_image(driver, remove):
    store(driver, "cat", BODY)
    remove(driver)

    assert not driver.is_cached("cat")
    assert kept_sums(driver) == []


def test_a_failed_commit_keeps_the_older_images(driver):
    store(driver, "cat", BODY)
    sink = begin(driver, "cat")
    sink.write(BODY[::-1])
    with pytest.raises(DriverError):
        sink.commit(Record("cat", 5, "md5:" + "0" * 32))

    assert sums_of(driver).check(0, BODY[:CHUNK])


def test_clean_removes_those_of_no_image(driver):
    store(driver, "cat", BODY)
    store(driver, "dog", BODY)
    path_of(driver, "dog").unlink()
    die_while_filling(driver, "emu")
    (Path(driver.directory) / ".sums" / "emu").write_bytes(b"")
    driver.clean(0)

    assert kept_sums(driver) == ["cat"]
    assert sums_of(driver).check(0, BODY[:CHUNK])


def test_an_adopted_image_has_none(driver):
    path_of(driver, "cat").write_bytes(BODY)
    assert sums_of(driver) is None


@pytest.mark.parametrize("at", [0, 3, 256, 270, 300, 272 * 1024, 272 * 1024 + 13])
@pytest.mark.parametrize("how", ["flip", "cut", "zero"])
def test_damaged_checksums_are_none(driver, at, how):
    store(driver, "cat", BODY)
    path = Path(driver.directory) / ".sums" / "cat"
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[at] ^= 4
    elif how == "cut":
        del data[at:]
    else:
        data[at:] = bytes(len(data) - at)
    path.write_bytes(data)

    # Nothing is kept between its last value and the room for it.
    assert sums_of(driver) is None or data[300] == 4


@pytest.mark.parametrize("what", ["link", "hard link", "directory", "pipe", "empty", "gone"])
def test_something_else_in_their_place_is_none(driver, victim, what):
    store(driver, "cat", BODY)
    path = Path(driver.directory) / ".sums" / "cat"
    path.unlink()
    if what == "link":
        plant(path, victim)
    elif what == "hard link":
        path.hardlink_to(victim)
    elif what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "empty":
        path.touch()

    assert sums_of(driver) is None
    driver.delete_cached_image("cat")
    store(driver, "cat", BODY[::-1])
    assert (sums_of(driver) is None) is (what == "directory")


def test_a_copy_of_the_directory_has_them(driver, driver_name, tmp_path):
    store(driver, "cat", BODY)
    driver.close()
    os.system(f"cp -a {tmp_path}/cache {tmp_path}/copy")
    copy = open_driver(driver_name, tmp_path / "copy")

    assert sums_of(copy).check(0, BODY[:CHUNK])
    copy.close()


@pytest.mark.parametrize("driver_name", ["sqlite"], indirect=True)
def test_without_attributes_an_image_has_them_too(driver, no_attributes):
    store(driver, "cat", BODY)
    assert sums_of(driver).check(3, BODY[3 * CHUNK :])
    sink = begin(driver, "dog", len(BODY))
    sink.write(BODY[:CHUNK])
    sink.leave()
    sink = begin(driver, "dog", len(BODY))
    sink.write(BODY[CHUNK:])
    sink.commit(record_of("dog", BODY))
    assert sums_of(driver, "dog").check(3, BODY[3 * CHUNK :])
    assert_sound(driver)
