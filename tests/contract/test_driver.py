"""The contract of ``drivers.base``: writing, reading, deleting, listing, over every driver."""

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers import _writeback, _xattrs
from cachemw.drivers.base import Record
from cachemw.errors import (
    DriverError,
    ImageCorrupt,
    ImageNotFound,
)

from .drivers import (
    BODY,
    LONG_HEADERS,
    assert_sound,
    die_while_filling,
    hit,
    ids,
    path_of,
    read,
    sha256,
    store,
)

#: Ids that are no file names, or would be bad ones.
HOSTILE = [
    "a/b",
    "../../etc/passwd",
    "incomplete",
    "cache.db",
    "cache.db-wal",
    ".lock",
    "nul\0byte",
    "two\nlines",
    "x" * 2000,
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 2000,
    names.entry_name("a/b"),
    "\ud800",
    "\ud83d\ude00",  # two lone surrogates ...
    "\U0001f600",  # ... and the character that they would be in UTF-16
    "http://images.example/a?b=c",
]


def test_a_stored_image_reads_back_with_its_record(driver):
    store(driver, "cat", BODY, [("Content-Type", "image/png"), ("X-Odd", "\xe9\udcff")])

    with driver.open_for_read("cat") as entry:
        assert entry.read() == BODY
        assert (entry.size, entry.image_id) == (len(BODY), "cat")
        assert entry.record.checksum == f"sha256:{sha256(BODY)}"
        assert entry.record.headers == (("Content-Type", "image/png"), ("X-Odd", "\xe9\udcff"))


def test_a_record_keeps_every_field(driver):
    record = Record("cat", 5, "md5:" + "0" * 32, (("A", "b"),), (("accept", None),), 12.5, 3.0)
    sink = driver.start_fill("cat")
    sink.write(b"image")
    sink.commit(record)

    with driver.open_for_read("cat") as entry:
        kept = entry.record
    assert (kept.size, kept.checksum, kept.headers) == (5, "md5:" + "0" * 32, (("A", "b"),))
    assert (kept.vary, kept.stored, kept.age) == ((("accept", None),), 12.5, 3.0)


def test_an_entry_seeks_and_iterates_in_blocks_and_is_closed_once(driver):
    store(driver, "cat", b"a" * 100_000)
    closed = []
    entry = driver.open_for_read("cat")
    entry.on_close = lambda: closed.append(True)

    assert [len(block) for block in entry] == [65536, 34464]
    entry.seek(99_999)
    assert entry.read() == b"a"
    entry.close()
    entry.close()
    assert closed == [True]


def test_an_empty_image_is_an_image(driver):
    store(driver, "nothing", b"")

    assert read(driver, "nothing") == b""
    assert driver.is_cached("nothing")


@pytest.mark.parametrize("image_id", HOSTILE, ids=ascii)
def test_every_id_works_and_stays_inside(driver, tmp_path, image_id):
    before = set(os.listdir(tmp_path))
    store(driver, image_id, BODY)
    hit(driver, image_id)

    assert read(driver, image_id) == BODY
    assert ids(driver) == [image_id]
    assert driver.get_hit_count(image_id) == 1
    assert set(os.listdir(tmp_path)) == before
    assert not driver.queue_image(image_id)
    driver.invalidate(image_id, "for the test")
    assert [image["image_id"] for image in driver.get_invalid_images()] == [image_id]
    assert driver.queue_image(image_id)
    assert driver.get_queued_images() == [image_id]


def test_ids_that_look_alike_are_different_images(driver):
    for number, image_id in enumerate(HOSTILE):
        store(driver, image_id, b"%d" % number)

    assert [read(driver, image_id) for image_id in HOSTILE] == [
        b"%d" % number for number in range(len(HOSTILE))
    ]
    assert ids(driver) == sorted(HOSTILE)
    assert_sound(driver)


def test_an_unknown_image_is_not_found(driver):
    with pytest.raises(ImageNotFound, match="cat"):
        driver.open_for_read("cat")
    with pytest.raises(ImageNotFound):
        driver.get_image_size("cat")
    assert not driver.is_cached("cat")
    assert driver.get_hit_count("cat") == 0
    assert driver.delete_cached_image("cat") is False


