"""Variants of one image, and records that are given to an entry later, over every driver."""

import dataclasses
import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw import names
from cachemw.drivers import _memory, _records, _xattrs
from cachemw.drivers.base import MOST_VARIANTS, Record
from cachemw.errors import DriverError, ImageCorrupt, ImageNotFound

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

EVERY = range(MOST_VARIANTS)


def variant_path(driver, image_id, variant):
    return Path(driver.directory) / names.entry_name(image_id, variant)


def store_all(driver, image_id="cat", variants=EVERY):
    for variant in variants:
        store(driver, image_id, b"%d" % variant * (variant + 1), variant=variant)


# Variants


@pytest.mark.parametrize("image_id", ["cat", "a/b", "\ud800", "x" * 2000], ids=ascii)
def test_variants_of_an_image_have_bytes_and_records_of_their_own(driver, image_id):
    store_all(driver, image_id)

    for variant in EVERY:
        with driver.open_for_read(image_id, variant) as entry:
            assert entry.read() == b"%d" % variant * (variant + 1)
            assert (entry.image_id, entry.record.variant) == (image_id, variant)
    assert ids(driver) == [image_id] * MOST_VARIANTS
    assert list(driver.other_variants(image_id)) == [*range(1, MOST_VARIANTS)]
    assert_sound(driver)


def test_variant_that_is_not_there_is_not_found(driver):
    store_all(driver, variants=[0, 2])

    with pytest.raises(ImageNotFound):
        driver.open_for_read("cat", 1)
    assert driver.identity("cat", 1) is None
    assert driver.identity("cat", 2) is not None
    assert 2 in driver.other_variants("cat")


IDS = st.text(st.characters(), min_size=1, max_size=30)
NUMBERS = st.integers(min_value=0, max_value=MOST_VARIANTS - 1)


@given(one=IDS, number=NUMBERS, other=IDS, other_number=NUMBERS)
@example(one="cat", number=1, other="cat1", other_number=0)
@example(one="cat/", number=1, other="cat/1", other_number=0)
@example(one="cat", number=1, other="cat\xff1", other_number=0)
@example(one="cat", number=1, other="cat\udcff1", other_number=0)
@example(one="cat", number=1, other=names.entry_name("cat", 1), other_number=0)
def test_no_two_share_a_name(one, number, other, other_number):
    same = (one, number) == (other, other_number)

    assert (names.entry_name(one, number) == names.entry_name(other, other_number)) is same
    assert names.is_entry_name(names.entry_name(one, number))
    if number:
        assert not names.is_safe_name(names.entry_name(one, number))


def test_name_of_a_variant_is_the_documented_one():
    """docs/formats/cache-directory.rst, "Names"."""
    digest = sha256(b"cat\xff1")

    assert names.entry_name("cat", 1) == f"_{digest}"
    assert digest == "f5663d3787407e72fccce85e4141af13fd9edc35012a1264a48724679e370e9a"


def test_id_that_looks_like_a_variants_file_is_another_image(driver):
    look_alike = names.entry_name("cat", 1)
    store_all(driver, variants=[0, 1])
    store(driver, look_alike, b"mine")

    assert read(driver, "cat", 1) == b"11"
    assert read(driver, look_alike) == b"mine"
    driver.delete_cached_image(look_alike)
    assert read(driver, "cat", 1) == b"11"


def test_file_of_another_variant_is_not_served_for_it(driver):
    """As ``cp -a`` leaves it."""
    store_all(driver, variants=[0, 1])
    os.rename(variant_path(driver, "cat", 1), variant_path(driver, "cat", 2))

    with pytest.raises(ImageNotFound):
        driver.open_for_read("cat", 2)


def test_deleting_takes_every_variant_and_no_other_image(driver):
    store_all(driver)
    store_all(driver, "dog", [0, 3])

    assert driver.delete_cached_image("cat")
    assert not driver.delete_cached_image("cat")
    assert not driver.is_cached("cat")
    assert ids(driver) == ["dog", "dog"]
    assert_sound(driver)


def test_deleting_works_without_the_first(driver):
    store_all(driver, variants=[3, 5])

    assert driver.is_cached("cat")
    assert driver.delete_cached_image("cat")
    assert ids(driver) == []
    assert_sound(driver)


def test_deleting_voids_the_fills_of_every_variant(driver):
    store_all(driver, variants=[1])
    sinks = [driver.start_fill("cat", variant) for variant in EVERY]
    for sink in sinks:
        sink.write(b"old")
    driver.delete_cached_image("cat")

    for variant, sink in enumerate(sinks):
        with pytest.raises(DriverError, match="deleted"):
            sink.commit(Record("cat", 3, f"sha256:{sha256(b'old')}", variant=variant))
    assert not driver.is_cached("cat")
    assert_sound(driver)


