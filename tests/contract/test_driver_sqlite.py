"""The index of the sqlite driver: broken, lost, planted, inherited from Glance."""

import os
import sqlite3
from pathlib import Path

import pytest

from cachemw.drivers import _index
from cachemw.errors import (
    BadDriverConfiguration,
    DriverError,
)

from .drivers import (
    BODY,
    assert_sound,
    hit,
    ids,
    open_driver,
    plant,
    read,
    store,
)


@pytest.fixture
def driver_name():
    return "sqlite"


def test_hits_only_do_not_make_the_log_grow_for_ever(driver, driver_name, monkeypatch):
    monkeypatch.setattr(_index, "CHECKPOINT_AT", 64 * 1024)
    store(driver, "cat")
    for _ in range(100):
        hit(driver, "cat")
        driver.flush_hits()

    assert os.path.getsize(driver.index.path + "-wal") < 128 * 1024
    assert driver.get_hit_count("cat") == 100


def test_a_link_in_the_place_of_the_index_stops_the_start(tmp_path, victim):
    directory = tmp_path / "cache"
    directory.mkdir()
    (directory / "cache.db").symlink_to(victim)

    with pytest.raises(BadDriverConfiguration, match=r"cache\.db is a symbolic link; remove it"):
        open_driver("sqlite", directory)


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal"])
def test_links_in_the_place_of_the_index_are_not_followed_while_running(
    driver, driver_name, victim, name
):
    store(driver, "cat")
    driver.index.close()
    plant(Path(driver.directory) / name, victim)

    store(driver, "dog")  # indexed later
    assert read(driver, "dog") == b"image"
    assert read(driver, "cat") == b"image"
    try:
        driver.get_cached_images()
    except DriverError:
        pass
    os.unlink(Path(driver.directory) / name)
    driver.get_usage()  # whoever takes the lock next repairs
    assert ids(driver) == ["cat", "dog"]


BREAKINGS = {
    "garbage": lambda path: path.write_bytes(b"not a database" * 1000),
    "garbage of the same length": lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
    "empty": lambda path: path.write_bytes(b""),
    "cut in the middle": lambda path: os.truncate(path, 6000),
    "cut inside the first page": lambda path: os.truncate(path, 100),
    "deleted": lambda path: path.unlink(),
    "all deleted": lambda path: [p.unlink() for p in path.parent.glob("cache.db*")],
    "another database": lambda path: make_foreign(path),
}


