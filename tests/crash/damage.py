"""Every kind of damage that a cache directory can have, done to a sound one.

Each function damages a directory that :func:`fill` made, and gives the names
that a check must name; the images that it costs are in :data:`LOST`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from cachemw import names
from cachemw.drivers import _records
from tests.contract.drivers import LONG_HEADERS, open_driver, pattern, read, store

#: Images by id: a safe name; none; a large one; one with its record aside; both of that.
IMAGES = {
    "cat": pattern(1000, "cat"),
    "a/b": pattern(2000, "a/b"),
    "large": pattern(600_000, "large"),
    "aside": pattern(3000, "aside"),
    "aside/large": pattern(700_000, "aside/large"),
    "other": pattern(4000, "other"),
    "varied": pattern(5000, "varied"),
}

#: Those with more fields than an attribute of ext4 takes.
ASIDE = ("aside", "aside/large")


def fill(directory: Path, driver_name: str) -> None:
    """Store all of them."""
    driver = open_driver(driver_name, directory)
    for image_id, body in IMAGES.items():
        store(driver, image_id, body, LONG_HEADERS if image_id in ASIDE else ())
    store(driver, "varied", b"variant", variant=1)
    driver.queue_image("waits")
    driver.queue_image("waits/too")
    driver.close()


def intact(directory: Path, driver_name: str) -> set[str]:
    """Give the ids of the images that are there; all of them are right."""
    driver = open_driver(driver_name, directory)
    try:
        present = {image_id for image_id in IMAGES if driver.is_cached(image_id)}
        for image_id in present:
            assert read(driver, image_id) == IMAGES[image_id]
        listed = {image["image_id"] for image in driver.get_cached_images()}
        assert present <= listed
        assert driver.get_queued_images() == ["waits", "waits/too"]
        return present
    finally:
        driver.close()


def entry(image_id: str, variant: int = 0) -> str:
    return names.entry_name(image_id, variant)


@contextlib.contextmanager
def times_kept(path: Path):
    """As a disk does it: the file's times do not tell."""
    status = path.stat()
    yield
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path, at: int) -> None:
    with times_kept(path), open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


# Entries


def entry_cut(directory):
    path = directory / "cat"
    with times_kept(path):
        os.truncate(path, 999)
    return {"cat"}


def large_entry_cut(directory):
    path = directory / entry("aside/large")
    with times_kept(path):
        os.truncate(path, 300_000)
    return {path.name}


def entry_longer(directory):
    with open(directory / "cat", "ab") as file:
        file.write(b"more")
    return {"cat"}


def entry_flipped(directory):
    flip(directory / entry("a/b"), 1234)
    return {entry("a/b")}


def large_entry_flipped(directory):
    flip(directory / "large", 599_999)
    return {"large"}


def entry_with_record_aside_flipped(directory):
    flip(directory / "aside", 0)
    return {"aside"}


def entry_with_record_aside_changed(directory):
    path = directory / "aside"
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, 0))
    return {"aside"}


def entry_touched(directory):
    os.utime(directory / entry("aside/large"), ns=(0, 10**18))
    return {entry("aside/large")}


def variant_flipped(directory):
    flip(directory / entry("varied", 1), 3)
    return {entry("varied", 1)}


def entry_missing(directory):
    (directory / "large").unlink()
    return {".sums/large"}


def entry_stray(directory):
    """Copied there by somebody; with a name that nothing tells the id of."""
    (directory / "_".ljust(65, "0")).write_bytes(b"stray")
    return {"_".ljust(65, "0")}


def entry_in_the_place_of_another(directory):
    os.replace(directory / "other", directory / "large")
    return {"large"}


def record_damaged(directory):
    data = os.getxattr(directory / "cat", _records.ATTRIBUTE)
    os.setxattr(directory / "cat", _records.ATTRIBUTE, data[:-1])
    return {"cat"}


def record_that_nobody_can_do_without_damaged(directory):
    path = directory / entry("a/b")
    data = os.getxattr(path, _records.ATTRIBUTE)
    os.setxattr(path, _records.ATTRIBUTE, data.replace(b"a/b", b"a/c"))
    return {path.name}


