"""Checking and scrubbing, over every driver: what is no damage, and what goes on meanwhile.

Damage of every kind is in ``tests/crash/test_check.py``.
"""

import os
import time
from pathlib import Path

import pytest

from cachemw.core.check import check, scrub
from cachemw.drivers import _modes

from .drivers import (
    LONG_HEADERS,
    assert_sound,
    begin,
    die_while_filling,
    ids,
    new_driver,
    open_driver,
    path_of,
    pattern,
    read,
    store,
)


def damage(driver, image_id):
    """Flip a bit; the file's times do not tell."""
    path = path_of(driver, image_id)
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def count_again(driver):
    """As the first start under another boot does."""
    with driver.lock.changing([]):
        driver._repair(None)


def findings(driver, **options):
    return [(f.kind, f.name, f.is_damage) for f in check(driver, **options).findings]


# No damage


def test_what_goes_on_is_no_finding(driver):
    store(driver, "cat")
    sink = begin(driver, "under way", 100)
    sink.write(b"some")
    die_while_filling(driver, "young")
    driver.queue_image("waits")
    driver.queue_image("waits/too")
    os.utime(path_of(driver, "under way", "incomplete"), (0, 0))

    report = check(driver, repair=True)

    assert report.findings == []
    assert (report.images, report.bytes) == (1, 5)
    sink.rollback("end")


def test_what_is_worth_knowing_is_told_and_left_alone(driver):
    driver.start_fill("failed").rollback("the reason")
    path_of(driver, "adopted").write_bytes(b"another program's")
    path_of(driver, "adopted").chmod(0o600)
    path_of(driver, "adopted").with_name("lost+found").mkdir()
    count_again(driver)

    report = check(driver, repair=True)

    assert report.is_clean
    assert {(f.name, f.image_id, f.problem) for f in report.findings} == {
        ("invalid/failed", "failed", "the reason"),
        ("adopted", "adopted", "has no record: it will be compared with what the app sends"),
        ("lost+found", None, "is a directory, but no entry"),
    }
    assert path_of(driver, "failed", "invalid").exists()
    assert read(driver, "adopted") == b"another program's"


def test_a_hard_link_keeps_its_mode(driver, victim):
    victim.chmod(0o644)
    os.link(victim, path_of(driver, "linked"))
    count_again(driver)

    report = check(driver, repair=True)

    assert report.is_clean
    assert victim.stat().st_mode & 0o777 == 0o644


def test_a_directory_that_was_never_used_is_left_as_it_is(driver_name, tmp_path):
    """As a Glance cache that is looked at before it is first opened."""
    directory = tmp_path / "cache"
    for folder in (directory, directory / "incomplete", directory / "invalid", directory / "queue"):
        folder.mkdir(mode=0o700)
    (directory / "cat").write_bytes(b"image")
    (directory / "cat").chmod(0o600)
    driver = new_driver(driver_name, directory)
    driver.look()

    assert findings(driver) == [("entry", "cat", False)]
    assert set(os.listdir(directory)) - {".lock"} == {"cat", "incomplete", "invalid", "queue"}
    driver.close()


# What is left to others


def test_a_directory_in_the_way_that_is_not_empty_is_left_to_its_owner(driver):
    path_of(driver, "cat").mkdir(mode=0o700)
    (path_of(driver, "cat") / "file").write_bytes(b"precious")

    report = check(driver, repair=True)

    assert [(f.name, f.is_mended) for f in report.findings] == [("cat", False)]
    assert not report.is_mended
    assert (path_of(driver, "cat") / "file").read_bytes() == b"precious"


def test_what_cannot_be_mended_is_said_and_the_rest_is_mended(driver, monkeypatch):
    for image_id in ("cat", "dog"):
        store(driver, image_id)
        path_of(driver, image_id).chmod(0o644)
    damage(driver, "dog")
    change = _modes.change

    def refuse(name, directory, mode):
        if name == "cat":
            raise PermissionError(1, "Operation not permitted")
        change(name, directory, mode)

    monkeypatch.setattr(_modes, "change", refuse)
    report = check(driver, repair=True)

    assert {(f.kind, f.name, f.is_mended) for f in report.damage} == {
        ("mode", "cat", False),
        ("mode", "dog", True),
        ("entry", "dog", True),
    }
    assert not report.is_mended
    assert ids(driver) == ["cat"]


# A look again


def test_an_image_that_is_replaced_while_it_is_read_is_no_finding(driver):
    store(driver, "cat", pattern(3 * 2**20))
    damage(driver, "cat")

    def replace(done, total):
        if done == 2**20:
            store(driver, "cat", b"new")

    report = check(driver, repair=True, progress=replace)

    assert report.findings == []
    assert read(driver, "cat") == b"new"


def test_an_image_that_is_deleted_while_it_is_read_is_no_finding(driver):
    store(driver, "cat", pattern(3 * 2**20))
    damage(driver, "cat")
    report = check(
        driver, progress=lambda done, total: done == 2**20 and driver.delete_cached_image("cat")
    )

    assert report.findings == []