def make_foreign(path):
    for old in path.parent.glob("cache.db*"):
        old.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (something TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("running", [False, True], ids=["at rest", "while running"])
@pytest.mark.parametrize("breaking", BREAKINGS)
def test_a_broken_index_is_made_again_from_the_files(
    driver_name, tmp_path, breaking, running, caplog
):
    driver = open_driver(driver_name, tmp_path / "cache")
    stored = sorted(f"image/{number}" for number in range(50))
    for image_id in stored:
        store(driver, image_id, BODY)
    assert ids(driver) == stored
    if not running:
        driver.close()
    BREAKINGS[breaking](tmp_path / "cache" / "cache.db")
    if not running:
        driver = open_driver(driver_name, tmp_path / "cache")

    assert read(driver, "image/7") == BODY  # whatever the index is like
    store(driver, "new", BODY)
    assert driver.delete_cached_image("image/7")
    hit(driver, "image/8")
    assert driver.get_hit_count("image/8") == 1
    stored.remove("image/7")
    assert ids(driver) == [*stored, "new"]
    assert_sound(driver)
    driver.close()


def test_an_index_that_is_made_is_not_believed_before_it_is_whole(
    driver_name, tmp_path, run_python
):
    """The process that makes it dies in the middle."""
    directory = tmp_path / "cache"
    driver = open_driver(driver_name, directory)
    for number in range(20):
        store(driver, f"image-{number}", BODY)
    driver.close()
    os.unlink(directory / "cache.db")
    run_python(
        """
import os, sys
from cachemw.drivers import sqlite
from tests.contract.drivers import new_driver
sqlite._BATCH = 5
put = sqlite._index.Index.put
def put_once(index, rows):
    put(index, rows)
    os._exit(0)
sqlite._index.Index.put = put_once
new_driver("sqlite", sys.argv[1]).configure()
""",
        directory,
    )

    driver = open_driver(driver_name, directory)
    assert len(ids(driver)) == 20
    assert_sound(driver)
    driver.close()


def test_a_broken_index_costs_no_download_even_if_it_cannot_be_replaced(
    driver, driver_name, monkeypatch
):
    store(driver, "cat", BODY)

    def locked(connection):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(driver.index, "_connect", lambda: locked(None))
    assert read(driver, "cat") == BODY
    store(driver, "dog", BODY)
    assert read(driver, "dog") == BODY
    assert not driver.is_cached("emu")
    hit(driver, "cat")
    driver.flush_hits()
    with pytest.raises(DriverError, match="locked"):
        driver.get_cached_images()
    # What makes room needs no index.
    assert driver.get_cache_size() == driver.get_usage() == 2 * len(BODY)
    assert driver.get_least_recently_accessed() in [("cat", len(BODY)), ("dog", len(BODY))]
    assert driver.delete_cached_image("cat")
    assert not driver.is_cached("cat")
    store(driver, "emu", b"")
    assert driver.evict(1) in [(1, len(BODY)), (2, len(BODY))]
    assert not driver.is_cached("dog")
    store(driver, "dog", BODY)
    driver.delete_cached_image("emu")
    monkeypatch.undo()

    driver.get_usage()  # whoever takes the lock next repairs
    assert ids(driver) == ["dog"]
    assert_sound(driver)


GLANCE_TABLE = """
CREATE TABLE IF NOT EXISTS cached_images (
    image_id TEXT PRIMARY KEY,
    last_accessed REAL DEFAULT 0.0,
    last_modified REAL DEFAULT 0.0,
    size INTEGER DEFAULT 0,
    hits INTEGER DEFAULT 0,
    checksum TEXT)
"""


def make_glance_index(directory, rows):
    directory.mkdir()
    connection = sqlite3.connect(directory / "cache.db")
    connection.execute(GLANCE_TABLE)
    connection.executemany("INSERT INTO cached_images VALUES (?, ?, ?, ?, ?, NULL)", rows)
    connection.commit()
    connection.close()
    for image_id, *_ in rows:
        if image_id != "gone":
            (directory / image_id).write_bytes(BODY)


def test_an_sqlite_directory_of_glance_opens_with_its_hits_and_its_order(driver_name, tmp_path):
    make_glance_index(
        tmp_path / "cache",
        [
            ("image-1", 2000.0, 1000.0, len(BODY), 5),
            ("image-2", 1000.0, 1000.0, len(BODY), 0),
            ("odd", "never", None, len(BODY), "many"),
            ("gone", 500.0, 500.0, 10, 9),
        ],
    )
    driver = open_driver(driver_name, tmp_path / "cache")

    assert {i["image_id"]: i["hits"] for i in driver.get_cached_images()} == {
        "image-1": 5,
        "image-2": 0,
        "odd": 0,
    }
    assert driver.get_cache_size() == 3 * len(BODY)
    driver.delete_cached_image("odd")
    assert driver.get_least_recently_accessed() == ("image-2", len(BODY))
    hit(driver, "image-1")
    assert driver.get_hit_count("image-1") == 6
    driver.close()

    os.unlink(tmp_path / "cache" / ".lock")
    driver = open_driver(driver_name, tmp_path / "cache")
    assert driver.get_hit_count("image-1") == 6
    driver.close()


@pytest.mark.usefixtures("attributes")
def test_an_sqlite_directory_of_glance_opens_with_the_xattr_driver_too(tmp_path):
    make_glance_index(tmp_path / "cache", [("image-1", 2000.0, 1000.0, len(BODY), 5)])
    driver = open_driver("xattr", tmp_path / "cache")

    assert ids(driver) == ["image-1"]
    driver.close()