def record_aside_missing(directory):
    (directory / ".records" / entry("aside/large")).unlink()
    return {entry("aside/large")}


# Leftovers


def stray_record(directory):
    (directory / ".records" / "gone").write_bytes(b"1 2\n")
    return {".records/gone"}


def half_records(directory):
    for name in (".gone-5", ".cat-5", ".half"):
        (directory / ".records" / name).write_bytes(b"1 2\n")
    return {".records/.gone-5", ".records/.cat-5", ".records/.half"}


def record_twice(directory):
    (directory / ".records" / "cat").write_bytes(b"1 2\n")
    return {".records/cat"}


def stray_sums(directory):
    shutil.copyfile(directory / ".sums" / "large", directory / ".sums" / "gone")
    (directory / ".sums" / "gone").chmod(0o600)
    return {".sums/gone"}


def sums_flipped(directory):
    path = directory / ".sums" / "large"
    flip(path, path.stat().st_size - 1)
    return {".sums/large"}


def old_fill(directory):
    path = directory / "incomplete" / "gone"
    path.write_bytes(b"half")
    path.chmod(0o600)
    os.utime(path, (0, 0))
    return {"incomplete/gone"}


def strays_of_fills(directory):
    strays = (".gone.5.fill", ".gone.new", ".probe-999999999")
    for name in strays:
        (directory / "incomplete" / name).touch(0o600)
    return {f"incomplete/{name}" for name in strays}


def stray_reason(directory):
    (directory / "invalid" / ".gone.reason").touch(0o600)
    return {"invalid/.gone.reason"}


def stray_in_the_queue(directory):
    strays = ("_".ljust(65, "0"), ".gone.json", ".waits.json.123", "no name")
    for name in strays:
        (directory / "queue" / name).touch(0o600)
    return {f"queue/{name}" for name in strays}


# Modes, links, other kinds of files


def modes(directory):
    for name in ("cat", ".records/aside", "queue/waits", ".lock"):
        (directory / name).chmod(0o644)
    (directory / "large").chmod(0o060)
    (directory / "incomplete").chmod(0o755)
    (directory / "queue").chmod(0o777)
    directory.chmod(0o777)
    return {"cat", ".records/aside", "queue/waits", ".lock", "large", "incomplete", "queue", "."}


def link_in_the_place_of_an_entry(directory):
    (directory / "cat").unlink()
    (directory / "cat").symlink_to(directory / "other")
    return {"cat"}


def dangling_link_in_each_folder(directory):
    folders = ("incomplete", "invalid", "queue", ".records", ".sums")
    for folder in folders:
        (directory / folder / "link").symlink_to("/nonexistent")
    return {f"{folder}/link" for folder in folders}


def link_in_the_place_of_a_folder(directory):
    elsewhere = directory.parent / "precious"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"precious")
    (directory / "invalid").rmdir()
    (directory / "invalid").symlink_to(elsewhere)
    return {"invalid"}


def link_in_the_place_of_the_lock(directory):
    os.rename(directory / ".lock", directory.parent / "elsewhere")
    (directory / ".lock").symlink_to(directory.parent / "elsewhere")
    return {".lock"}


def pipe_in_the_place_of_an_entry(directory):
    (directory / "cat").unlink()
    os.mkfifo(directory / "cat")
    return {"cat"}


def directory_in_the_place_of_an_entry(directory):
    (directory / "cat").unlink()
    (directory / "cat").mkdir(mode=0o700)
    return {"cat"}


def folder_missing(directory):
    (directory / "invalid").rmdir()
    return {"invalid"}


# The index (sqlite)


@contextlib.contextmanager
def index(directory):
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        yield connection
        connection.commit()


def changing_index(statement, *named):
    def change(directory):
        with index(directory) as connection:
            assert connection.execute(statement).rowcount
        return set(named)

    return change


def index_gone(directory):
    (directory / "cache.db").unlink()
    return {"cache.db"}