def test_open_for_write_commits_at_the_end_of_its_block(driver):
    with driver.open_for_write("cat") as sink:
        sink.reserve(100)
        assert sink.write(BODY[:10]) == 10
        assert not driver.is_cached("cat")

    assert read(driver, "cat") == BODY[:10]
    assert_sound(driver)


def test_open_for_write_rolls_back_when_its_block_raises(driver):
    with pytest.raises(ZeroDivisionError), driver.open_for_write("cat") as sink:
        sink.write(b"half")
        raise ZeroDivisionError("the reason")

    assert not driver.is_cached("cat")
    [failed] = driver.get_invalid_images()
    assert (failed["image_id"], failed["size"], failed["reason"]) == ("cat", 4, "the reason")
    assert failed["last_modified"] == pytest.approx(time.time(), abs=60)
    assert driver.is_cacheable("cat")


def test_open_for_write_rolls_back_where_the_bytes_cannot_be_read_again(driver, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DriverError, match="input/output error"), driver.open_for_write("cat"):
        monkeypatch.setattr(os, "pread", broken)
    monkeypatch.undo()

    assert not driver.is_being_cached("cat")
    assert driver.is_cacheable("cat")


def test_rollback_without_the_bytes_keeps_the_reason_alone(driver):
    sink = driver.start_fill("cat")
    sink.write(BODY)
    sink.rollback("disk full", keep=False)

    [failed] = driver.get_invalid_images()
    assert (failed["size"], failed["reason"]) == (0, "disk full")


@pytest.mark.parametrize("reason", ["\N{SNOWMAN}" * 400, "lone \ud800", "two\nlines", ""])
def test_a_reason_of_any_kind_is_kept_as_far_as_it_fits(driver, reason):
    driver.start_fill("a/b").rollback(reason)

    [failed] = driver.get_invalid_images()
    assert failed["image_id"] == "a/b"
    assert failed["reason"] == reason.replace("\ud800", "?")[:166]


def test_what_follows_the_end_of_a_fill_does_nothing(driver):
    sink = driver.start_fill("cat")
    sink.write(b"image")
    record = driver.describe("cat", sink)
    sink.commit(record)
    sink.rollback("too late")
    sink.commit(record)

    assert read(driver, "cat") == b"image"
    assert driver.get_invalid_images() == []


def test_a_commit_of_another_size_is_refused(driver):
    sink = driver.start_fill("cat")
    sink.write(b"image")
    with pytest.raises(DriverError, match="5 bytes were written, not 6"):
        sink.commit(Record("cat", 6, "md5:" + "0" * 32))

    assert not driver.is_cached("cat")
    assert [image["image_id"] for image in driver.get_invalid_images()] == ["cat"]


def test_one_image_has_one_writer(driver, make_driver):
    sink = driver.start_fill("cat")

    for other in (driver, make_driver()):
        assert other.is_being_cached("cat")
        assert not other.is_cacheable("cat")
        assert not other.queue_image("cat")
        with pytest.raises(DriverError, match="being filled already"):
            other.start_fill("cat")
    sink.rollback("done")
    assert not driver.is_being_cached("cat")


