"""Directories that somebody else wrote, or that a crash left inconsistent."""

import json
import os
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers import _lock

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    hit,
    ids,
    open_driver,
    path_of,
    read,
    store,
)


def test_a_file_without_a_row_is_served_and_found(make_driver, driver):
    store(driver, "cat", BODY)
    store(driver, "a/b", BODY)
    if driver.name == "sqlite":
        driver.index.remove(["cat", names.entry_name("a/b")])

    assert read(driver, "cat") == BODY
    hit(driver, "cat")
    hit(driver, "a/b")
    assert driver.get_hit_count("cat") == 1
    assert ids(driver) == ["a/b", "cat"]
    assert driver.get_cache_size() == 2 * len(BODY)


def test_a_row_without_a_file_goes_when_it_is_met(driver):
    for image_id in ("cat", "dog", "emu"):
        store(driver, image_id, BODY)
    path_of(driver, "cat").unlink()
    path_of(driver, "dog").unlink()

    assert not driver.is_cached("cat")
    driver.delete_cached_image("dog")
    assert ids(driver) == ["emu"]
    assert driver.get_cache_size() == len(BODY)


def test_a_damaged_lock_file_makes_everything_be_looked_at(make_driver):
    for damage in (
        b"",
        b"{",
        b"[]",
        b"5",
        b'{"boot": 1}',
        b"[" * 8192,
        b"\xff" * 100,
        *(
            json.dumps(
                {"boot": _lock.boot_id(), "driver": "sqlite", "changing": changing, "total": total}
            ).encode()
            for changing, total in ((5, None), ([5], None), ([], "many"), ({}, 1))
        ),
    ):
        driver = make_driver()
        store(driver, "cat", BODY)
        driver.close()
        (Path(driver.directory) / ".lock").write_bytes(damage)
        (Path(driver.directory) / "dog").write_bytes(b"woof")

        driver = make_driver()
        assert ids(driver) == ["cat", "dog"]
        assert driver.get_usage() == len(BODY) + 4
        assert driver.delete_all_cached_images() == 2
        driver.close()


@pytest.mark.usefixtures("attributes")
def test_drivers_take_each_others_directories(tmp_path):
    directory = tmp_path / "cache"
    driver = open_driver("xattr", directory)
    store(driver, "cat", BODY)
    store(driver, "a/b", b"ab", LONG_HEADERS)
    for _ in range(3):
        hit(driver, "cat")
    driver.close()

    driver = open_driver("sqlite", directory)
    assert ids(driver) == ["a/b", "cat"]
    assert driver.get_hit_count("cat") == 3
    store(driver, "dog", b"woof")
    driver.delete_cached_image("a/b")
    assert_sound(driver)
    driver.close()

    driver = open_driver("xattr", directory)
    assert ids(driver) == ["cat", "dog"]
    assert driver.get_usage() == len(BODY) + 4
    assert_sound(driver)
    driver.delete_cached_image("dog")
    store(driver, "emu", b"emu")
    driver.close()

    driver = open_driver("sqlite", directory)
    assert ids(driver) == ["cat", "emu"]
    assert driver.get_cache_size() == len(BODY) + 3
    assert_sound(driver)
    driver.close()


# Glance's directories


@pytest.mark.usefixtures("attributes")
def test_an_xattr_directory_of_glance_opens_as_it_is(driver_name, tmp_path):
    directory = tmp_path / "cache"
    for part in ("incomplete", "invalid", "queue"):
        (directory / part).mkdir(parents=True)
    for image_id, hits in (("71c675ab-d94f-49cd-a114-e12490b328d9", b"7"), ("image-2", b"0")):
        (directory / image_id).write_bytes(BODY)
        os.setxattr(directory / image_id, "user.hits", hits)
    (directory / "no-hits").write_bytes(BODY)
    (directory / "odd-hits").write_bytes(BODY)
    os.setxattr(directory / "odd-hits", "user.hits", b"many")
    (directory / "queue" / "image-3").write_bytes(b"")
    (directory / "incomplete" / "image-4").write_bytes(b"half")
    (directory / "invalid" / "image-5").write_bytes(b"bad")
    os.setxattr(directory / "invalid" / "image-5", "user.error", b"bad checksum")
    driver = open_driver(driver_name, directory)

    assert {image["image_id"]: image["hits"] for image in driver.get_cached_images()} == {
        "71c675ab-d94f-49cd-a114-e12490b328d9": 7,
        "image-2": 0,
        "no-hits": 0,
        "odd-hits": 0,
    }
    assert {image["checksum"] for image in driver.get_cached_images()} == {None}
    with driver.open_for_read("image-2") as entry:
        assert entry.record is None
    assert driver.get_queued_images() == ["image-3"]
    assert [i["reason"] for i in driver.get_invalid_images()] == ["bad checksum"]
    assert not driver.is_being_cached("image-4")
    for image_id in ("image-2", "odd-hits"):
        hit(driver, image_id)
    driver.flush_hits()
    assert driver.get_hit_count("image-2") == driver.get_hit_count("odd-hits") == 1
    assert driver.evict(2**40)[0] == 4
    driver.close()