def index_cut(directory):
    os.truncate(directory / "cache.db", 5000)
    return {"cache.db"}


def index_emptied(directory):
    os.truncate(directory / "cache.db", 0)
    return {"cache.db"}


def index_flipped_in(find: bytes):
    def change(directory):
        path = directory / "cache.db"
        at = path.read_bytes().index(find)
        flip(path, at)
        return {"cache.db"}

    return change


def index_no_database(directory):
    (directory / "cache.db").write_bytes(b"not a database" * 1000)
    return {"cache.db"}


def index_a_link(directory):
    os.rename(directory / "cache.db", directory.parent / "elsewhere")
    (directory / "cache.db").symlink_to(directory.parent / "elsewhere")
    return {"cache.db"}


Damage = Callable[[Path], set[str]]

#: With any driver.
OF_FILES: dict[str, Damage] = {
    function.__name__: function
    for function in (
        entry_cut,
        large_entry_cut,
        entry_longer,
        entry_flipped,
        large_entry_flipped,
        entry_with_record_aside_flipped,
        entry_with_record_aside_changed,
        entry_touched,
        variant_flipped,
        entry_missing,
        entry_stray,
        entry_in_the_place_of_another,
        record_damaged,
        record_that_nobody_can_do_without_damaged,
        record_aside_missing,
        stray_record,
        half_records,
        record_twice,
        stray_sums,
        sums_flipped,
        old_fill,
        strays_of_fills,
        stray_reason,
        stray_in_the_queue,
        modes,
        link_in_the_place_of_an_entry,
        dangling_link_in_each_folder,
        link_in_the_place_of_a_folder,
        link_in_the_place_of_the_lock,
        pipe_in_the_place_of_an_entry,
        directory_in_the_place_of_an_entry,
        folder_missing,
    )
}

#: With the sqlite driver only.
OF_INDEX: dict[str, Damage] = {
    "row_missing": changing_index("DELETE FROM entries WHERE name = 'cat'", "cat"),
    "row_stray": changing_index(
        "INSERT INTO entries (name, id, size, accessed, modified) VALUES ('gone', 'gone', 9, 0, 0)",
        "gone",
    ),
    "row_of_another_size": changing_index("UPDATE entries SET size = 9 WHERE name = 'cat'", "cat"),
    "row_of_another_id": changing_index("UPDATE entries SET id = x'78' WHERE name = 'cat'", "cat"),
    "row_of_another_checksum": changing_index(
        "UPDATE entries SET checksum = 'md5:00' WHERE name = 'cat'", "cat"
    ),
    "total_wrong": changing_index("UPDATE totals SET size = size + 1", "cache.db"),
    "total_missing": changing_index("DELETE FROM totals", "cache.db"),
    "trigger_missing": changing_index("DROP TRIGGER entry_added", "cache.db"),
    "index_gone": index_gone,
    "index_cut": index_cut,
    "index_emptied": index_emptied,
    "index_flipped_in_its_head": index_flipped_in(b"SQLite format"),
    "index_flipped_in_a_statement": index_flipped_in(b"CREATE TRIGGER"),
    "index_no_database": index_no_database,
    "index_a_link": index_a_link,
}

#: Images that are not there after the repair, by damage; else all are.
LOST = {
    "entry_cut": {"cat"},
    "large_entry_cut": {"aside/large"},
    "entry_longer": {"cat"},
    "entry_flipped": {"a/b"},
    "large_entry_flipped": {"large"},
    "entry_with_record_aside_flipped": {"aside"},
    "entry_with_record_aside_changed": {"aside"},
    "entry_missing": {"large"},
    "entry_in_the_place_of_another": {"other", "large"},
    "record_that_nobody_can_do_without_damaged": {"a/b"},
    "record_aside_missing": {"aside/large"},
    "link_in_the_place_of_an_entry": {"cat"},
    "pipe_in_the_place_of_an_entry": {"cat"},
    "directory_in_the_place_of_an_entry": {"cat"},
}
