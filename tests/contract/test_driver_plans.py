"""What an eviction or a cleaning would remove, and what it says that it removed."""

import os
import random
import time
from pathlib import Path

import pytest

from cachemw.drivers.base import Record, Victim

from .drivers import assert_sound, begin, die_while_filling, hit, ids, path_of, store

ODD = "odd/id\x1b?"


@pytest.fixture
def mixed(driver):
    """A directory with some of everything."""
    for number in range(6):
        store(driver, f"image-{number}", bytes(100 + number))
        time.sleep(0.002)
    store(driver, ODD, bytes(50))
    hit(driver, "image-0")
    driver.flush_hits()
    for image_id in ("failed", "failed/too"):
        sink = driver.start_fill(image_id)
        sink.write(bytes(30))
        sink.rollback("reason")
        sink.close()
    die_while_filling(driver, "abandoned", bytes(70))
    sink = begin(driver, "announced/id", length=100)
    sink.write(bytes(40))
    sink.forget_parent()
    return driver


def files(driver):
    """Every file of the directory but index and lock, with its bytes."""
    return {
        str(path): path.read_bytes()
        for path in Path(driver.directory).rglob("*")
        if path.is_file() and not path.name.startswith(("cache.db", ".lock"))
    }


def evicted(driver, wanted):
    gone = []
    count, freed = driver.evict(wanted, gone.append)
    assert count == sum(victim.kind == "image" for victim in gone)
    assert freed == sum(victim.size for victim in gone)
    return gone


@pytest.mark.parametrize("wanted", [0, 1, 60, 61, 130, 200, 300, 500, 10_000])
def test_what_is_evicted_is_what_was_planned(mixed, wanted):
    before = files(mixed)

    plan = mixed.plan_eviction(wanted)

    assert files(mixed) == before
    assert evicted(mixed, wanted) == plan
    assert_sound(mixed)


def test_a_plan_names_the_images_in_the_order_they_go(mixed):
    plan = mixed.plan_eviction(10_000)

    # Which of those that came in one moment goes first is nobody's promise.
    assert {(victim.kind, victim.image_id) for victim in plan[:2]} == {
        ("invalid", "failed"),
        ("invalid", "failed/too"),
    }
    assert {victim[:2] for victim in plan[2:4]} == {("fill", "abandoned"), ("fill", "announced/id")}
    assert [victim.image_id for victim in plan[4:]] == [
        *(f"image-{number}" for number in range(1, 6)),
        ODD,
        "image-0",
    ]
    assert plan[4] == Victim("image", "image-1", 101)


def test_a_plan_may_be_longer_than_what_is_deleted_at_a_time(driver):
    chance = random.Random(1)
    for number in range(230):
        store(driver, f"image-{number:03}", bytes(chance.randrange(1, 9)))

    plan = driver.plan_eviction(10_000)

    assert sorted(victim.image_id for victim in plan) == ids(driver)
    half = driver.plan_eviction(sum(victim.size for victim in plan[:150]))
    assert half == plan[:150]
    assert evicted(driver, 10_000) == plan


def test_variants_of_an_image_are_victims_each(driver):
    store(driver, "cat", bytes(10))
    store(driver, "cat", bytes(20), variant=1)

    assert sorted(driver.plan_eviction(30)) == [
        Victim("image", "cat", 10),
        Victim("image", "cat", 20),
    ]


def test_a_fill_under_way_is_no_victim(driver):
    sink = driver.start_fill("mine")
    sink.write(bytes(10))

    assert driver.plan_eviction(10) == driver.plan_cleaning(0) == []
    assert evicted(driver, 10) == []
    sink.commit(Record("mine", 10, driver.describe("mine", sink).checksum))
    sink.close()


def test_what_is_cleaned_is_what_was_planned(mixed):
    before = files(mixed)

    plan = mixed.plan_cleaning(0)

    assert files(mixed) == before
    gone = []
    assert mixed.clean(0, gone.append) == len(gone) == len(plan) == 4
    assert sorted(gone) == sorted(plan)
    assert sorted(plan) == [
        Victim("fill", "abandoned", 70),
        Victim("fill", "announced/id", 40),
        Victim("invalid", "failed", 30),
        Victim("invalid", "failed/too", 30),
    ]
    assert mixed.plan_cleaning(0) == []
    assert len(ids(mixed)) == 7


def test_cleaning_spares_what_is_young_in_plan_and_deed(make_driver):
    driver = make_driver(stall_time=1000)
    for image_id, age in (("old", 2000), ("young", 500)):
        die_while_filling(driver, image_id)
        then = time.time() - age
        os.utime(path_of(driver, image_id, "incomplete"), (then, then))

    assert driver.plan_cleaning() == [Victim("fill", "old", 4)]
    assert sorted(victim.image_id for victim in driver.plan_cleaning(100)) == ["old", "young"]


def test_a_reason_kept_aside_goes_with_its_file_and_is_no_victim(driver, no_attributes):
    driver.start_fill("cat/dog").rollback("reason")
    plan = driver.plan_cleaning(0)
    gone = []

    assert driver.clean(0, gone.append) == 1
    assert gone == plan == [Victim("invalid", "cat/dog", 0)]
    assert os.listdir(Path(driver.directory) / "invalid") == []
