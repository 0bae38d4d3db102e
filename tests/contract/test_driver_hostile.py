"""Links and other surprises in a cache directory, and directories that go."""

import os
from pathlib import Path

import pytest

from cachemw.drivers import _xattrs
from cachemw.drivers.base import Record
from cachemw.errors import (
    BadDriverConfiguration,
    DriverError,
    ImageNotFound,
)

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    hit,
    ids,
    open_descriptors,
    open_driver,
    path_of,
    plant,
    read,
    settled_descriptors,
    store,
)


def remove_tree(directory):
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    directory.rmdir()


def test_a_link_in_the_place_of_an_entry_is_not_followed(driver, victim):
    plant(path_of(driver, "cat"), victim)

    with pytest.raises(ImageNotFound):
        driver.open_for_read("cat")
    hit(driver, "cat")
    assert driver.get_hit_count("cat") == 0
    driver.invalidate("cat", "for the test")
    assert (ids(driver), driver.get_cache_size(), driver.get_usage()) == ([], 0, 0)
    assert driver.delete_cached_image("cat") is False
    assert driver.delete_all_cached_images() == 0
    assert driver.evict(1) == (0, 0)
    store(driver, "cat", BODY)
    assert read(driver, "cat") == BODY
    assert driver.get_usage() == len(BODY)
    assert_sound(driver)


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe"])
@pytest.mark.parametrize("clean_first", [False, True])
def test_something_else_in_the_place_of_a_fill_is_not_written_to(driver, victim, kind, clean_first):
    path = path_of(driver, "cat", "incomplete")
    if kind == "symbolic link":
        plant(path, victim)
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        os.mkfifo(path)

    assert not driver.is_being_cached("cat")
    if clean_first:
        driver.clean(0)
        driver.evict(1)
    store(driver, "cat", BODY)
    assert read(driver, "cat") == BODY
    assert_sound(driver)


def test_a_hard_link_planted_while_filling_voids_the_fill(driver, victim):
    sink = driver.start_fill("cat")
    sink.write(b"image")
    path = path_of(driver, "cat", "incomplete")
    path.unlink()
    path.hardlink_to(victim)

    with pytest.raises(DriverError, match="deleted or changed"):
        sink.commit(driver.describe("cat", sink))
    assert not driver.is_cached("cat")


@pytest.mark.parametrize("name", ["incomplete", "invalid", "queue", ".records", ".sums", ".lock"])
def test_a_link_in_the_place_of_a_part_stops_the_start(driver_name, tmp_path, victim, name):
    directory, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    (directory / name).symlink_to(victim if name == ".lock" else elsewhere)

    with pytest.raises(BadDriverConfiguration) as caught:
        open_driver(driver_name, directory)
    assert caught.value.driver == driver_name
    assert caught.value.directory == str(directory)
    assert "without symbolic links" in caught.value.mend
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("driver_name", ["xattr"], indirect=True)
def test_a_link_in_the_place_of_the_probe_is_not_followed(driver_name, tmp_path, victim):
    incomplete = tmp_path / "cache" / "incomplete"
    incomplete.mkdir(parents=True)
    (incomplete / f".probe-{os.getpid()}").symlink_to(victim)

    with pytest.raises(BadDriverConfiguration):
        open_driver(driver_name, tmp_path / "cache")


@pytest.mark.parametrize("what", ["link", "directory", "pipe"])
def test_something_else_in_the_place_of_a_record_is_no_record(driver, victim, what):
    store(driver, "cat", BODY, LONG_HEADERS)
    record = Path(driver.directory) / ".records" / "cat"
    if what == "link":
        plant(record, victim)
    else:
        record.unlink()
        record.mkdir() if what == "directory" else os.mkfifo(record)

    try:
        with driver.open_for_read("cat") as entry:
            assert entry.record is None
    except DriverError:
        pass
    assert ids(driver) == ["cat"]
    assert driver.evict(1) == (1, len(BODY))


def test_directories_in_the_place_of_entries_are_left_alone(driver):
    path_of(driver, "cat").mkdir()

    assert not driver.is_cached("cat")
    assert driver.delete_cached_image("cat") is False
    assert driver.delete_all_cached_images() == 0
    assert driver.evict(1) == (0, 0)
    with pytest.raises(DriverError, match="directory"):
        store(driver, "cat")
    assert ids(driver) == []


def test_the_cache_directory_itself_may_be_a_link(driver_name, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "cache").symlink_to("real")
    driver = open_driver(driver_name, tmp_path / "cache")
    store(driver, "cat")
    driver.close()

    assert (tmp_path / "real" / "cat").read_bytes() == b"image"


@pytest.mark.parametrize("where", ["file", "below a file"])
def test_a_directory_that_cannot_be_made_is_named(driver_name, tmp_path, where):
    (tmp_path / "file").write_bytes(b"")
    directory = tmp_path / "file" if where == "file" else tmp_path / "file" / "cache"

    before = settled_descriptors()
    for _ in range(3):
        with pytest.raises(BadDriverConfiguration) as caught:
            open_driver(driver_name, directory)
    assert str(directory) in str(caught.value)
    assert driver_name in str(caught.value)
    assert caught.value.mend in str(caught.value)
    assert open_descriptors() == before


def test_a_failed_start_leaves_no_descriptor_open(driver_name, tmp_path):
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / "queue").write_bytes(b"")
    before = settled_descriptors()
    for _ in range(5):
        with pytest.raises(BadDriverConfiguration):
            open_driver(driver_name, directory)

    assert open_descriptors() == before


def test_a_directory_that_is_removed_while_running_is_made_again(driver, tmp_path):
    store(driver, "cat")
    sink = driver.start_fill("dog")
    remove_tree(tmp_path / "cache")

    assert not driver.is_cached("cat")
    assert not driver.is_being_cached("dog")
    assert not driver.is_queued("cat")
    assert not driver.delete_cached_image("cat")
    hit(driver, "cat")
    driver.flush_hits()
    for call in (
        lambda: driver.queue_image("cat"),
        lambda: driver.get_usage(),
        lambda: sink.commit(Record("dog", 0, "md5:" + "0" * 32)),
    ):
        with pytest.raises(DriverError):
            call()

    store(driver, "cat", b"again")
    assert read(driver, "cat") == b"again"
    assert driver.queue_image("dog")
    assert_sound(driver)


def test_a_directory_that_cannot_be_made_again_is_a_drivers_error(driver, tmp_path):
    remove_tree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file now")

    with pytest.raises(DriverError):
        driver.start_fill("cat")
    assert not driver.is_cached("cat")


@pytest.mark.parametrize("driver_name", ["xattr"], indirect=True)
def test_attributes_that_vanish_while_running_are_a_drivers_error(
    make_driver, tmp_path, no_attributes, monkeypatch
):
    """The mount below was changed: no configuration error may reach a request."""
    monkeypatch.undo()
    driver = make_driver("xattr")
    remove_tree(tmp_path / "cache")
    monkeypatch.setattr(_xattrs, "_set", lambda *a: (_ for _ in ()).throw(OSError(95, "no")))

    with pytest.raises(DriverError, match="no extended attributes"):
        driver.start_fill("cat")
