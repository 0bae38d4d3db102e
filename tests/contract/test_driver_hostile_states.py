"""State files that somebody else wrote: a fill begins or goes on, and no byte is wrong."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachemw.drivers import _states
from cachemw.drivers.base import CHUNK
from cachemw.errors import DriverError

from .drivers import (
    assert_sound,
    begin,
    in_incomplete,
    open_driver,
    pattern,
    plant,
    read,
    record_of,
)

BODY = pattern(2 * CHUNK + 1000)

#: Where a state file says something.
PLACES = [0, 16, 24, 32, 40, 48, 56, 64, 256, 260, 496, 504, 512, 516, 1008, 1012, 1016, 1024, 1100]
PLACES += [_states.SUMS + place for place in (0, 4, 8, 12, 16, 20)]

NUMBERS = st.sampled_from([0, 1, 4, 2**31, 2**32 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(PLACES), st.binary(min_size=1, max_size=40)),
    st.tuples(st.sampled_from(PLACES), NUMBERS.map(lambda number: number.to_bytes(8, "little"))),
    st.tuples(st.sampled_from(PLACES), NUMBERS.map(_states.number)),
    st.tuples(st.just("cut"), st.sampled_from(PLACES)),
    st.tuples(st.just("whole"), st.binary(max_size=3000)),
)


def left(driver, how):
    """Leave a fill as ``how`` says. :return: the path of its state."""
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY[: CHUNK + 1000])
    sink.publish(CHUNK + 500)
    if how == "left":
        sink.leave()
    elif how == "killed":
        sink.forget_parent()
    [state] = (Path(driver.directory) / "incomplete").glob(".cat.*.fill")
    return sink, state


def change(path, changes):
    with open(path, "r+b") as file:
        for place, value in changes:
            if place == "cut":
                file.truncate(value)
            elif place == "whole":
                file.truncate(0)
                file.seek(0)
                file.write(value)
            else:
                file.seek(place)
                file.write(value)


def assert_harmless(driver, other):
    """Whoever looks meets right bytes or an error of ours, and the image can be filled."""
    with contextlib.suppress(DriverError):
        tail = other.tail("cat")
        if tail is not None:
            with contextlib.closing(tail):
                tail.want(5)
                tail.is_alive()
                with contextlib.suppress(DriverError):
                    tail.state()
                with contextlib.suppress(DriverError):
                    data = tail.pread(CHUNK + 1000, 0)
                    assert data == BODY[: len(data)]
    driver.get_usage()
    driver.get_partial_images()
    sink = other.start_fill("cat")
    for part in sink.kept.parts if sink.kept else ():
        assert sink.pread(10**9, part.start) == BODY[part.start : part.stop]
    sink.announce(record_of("cat", b""), len(BODY), keep=True)
    sink.write(BODY, 0)
    sink.commit(record_of("cat", BODY))
    assert read(driver, "cat") == BODY
    driver.clean(0)
    assert in_incomplete(driver) == []
    assert_sound(driver)


@pytest.mark.parametrize("how", ["left", "killed"])
def test_any_change_of_a_state_file_is_harmless(driver_name, how):
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changes=st.lists(CHANGES, min_size=1, max_size=3))
    def test(changes):
        directory = tempfile.mkdtemp(prefix="cachemw-states-")
        driver = open_driver(driver_name, Path(directory) / "cache", durability="none")
        other = open_driver(driver_name, Path(directory) / "cache", durability="none")
        try:
            _, state = left(driver, how)
            change(state, changes)
            assert_harmless(driver, other)
        finally:
            driver.close()
            other.close()
            shutil.rmtree(directory)

    test()


@pytest.mark.parametrize("what", ["link", "hard link", "directory", "pipe", "empty", "gone"])
def test_something_else_in_the_place_of_a_state_is_harmless(driver, make_driver, victim, what):
    _, path = left(driver, "left")
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

    other = make_driver()
    assert other.tail("cat") is None
    assert driver.get_partial_images() == []
    assert driver.get_usage() == CHUNK + 1000
    if what == "directory":
        with contextlib.suppress(DriverError):
            driver.start_fill("cat").leave()
        path.rmdir()
    assert_harmless(driver, other)


def test_a_state_that_is_also_a_file_elsewhere_is_not_written_to(driver, make_driver, tmp_path):
    _, path = left(driver, "left")
    (tmp_path / "elsewhere").hardlink_to(path)
    before = path.read_bytes()
    other = make_driver()

    assert other.tail("cat") is None
    assert other.get_partial_images() == []
    assert_harmless(driver, other)
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("what", ["link", "hard link"])
def test_links_planted_for_the_next_fill_are_not_written_to(driver, victim, what):
    """Whoever guesses the number that a new file gets can plant a state for it."""
    incomplete = Path(driver.directory) / "incomplete"
    probe = incomplete / "probe"
    probe.touch()
    number = probe.stat().st_ino
    for guess in range(number - 50, number + 50):
        path = incomplete / f".cat.{guess}.fill"
        path.symlink_to(victim) if what == "link" else path.hardlink_to(victim)
    probe.unlink()

    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY)
    sink.leave()
    begin(driver, "cat", len(BODY)).commit(record_of("cat", BODY))
    assert read(driver, "cat") == BODY


def test_a_link_in_the_place_of_the_bytes_is_not_followed(driver, make_driver, victim):
    _, _ = left(driver, "left")
    plant(Path(driver.directory) / "incomplete" / "cat", victim)

    assert make_driver().tail("cat") is None
    assert driver.get_partial_images() == []
    assert driver.start_fill("cat").kept is None


@pytest.mark.parametrize("place", PLACES)
def test_a_living_fill_whose_state_is_damaged_is_committed_all_the_same(driver, make_driver, place):
    sink, state = left(driver, "living")
    change(state, [(place, b"\xff" * 16)])
    tail = make_driver().tail("cat")
    if tail is not None:
        with contextlib.suppress(DriverError), contextlib.closing(tail):
            tail.state()
            tail.pread(100, 0)
    sink.wanted()
    sink.write(BODY[CHUNK + 1000 :])
    sink.publish(len(BODY) - 1)
    sink.commit(record_of("cat", BODY))
    assert read(driver, "cat") == BODY
    with driver.open_for_read("cat") as entry:
        sums = driver.sums(entry)
        # A checksum that was changed before it was tied to the image costs no more than the image.
        assert sums is None or sums.check(0, BODY[:CHUNK]) or place >= _states.SUMS