def test_a_fill_begins_however_many_look_whether_there_is_one(driver):
    """Looking takes the same lock for a moment."""
    stop = threading.Event()

    def look():
        while not stop.is_set():
            driver.is_being_cached("cat")

    die_while_filling(driver, "cat")
    lookers = [threading.Thread(target=look) for _ in range(4)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(50):
            driver.start_fill("cat").rollback("", keep=False)
    finally:
        stop.set()
        for thread in lookers:
            thread.join()


def test_a_living_writers_file_is_not_touched_and_a_dead_ones_is_used_at_once(
    driver, driver_name, start_python
):
    writer = start_python(
        """
import sys
from tests.contract.drivers import open_driver
driver = open_driver(sys.argv[1], sys.argv[2])
sink = driver.start_fill("cat")
sink.write(b"half of it")
print("filling", flush=True)
sys.stdin.read()
""",
        driver_name,
        driver.directory,
    )
    assert writer.stdout.readline() == "filling\n"

    with pytest.raises(DriverError, match="being filled already"):
        driver.start_fill("cat")
    assert driver.clean(stall_time=0) == 0
    assert driver.evict(1) == (0, 0)
    assert driver.get_usage() == len(b"half of it")

    writer.kill()
    writer.wait()
    assert not driver.is_being_cached("cat")
    store(driver, "cat", b"all")
    assert read(driver, "cat") == b"all"


def test_a_replaced_image_keeps_its_hits(driver):
    store(driver, "cat", b"old")
    hit(driver, "cat")
    hit(driver, "cat")
    driver.flush_hits()
    hit(driver, "cat")
    store(driver, "cat", b"newer")

    assert read(driver, "cat") == b"newer"
    assert driver.get_hit_count("cat") == 3
    assert driver.get_cache_size() == 5
    assert_sound(driver)


def test_hits_that_are_written_while_the_replacement_is_synced_are_kept(driver, monkeypatch):
    store(driver, "cat", b"old")
    sync = _writeback.sync

    def slowly(fd):
        hit(driver, "cat")
        driver.flush_hits()
        sync(fd)

    monkeypatch.setattr(_writeback, "sync", slowly)
    store(driver, "cat", b"new")

    assert driver.get_hit_count("cat") == 1


def test_a_reader_keeps_its_file_when_the_image_is_deleted_replaced_or_evicted(driver):
    for remove in (
        lambda: driver.delete_cached_image("cat"),
        lambda: store(driver, "cat", b"new"),
        lambda: driver.evict(1),
        lambda: driver.invalidate("cat", "for the test"),
        driver.delete_all_cached_images,
    ):
        store(driver, "cat", BODY)
        with driver.open_for_read("cat") as entry:
            remove()
            assert entry.read() == BODY


# Deleting


def test_deleting_removes_the_image_and_says_so(driver):
    store(driver, "cat")
    hit(driver, "cat")

    assert driver.delete_cached_image("cat") is True
    assert driver.delete_cached_image("cat") is False
    assert not driver.is_cached("cat")
    store(driver, "cat")
    assert driver.get_hit_count("cat") == 0


def test_deleting_voids_a_fill_under_way_and_another_may_begin(driver):
    store(driver, "cat", b"old")
    stale = driver.start_fill("cat")
    stale.write(b"stale")
    record = driver.describe("cat", stale)
    assert driver.delete_cached_image("cat") is True
    fresh = driver.start_fill("cat")
    fresh.write(b"fresh")

    with pytest.raises(DriverError, match="deleted"):
        stale.commit(record)
    assert not driver.is_cached("cat")
    fresh.commit(driver.describe("cat", fresh))
    assert read(driver, "cat") == b"fresh"
    assert driver.get_invalid_images() == []


def test_rolling_back_a_voided_fill_leaves_its_successor_alone(driver):
    stale = driver.start_fill("cat")
    driver.delete_cached_image("cat")
    fresh = driver.start_fill("cat")
    fresh.write(b"fresh")
    stale.rollback("too late")

    fresh.commit(driver.describe("cat", fresh))
    assert read(driver, "cat") == b"fresh"


def test_deleting_all_leaves_fills_failures_and_queue(driver):
    for number in range(150):
        store(driver, f"image-{number}", b"x")
    store(driver, "a/b", BODY, LONG_HEADERS)
    driver.start_fill("failed").rollback("reason")
    driver.queue_image("queued")
    sink = driver.start_fill("filling")

    assert driver.delete_all_cached_images() == 151
    assert driver.delete_all_cached_images() == 0
    assert (ids(driver), driver.get_cache_size()) == ([], 0)
    assert os.listdir(path_of(driver, "x").parent / ".records") == []
    assert len(driver.get_invalid_images()) == 1
    assert driver.get_queued_images() == ["queued"]
    sink.write(b"1")
    sink.commit(driver.describe("filling", sink))
    assert ids(driver) == ["filling"]


def test_an_invalid_image_leaves_the_cache_with_its_reason(driver):
    store(driver, "a/b", BODY)
    driver.invalidate("a/b", "its bytes do not match")

    assert not driver.is_cached("a/b")
    [invalid] = driver.get_invalid_images()
    assert (invalid["image_id"], invalid["size"]) == ("a/b", len(BODY))
    assert invalid["reason"] == "its bytes do not match"
    driver.invalidate("a/b", "again")  # not there: nothing to do
    assert len(driver.get_invalid_images()) == 1
    assert_sound(driver)


@pytest.mark.parametrize("body", [b"short", b"longer than before"])
def test_a_file_of_another_size_than_recorded_is_corrupt_and_leaves_the_cache(driver, body):
    store(driver, "cat", b"0123456789")
    path_of(driver, "cat").write_bytes(body)

    with pytest.raises(ImageCorrupt, match=f"{len(body)} bytes long instead of 10"):
        driver.open_for_read("cat")
    with pytest.raises(ImageNotFound):
        driver.open_for_read("cat")
    assert [image["image_id"] for image in driver.get_invalid_images()] == ["cat"]
    assert driver.get_cache_size() == 0
    assert_sound(driver)


# What is there


def test_a_listing_tells_of_each_image_and_is_sorted_by_id(driver):
    before = time.time() - 1  # file times may lag by a tick
    for image_id in ("cat", "a/b", "Zebra"):
        store(driver, image_id, image_id.encode())
    hit(driver, "cat")

    listed = driver.get_cached_images()
    assert [image["image_id"] for image in listed] == ["Zebra", "a/b", "cat"]
    assert [image["size"] for image in listed] == [5, 3, 3]
    assert [image["hits"] for image in listed] == [0, 0, 1]
    assert listed[1]["checksum"] == f"sha256:{sha256(b'a/b')}"
    for image in listed:
        assert before < image["last_modified"] <= time.time()
        assert before < image["last_accessed"] <= time.time()
        assert set(image) == {
            *("image_id", "size", "hits", "last_accessed", "last_modified", "checksum")
        }
    assert driver.get_image_size("cat") == 3
    assert driver.get_cache_size() == 11


def test_paths_name_the_four_places(driver):
    base = Path(driver.directory)

    assert path_of(driver, "cat") == base / "cat"
    for status in ("incomplete", "invalid", "queue"):
        assert path_of(driver, "cat", status) == base / status / "cat"
    assert path_of(driver, "../x").parent == base
    with pytest.raises(ValueError, match="cache status 'gone'"):
        driver.get_image_filepath("cat", "gone")


def test_usage_counts_entries_fills_and_failures(driver):
    store(driver, "cat", b"x" * 100)
    failed = driver.start_fill("failed")
    failed.write(b"x" * 20)
    failed.rollback("reason")
    sink = driver.start_fill("filling")
    sink.reserve(3000)
    sink.write(b"x" * 5)

    assert driver.get_usage() == 3120
    assert driver.get_cache_size() == 100
    sink.commit(driver.describe("filling", sink))
    assert driver.get_usage() == 125


@pytest.mark.parametrize("durability", ["none", "data", "full"])
def test_durability_says_what_is_synced(make_driver, monkeypatch, durability):
    driver = make_driver(durability=durability)
    synced = set()
    sync = os.fsync

    def note(fd):
        synced.add("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    store(driver, "cat", BODY)

    expected = {"none": set(), "data": {"file"}, "full": {"file", "directory"}}
    assert synced == expected[durability]
    assert read(driver, "cat") == BODY


@pytest.mark.usefixtures("attributes")
def test_the_file_is_synced_before_it_gets_its_name(driver, monkeypatch):
    steps = []
    rename, sync = os.rename, _writeback.sync

    def note_rename(*arguments, **directories):
        steps.append("rename")
        rename(*arguments, **directories)

    def note_sync(fd):
        assert os.fstat(fd).st_size == len(BODY)
        assert _xattrs.get(fd, "user.cachemw") is not None
        steps.append("sync")
        sync(fd)

    monkeypatch.setattr(os, "rename", note_rename)
    monkeypatch.setattr(_writeback, "sync", note_sync)
    store(driver, "cat", BODY)

    assert steps == ["sync", "rename"]


def test_directories_are_private(driver):
    store(driver, "cat")
    store(driver, "a/b", BODY, LONG_HEADERS)
    driver.queue_image("queued")
    driver.queue_image("queue/d")
    driver.start_fill("failed").rollback("reason")
    die_while_filling(driver, "dead")

    for here, directories, files in os.walk(driver.directory):
        assert stat.S_IMODE(os.stat(here).st_mode) == 0o700
        for name in (*directories, *files):
            mode = stat.S_IMODE(os.lstat(os.path.join(here, name)).st_mode)
            assert mode == (0o700 if name in directories else 0o600), name