def test_variants_are_filled_side_by_side(driver):
    sinks = [driver.start_fill("cat", variant) for variant in EVERY]
    assert driver.is_being_cached("cat")
    with pytest.raises(DriverError, match="being filled already"):
        driver.start_fill("cat", 3)
    for variant, sink in enumerate(sinks):
        sink.write(b"%d" % variant)
        sink.commit(Record("cat", 1, f"sha256:{sha256(b'%d' % variant)}", variant=variant))

    assert [read(driver, "cat", variant) for variant in EVERY] == [b"%d" % v for v in EVERY]
    assert not driver.is_being_cached("cat")
    assert_sound(driver)


def test_a_fill_of_a_later_variant_alone_counts_as_one(driver):
    sink = driver.start_fill("cat", 5)
    assert driver.is_being_cached("cat")
    assert not driver.is_cacheable("cat")
    sink.rollback("done")
    assert driver.is_cacheable("cat")


def test_a_commit_of_any_variant_takes_the_image_out_of_the_queue(driver):
    driver.queue_image("cat")
    driver.queue_image("dog")
    store_all(driver, variants=[4])

    assert driver.get_queued_images() == ["dog"]


def test_hits_are_each_variants_own_and_the_images_together(driver):
    store_all(driver, variants=[0, 1, 2])
    for variant, hits in ((0, 1), (2, 3)):
        for _ in range(hits):
            driver.record_hit("cat", time.time(), variant)

    sizes = {image["size"]: image["hits"] for image in driver.get_cached_images()}
    assert sizes == {1: 1, 2: 0, 3: 3}
    assert driver.get_hit_count("cat") == 4
    store(driver, "cat", b"replaced", variant=2)
    assert driver.get_hit_count("cat") == 4


def test_the_variant_read_longest_ago_is_evicted(driver):
    store_all(driver, variants=[0, 1, 2])
    for age, variant in ((30, 1), (20, 0), (10, 2)):
        driver.record_hit("cat", time.time() + 1000 - age, variant)
    driver.flush_hits()

    assert driver.get_least_recently_accessed() == ("cat", 2)
    assert driver.evict(1) == (1, 2)
    assert [read(driver, "cat", variant) for variant in (0, 2)] == [b"0", b"222"]
    assert driver.evict(1) == (1, 1)
    assert driver.is_cached("cat")
    assert driver.get_image_size("cat") == 3
    with driver.open_any("cat") as entry:
        assert entry.read() == b"222"
    assert_sound(driver)


def test_damage_of_one_is_not_the_others(driver):
    store_all(driver, variants=[0, 1, 2])
    driver.invalidate("cat", "for the test", 1)
    with open(variant_path(driver, "cat", 2), "ab") as file:
        file.write(b"x")

    with pytest.raises(ImageNotFound):
        driver.open_for_read("cat", 1)
    with pytest.raises(ImageCorrupt):
        driver.open_for_read("cat", 2)
    assert read(driver, "cat") == b"0"
    assert [image["image_id"] for image in driver.get_invalid_images()] == ["cat", "cat"]
    assert_sound(driver)


def test_what_is_only_damaged_is_said_to_be(driver):
    store(driver, "cat")
    path_of(driver, "cat").write_bytes(b"longer than it was")

    with pytest.raises(ImageCorrupt):
        driver.open_any("cat")
    with pytest.raises(ImageNotFound):
        driver.open_any("cat")


def test_variants_are_there_after_a_restart_without_index(make_driver):
    driver = make_driver()
    store_all(driver)
    store(driver, "cat", b"long", LONG_HEADERS, variant=3)
    before = driver.get_cached_images()
    driver.close()
    for path in Path(driver.directory).iterdir():
        if path.name.startswith("cache.db") or path.name == ".lock":
            path.unlink()

    driver = make_driver()
    known = [
        sorted((image["image_id"], image["size"], image["checksum"]) for image in images)
        for images in (before, driver.get_cached_images())
    ]
    assert known[0] == known[1]
    assert_sound(driver)


# Another record


@pytest.fixture(params=["short", "longer", "long", "shorter", "no attributes"])
def headers(request, driver_name, monkeypatch):
    """Fields of an entry, and those that it is given: in the attribute or aside."""
    short = (("A", "1"),), (("A", "2"),)
    long = LONG_HEADERS, (*LONG_HEADERS, ("A", "2"))
    if request.param == "no attributes":
        if driver_name == "xattr":
            pytest.skip("the xattr driver needs attributes")
        request.getfixturevalue("no_attributes")
        return short
    return {
        "short": short,
        "longer": (short[0], long[1]),
        "long": long,
        "shorter": (long[0], short[1]),
    }[request.param]


def renewed(entry, headers):
    return dataclasses.replace(entry.record, headers=headers, stored=12.5, age=3.0)


def fields_of(driver, image_id, variant=0):
    with driver.open_for_read(image_id, variant) as entry:
        return entry.record.headers


