"""Bounds, and who goes when something comes in."""

import types

import pytest

from cachemw.core import capacity
from cachemw.core.capacity import STEP, Capacity, Room
from cachemw.drivers.base import Victim
from cachemw.errors import CacheFull


class FakeDriver:
    """Entries by age, as sizes."""

    directory = "/"

    def __init__(self, *sizes):
        self.sizes = list(sizes)
        self.events = []

    def exclusive(self):
        driver = self

        class Held:
            def __enter__(self):
                driver.events.append("lock")

            def __exit__(self, *exc):
                driver.events.append("unlock")

        return Held()

    def get_usage(self):
        return sum(self.sizes)

    def flush_hits(self):
        assert self.events[-1:] in ([], ["unlock"])
        self.events.append("flush")

    def evict(self, wanted, note=None):
        freed = count = 0
        while freed < wanted and self.sizes:
            size = self.sizes.pop(0)
            freed += size
            count += 1
            if note is not None:
                note(Victim("image", f"of {size}", size))
        return count, freed


class FakeSink:
    def __init__(self):
        self.written = self.reserved = 0

    def reserve(self, size):
        self.reserved = size


def bounds(driver, max_size=100, max_image_size=100, min_free=0):
    return Capacity(driver, max_size=max_size, max_image_size=max_image_size, min_free=min_free)


def test_room_that_is_there_costs_no_image():
    driver, sink = FakeDriver(40, 40), FakeSink()
    bounds(driver).make_room("cat", sink, 20, 20)

    assert driver.sizes == [40, 40]
    assert sink.reserved == 20


def test_oldest_images_go_for_what_comes():
    driver, sink = FakeDriver(10, 20, 30, 40), FakeSink()
    bounds(driver).make_room("cat", sink, 25, 25)

    assert driver.sizes == [30, 40]


def test_hits_count_before_anybody_goes_and_outside_the_lock():
    """Writing them takes the lock of its own accord."""
    driver = FakeDriver(90)
    bounds(driver).make_room("cat", FakeSink(), 20, 20)

    assert driver.events == ["lock", "unlock", "flush", "lock", "unlock"]


def test_image_larger_than_allowed_evicts_nobody():
    driver = FakeDriver(90)
    with pytest.raises(CacheFull, match="larger than the 50 bytes allowed"):
        bounds(driver, max_image_size=50).make_room("cat", FakeSink(), 51, 51)

    assert driver.sizes == [90]


def test_image_is_never_allowed_more_than_the_whole_cache():
    assert bounds(FakeDriver(), max_size=10, max_image_size=100).max_image_size == 10


def test_room_that_eviction_cannot_make_is_refused():
    """Something that no eviction removes, such as another fill, is in the way."""
    driver = FakeDriver(90)
    driver.evict = lambda wanted, note: (0, 0)
    with pytest.raises(CacheFull, match="no room"):
        bounds(driver).make_room("cat", FakeSink(), 20, 20)


def disk(monkeypatch, free):
    status = types.SimpleNamespace(f_bavail=free, f_frsize=1)
    monkeypatch.setattr(capacity.os, "statvfs", lambda path: status)


def test_file_system_keeps_its_free_space(monkeypatch):
    disk(monkeypatch, free=50)
    driver = FakeDriver(10, 10, 10)
    bounds(driver, min_free=40).make_room("cat", FakeSink(), 25, 25)

    assert driver.sizes == [10]


def test_disk_that_others_filled_does_not_cost_our_images(monkeypatch):
    disk(monkeypatch, free=5)
    driver = FakeDriver(10, 10)
    with pytest.raises(CacheFull):
        bounds(driver, min_free=40).make_room("cat", FakeSink(), 25, 25)

    assert driver.sizes == [10, 10]


def test_prune_goes_to_the_bound_or_to_the_bytes_given():
    driver = FakeDriver(10, 20, 30)

    assert bounds(driver, max_size=60).prune() == (0, 0)
    assert bounds(driver, max_size=55).prune() == (1, 10)
    assert bounds(driver, max_size=55).prune(0) == (2, 50)


def test_prune_reports_what_went_and_how_far_it_is():
    driver = FakeDriver(STEP, STEP, 30)
    reports = []

    def report(victims, done, total):
        reports.append(([victim.size for victim in victims], done, total))

    bounds(driver).prune(10, report)

    total = 2 * STEP + 20
    assert reports == [([STEP], STEP, total), ([STEP], 2 * STEP, total), ([30], total + 10, total)]


def test_known_length_is_set_aside_at_once():
    driver, sink = FakeDriver(), FakeSink()
    room = Room(bounds(driver), "cat", 60)
    room.begin(sink)

    assert sink.reserved == 60
    events = list(driver.events)
    room.extend(sink, 60)
    assert driver.events == events


def test_what_is_kept_counts_once():
    driver, sink = FakeDriver(40), FakeSink()
    room = Room(bounds(driver, 100, 100), "cat", 60, 40)
    room.begin(sink)

    assert sink.reserved == 60
    assert not any("evict" in str(event) for event in driver.events)


def test_unknown_length_is_set_aside_in_steps():
    sink = FakeSink()
    room = Room(bounds(FakeDriver(), 1000 * STEP, 1000 * STEP), "cat", None)
    room.begin(sink)
    assert sink.reserved == STEP
    room.extend(sink, STEP + 1)
    assert sink.reserved == 2 * STEP


def test_step_is_small_in_a_small_cache():
    sink = FakeSink()
    room = Room(bounds(FakeDriver(), 160, 160), "cat", None)
    room.begin(sink)

    assert sink.reserved == 10


def test_step_does_not_refuse_an_image_that_ends_within_it():
    sink = FakeSink()
    room = Room(bounds(FakeDriver(), 160, 100), "cat", None)
    room.begin(sink)
    room.extend(sink, 100)
    assert sink.reserved == 100
    with pytest.raises(CacheFull):
        room.extend(sink, 101)