BUSY = """
import random, sys, time
from cachemw.errors import DriverError
from tests.contract.drivers import LONG_HEADERS, begin, open_driver, pattern, store
driver = open_driver(sys.argv[1], sys.argv[2])
chance = random.Random(sys.argv[3])
print("busy", flush=True)

def fill(image_id):
    store(driver, image_id, pattern(chance.choice((10, 500_000))),
          chance.choice(((), LONG_HEADERS)), variant=chance.choice((0, 0, 1)))

def renew(image_id):
    with driver.open_for_read(image_id) as entry:
        record = entry.record
        headers = chance.choice(((), LONG_HEADERS))
        driver.update(entry, Record(image_id, record.size, record.checksum, headers))

def fail(image_id):
    sink = begin(driver, image_id, 600_000)
    sink.write(pattern(300_000))
    chance.choice((lambda: sink.rollback("wrong"), sink.leave))()
    sink.close()

def queue(image_id):
    driver.queue_image(image_id)
    driver.delete_queued_image(image_id)

def clean(image_id):
    driver.clean(0)

def hit(image_id):
    driver.record_hit(image_id, time.time())
    driver.flush_hits()

deeds = (fill, fill, fill, renew, renew, fail, queue, clean, hit,
         driver.delete_cached_image, lambda image_id: driver.evict(400_000),
         lambda image_id: driver.invalidate(image_id, "says the test"))
while True:
    try:
        chance.choice(deeds)(chance.choice(("cat", "a/b", "dog", "c/d", "cow")))
    except DriverError:
        pass
"""


def test_a_busy_directory_is_sound_and_stays_so(driver, driver_name, start_python):
    """Servers go on meanwhile; whatever is half done for a moment is no finding."""
    for seed in range(2):
        process = start_python(BUSY, driver_name, driver.directory, seed)
        assert process.stdout.readline() == "busy\n"
    checked = 0
    end = time.monotonic() + 6
    while time.monotonic() < end or checked < 2:
        report = check(driver, repair=bool(checked % 2))
        assert report.damage == []
        checked += 1


# Scrubbing


def test_scrubbing_goes_through_all_by_turns(driver):
    bodies = {f"image/{number}": pattern(1000 + number) for number in range(10)}
    for image_id, body in bodies.items():
        store(driver, image_id, body)
    driver.start_fill("failed").rollback("reason")

    turns = [scrub(driver, 3000) for _ in range(4)]

    assert [turn.images for turn in turns] == [3, 3, 3, 3]
    assert scrub(driver, 10**9) == (10, sum(map(len, bodies.values())), 0)


def test_scrubbing_begins_with_what_waits_longest(driver):
    for image_id in ("a", "b", "c"):
        store(driver, image_id, b"12345")
    assert scrub(driver, 1) == (1, 5, 0)
    damage(driver, "a")

    assert scrub(driver, 10) == (2, 10, 0)
    assert scrub(driver, 1) == (1, 5, 1)
    assert ids(driver) == ["b", "c"]
    assert "do not match" in driver.get_invalid_images()[0]["reason"]
    assert scrub(driver, 100) == (2, 10, 0)


def test_scrubbing_goes_on_in_another_process(driver, make_driver):
    for image_id in ("a", "b"):
        store(driver, image_id, b"12345")
    scrub(driver, 1)
    damage(driver, "b")
    (Path(driver.directory) / ".verified").read_bytes()

    assert scrub(make_driver(), 1).damaged == 1


def test_scrubbing_survives_a_broken_memory(driver):
    for content in (b"", b"[]", b'{"name":"../x","began":1,"before":0}', b"\xff" * 1000):
        store(driver, "cat", b"12345")
        (Path(driver.directory) / ".verified").write_bytes(content)
        assert scrub(driver, 10) == (1, 5, 0)


def test_scrubbing_nothing_ends(driver):
    assert scrub(driver, 10) == (0, 0, 0)
    path_of(driver, "adopted").write_bytes(b"another program's")

    assert scrub(driver, 10) == (0, 0, 0)


def test_scrubbing_can_be_ended_by_who_watches_it(driver):
    store(driver, "cat", pattern(3 * 2**20))
    seen = []

    def watch(done, budget):
        seen.append((done, budget))
        if done == 2**21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scrub(driver, 5, watch)
    assert seen == [(2**20, 5), (2**21, 5)]


# What was lost


@pytest.mark.parametrize("driver_name", ["sqlite"])
def test_an_index_that_was_made_again_at_the_start_is_told_once(driver_name, tmp_path):
    driver = open_driver(driver_name, tmp_path / "cache")
    store(driver, "cat")
    driver.close()
    (tmp_path / "cache" / "cache.db").write_bytes(b"not a database" * 1000)
    driver = open_driver(driver_name, tmp_path / "cache")

    report = check(driver)

    assert [(f.name, f.is_mended) for f in report.damage] == [("cache.db", True)]
    assert check(driver).is_clean
    driver.close()


def test_a_large_record_is_written_again_where_it_was_lost(driver):
    store(driver, "a/b", b"image", LONG_HEADERS)
    os.utime(path_of(driver, "a/b"), ns=(0, 10**18))
    assert findings(driver) == [("record", path_of(driver, "a/b").name, True)]
    check(driver, repair=True)

    with driver.open_for_read("a/b") as entry:
        assert entry.record.headers == LONG_HEADERS
    assert_sound(driver)