@pytest.fixture
def later(monkeypatch):
    """Let every file have come to rest long ago, so that what was read of it is remembered."""
    now = _memory.time.time_ns
    monkeypatch.setattr(_memory.time, "time_ns", lambda: now() + 10**10)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("variant", [0, 2])
@pytest.mark.parametrize("image_id", ["cat", "a/b"])
def test_another_record_is_seen_by_everyone_at_once(make_driver, headers, image_id, variant):
    one, two = make_driver(), make_driver()
    old, new = headers
    store(one, image_id, BODY, old, variant)
    for driver in (one, two, one, two):
        assert fields_of(driver, image_id, variant) == old
    before = two.identity(image_id, variant)

    with one.open_for_read(image_id, variant) as entry:
        assert one.update(entry, renewed(entry, new))
        assert entry.read() == BODY

    for driver in (two, one):
        with driver.open_for_read(image_id, variant) as entry:
            record = entry.record
            assert (record.headers, record.stored, record.age) == (new, 12.5, 3.0)
            assert (record.variant, record.checksum) == (variant, f"sha256:{sha256(BODY)}")
            assert entry.read() == BODY
    assert two.identity(image_id, variant) != before
    assert_sound(two)


def test_another_record_is_there_after_a_restart(make_driver, headers):
    driver = make_driver()
    store(driver, "a/b", BODY, headers[0])
    with driver.open_for_read("a/b") as entry:
        driver.update(entry, renewed(entry, headers[1]))
    driver.close()

    assert fields_of(make_driver(), "a/b") == headers[1]


def test_another_record_changes_nothing_else(driver, headers):
    store(driver, "cat", BODY, headers[0])
    store(driver, "cat", b"other", headers[0], variant=1)
    driver.record_hit("cat", time.time())
    (before,) = [image for image in driver.get_cached_images() if image["size"] == len(BODY)]
    with driver.open_for_read("cat") as entry:
        driver.update(entry, renewed(entry, headers[1]))

    (after,) = [image for image in driver.get_cached_images() if image["size"] == len(BODY)]
    assert {**after, "last_accessed": 0} == {**before, "last_accessed": 0}
    assert after["last_accessed"] >= before["last_accessed"]
    assert fields_of(driver, "cat", 1) == headers[0]
    assert_sound(driver)


@pytest.mark.parametrize("image_id", ["cat", "a/b"])
def test_entry_that_was_replaced_meanwhile_gets_no_other_record(driver, headers, image_id):
    store(driver, image_id, BODY, headers[0])
    with driver.open_for_read(image_id) as entry:
        store(driver, image_id, b"new", headers[0])

        assert not driver.update(entry, renewed(entry, headers[1]))
        assert entry.read() == BODY

    assert read(driver, image_id) == b"new"
    assert fields_of(driver, image_id) == headers[0]
    assert_sound(driver)


def test_entry_that_was_deleted_meanwhile_gets_no_other_record(driver, headers):
    store(driver, "a/b", BODY, headers[0])
    with driver.open_for_read("a/b") as entry:
        driver.delete_cached_image("a/b")
        assert not driver.update(entry, renewed(entry, headers[1]))

    assert not driver.is_cached("a/b")
    assert os.listdir(Path(driver.directory) / ".records") == []
    assert_sound(driver)


def test_who_reads_while_the_record_moves_meets_one(make_driver, monkeypatch):
    """A file under a name that is no id would be given up without its record."""
    driver, other = make_driver(), make_driver()
    store(driver, "a/b", BODY, (("A", "1"),))
    met = []

    def look():
        met.append(fields_of(other, "a/b"))

    for name in ("set", "remove"):
        own = getattr(_xattrs, name)
        monkeypatch.setattr(
            _xattrs, name, lambda *arguments, own=own: (look(), own(*arguments), look())
        )
    finish = _records.finish
    monkeypatch.setattr(
        _records, "finish", lambda *arguments: (look(), finish(*arguments), look())[1]
    )
    for new in (LONG_HEADERS, (("A", "2"),)):
        with driver.open_for_read("a/b") as entry:
            driver.update(entry, renewed(entry, new))
    monkeypatch.undo()

    assert set(met) <= {(("A", "1"),), LONG_HEADERS, (("A", "2"),)}
    assert len(met) >= 4
    assert_sound(driver)


def test_record_that_cannot_be_written_leaves_the_older_one(driver, headers, monkeypatch):
    store(driver, "a/b", BODY, headers[0])

    def full(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    with driver.open_for_read("a/b") as entry, monkeypatch.context() as patch:
        patch.setattr(_xattrs, "_set", full)
        patch.setattr(_records.os, "write", full)
        with pytest.raises(DriverError, match="input/output error"):
            driver.update(entry, renewed(entry, headers[1]))

    assert fields_of(driver, "a/b") == headers[0]
    assert read(driver, "a/b") == BODY
    assert_sound(driver)
