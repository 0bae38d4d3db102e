"""Going on with what an earlier writer left, over every driver."""

import contextlib
import os
import signal
from pathlib import Path
from unittest import mock

import pytest

from cachemw.drivers import _statefile, _tail
from cachemw.drivers.base import CHUNK, Record
from cachemw.errors import DriverError

from .drivers import (
    assert_sound,
    begin,
    die_while_filling,
    fills,
    in_incomplete,
    path_of,
    pattern,
    read,
    record_of,
)

SIZE = 5 * CHUNK + 1000
BODY = pattern(SIZE)
RECORD = Record("cat", 0, "", (("ETag", '"x"'),))


@pytest.fixture
def other(make_driver, driver):
    """Another instance, as another process has it."""
    return make_driver()


def leave(driver, *parts, image_id="cat", length=SIZE):
    """Write parts of an image and leave it."""
    sink = begin(driver, image_id, length)
    for start, stop in parts:
        sink.write(BODY[start:stop], start)
    sink.publish(parts[0][1])
    sink.leave()
    return sink


def kept(driver, image_id="cat"):
    """Look what there is to go on with."""
    sink = driver.start_fill(image_id)
    try:
        return sink.kept
    finally:
        sink.leave()


def finish(driver, image_id="cat"):
    """Go on with an image to its end."""
    sink = begin(driver, image_id, len(BODY))
    position = 0
    for part in sink.kept.parts if sink.kept else ():
        sink.write(BODY[position : part.start], position)
        assert sink.pread(part.stop - part.start, part.start) == BODY[part.start : part.stop]
        position = part.stop
    sink.write(BODY[position:], position)
    sink.commit(record_of(image_id, BODY))
    assert read(driver, image_id) == BODY
    assert in_incomplete(driver) == []
    assert_sound(driver)


@pytest.mark.parametrize("image_id", ["cat", "a/b"])
@pytest.mark.parametrize("stop", [1, CHUNK - 1, CHUNK, CHUNK + 1, len(BODY) - 1, len(BODY)])
def test_what_was_written_and_left_can_be_gone_on_with(driver, other, stop, image_id):
    leave(driver, (0, stop), image_id=image_id)

    found = kept(other, image_id)
    assert found.parts == ((0, stop),)
    assert found.length == len(BODY)
    assert (found.record.image_id, found.record.size, found.record.checksum) == (image_id, 0, "")
    assert kept(driver, image_id).parts == ((0, stop),)
    finish(other, image_id)


def test_the_length_and_record_that_were_announced_are_kept(driver):
    sink = driver.start_fill("cat")
    sink.announce(RECORD, 20)
    sink.write(BODY[:10])
    sink.leave()

    found = kept(driver)
    assert found.length == 20
    assert found.record.headers == RECORD.headers


def test_nothing_is_kept_of_an_unknown_length(driver):
    """Nobody could say what is missing."""
    leave(driver, (0, 2 * CHUNK), length=None)

    assert driver.get_partial_images() == []
    assert kept(driver) is None
    finish(driver)


def test_parts_with_holes_are_kept(driver):
    leave(driver, (0, CHUNK), (2 * CHUNK, 3 * CHUNK + 10), (5 * CHUNK, len(BODY)))

    assert kept(driver).parts == (
        (0, CHUNK),
        (2 * CHUNK, 3 * CHUNK + 10),
        (5 * CHUNK, len(BODY)),
    )
    finish(driver)


def test_a_part_that_begins_within_a_chunk_counts_from_the_next(driver):
    leave(driver, (100, 2 * CHUNK), (4 * CHUNK, 5 * CHUNK))

    assert kept(driver).parts == ((CHUNK, 2 * CHUNK), (4 * CHUNK, 5 * CHUNK))
    finish(driver)


def test_where_nothing_was_nothing_stays(driver):
    driver.start_fill("cat").leave()
    begin(driver, "cat").leave()
    sink = driver.start_fill("cat")
    sink.reserve(100)
    sink.write(b"never announced")
    sink.leave()

    assert in_incomplete(driver) == []
    assert kept(driver) is None
    assert in_incomplete(driver) == []


def test_what_was_kept_stays_when_the_app_does_not_answer(driver, other):
    leave(driver, (0, CHUNK))
    for _ in range(3):
        other.start_fill("cat").leave()
        die = driver.start_fill("cat")
        die.forget_parent()

    assert kept(driver).parts == ((0, CHUNK),)
    other.start_fill("cat").leave(declined="no-store")
    assert in_incomplete(driver) == []


def test_a_follower_goes_on_with_the_next_writer(driver, other):
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY[: CHUNK + 700])
    sink.publish(CHUNK + 600)
    with contextlib.closing(other.tail("cat")) as tail:
        # As a writer that is killed leaves it: the last chunk was not whole.
        sink.forget_parent()
        assert not tail.is_alive()
        assert tail.state().outcome == ""
        assert tail.state().readable == CHUNK + 600

        again = other.start_fill("cat")
        assert again.kept.parts == ((0, CHUNK),)
        assert tail.is_alive()
        assert tail.state().readable == CHUNK
        again.announce(RECORD, len(BODY), keep=True)
        assert again.kept.parts == ((0, CHUNK),)
        assert again.written == CHUNK
        assert tail.state().readable == CHUNK
        tail.want(CHUNK + 600)
        assert again.wanted() == CHUNK + 600
        again.write(BODY[CHUNK:])
        again.publish(2 * CHUNK)
        assert tail.pread(CHUNK, CHUNK) == BODY[CHUNK : 2 * CHUNK]
        again.commit(record_of("cat", BODY))
        assert tail.state().outcome == "committed"
        assert tail.pread(10**9, 0) == BODY


@pytest.mark.parametrize("end", ["leave", "killed"])
def test_another_version_never_meets_the_readers_of_the_first(driver, other, end):
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY)
    sink.publish(len(BODY) - 1)
    with contextlib.closing(other.tail("cat")) as tail:
        sink.leave() if end == "leave" else sink.forget_parent()
        again = other.start_fill("cat")
        again.reserve(10 * CHUNK)
        assert again.kept is not None
        again.announce(Record("cat", 0, "", (("ETag", '"y"'),)), 10)
        assert again.kept is None
        assert again.written == 0
        assert other.get_usage() == 10 * CHUNK
        again.write(b"new bytes!")
        again.publish(9)
        assert (tail.state().outcome, tail.is_alive()) == ("", False)
        assert tail.state().record.headers == ()
        # Of a chunk that its writer did not finish nobody knows whether it is right.
        assert tail.pread(10**9, 0) == BODY[: -1 if end == "leave" else 5 * CHUNK]
        with contextlib.closing(driver.tail("cat")) as second:
            assert second.is_alive()
            assert second.state().record.headers == (("ETag", '"y"'),)
            assert second.pread(100, 0) == b"new bytes"
        assert len(in_incomplete(driver)) == 2
        again.commit(record_of("cat", b"new bytes!"))
        assert tail.state().outcome == ""
    assert read(driver, "cat") == b"new bytes!"
    assert in_incomplete(driver) == []


def test_a_version_that_left_nothing_usable_is_not_written_over(driver, other):
    """Its readers had bytes that no checksum vouches for any more."""
    sink = begin(driver, "cat", len(BODY))
    sink.write(BODY[:1000])
    sink.publish(900)
    with contextlib.closing(other.tail("cat")) as tail:
        sink.forget_parent()
        again = other.start_fill("cat")
        assert again.kept is None
        again.announce(RECORD, 5000)
        again.write(b"z" * 5000)
        again.publish(4000)
        assert tail.pread(10**9, 0) == BODY[:900]
        assert not tail.is_alive()
        again.leave()


def test_checksums_of_what_was_never_announced_vouch_for_nothing(driver, other):
    """What is only reserved reads as zeros, and these may be what was there before."""
    sink = driver.start_fill("cat")
    sink.write(bytes(2 * CHUNK))
    sink.forget_parent()
    sink = begin(other, "cat", SIZE)
    assert sink.kept is None
    sink.reserve(SIZE)
    sink.forget_parent()

    assert kept(driver) is None


@pytest.mark.parametrize("outcome", ["failed: wrong", "declined: no-store"])
def test_a_fill_with_an_outcome_is_not_gone_on_with(driver, other, outcome):
    """Its writer died before it could remove the files."""
    sink = begin(driver, "cat", SIZE)
    sink.write(BODY)
    sink.state.end(outcome)
    sink.forget_parent()

    assert other.tail("cat") is None
    assert driver.get_partial_images() == []
    assert kept(driver) is None
    assert in_incomplete(driver) == []


def test_writing_without_a_word_drops_what_was_kept(driver, other):
    leave(driver, (0, CHUNK))
    with contextlib.closing(other.tail("cat")) as tail, driver.open_for_write("cat") as sink:
        sink.write(b"short")
        assert sink.kept is None
        assert tail.pread(10, 0) == BODY[:10]
    assert read(driver, "cat") == b"short"


def test_a_new_version_of_an_image_deleted_meanwhile_is_not_begun(driver, other):
    leave(driver, (0, CHUNK))
    sink = driver.start_fill("cat")
    other.delete_cached_image("cat")
    with pytest.raises(DriverError, match="deleted"):
        sink.announce(RECORD, 10)
    sink.leave()
    assert in_incomplete(driver) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "zero"])
def test_a_damaged_chunk_is_not_kept(driver, other, damage):
    leave(driver, (0, len(BODY)))
    path = path_of(driver, "cat", "incomplete")
    with open(path, "r+b") as file:
        if damage == "cut":
            file.truncate(2 * CHUNK + 5)
        else:
            file.seek(2 * CHUNK + 10)
            file.write(b"\0" * CHUNK if damage == "zero" else bytes([BODY[2 * CHUNK + 10] ^ 1]))

    rest = {"flip": ((3 * CHUNK, len(BODY)),), "zero": ((4 * CHUNK, len(BODY)),), "cut": ()}
    assert kept(other).parts == ((0, 2 * CHUNK), *rest[damage])
    with contextlib.closing(other.tail("cat")) as tail:
        assert tail.state().readable <= 2 * CHUNK
    [partial] = driver.get_partial_images()
    assert partial["size"] == sum(stop - start for start, stop in kept(other).parts)
    finish(driver)


def test_after_a_power_cut_nothing_is_readable_before_it_was_checked(driver, other):
    leave(driver, (0, 2 * CHUNK))
    with (
        mock.patch.object(_statefile, "boot_id", return_value="another"),
        mock.patch.object(_tail, "boot_id", return_value="another"),
    ):
        with contextlib.closing(other.tail("cat")) as tail:
            assert tail.state().readable == 0
            assert tail.pread(10, 0) == b""
            sink = driver.start_fill("cat")
            assert sink.kept.parts == ((0, 2 * CHUNK),)
            sink.publish(CHUNK)
            assert tail.pread(10**9, 0) == BODY[:CHUNK]
        sink.leave()


KILLED = """
import os, signal, sys, time
from tests.contract.drivers import *
from cachemw.drivers.base import CHUNK
driver = open_driver(sys.argv[1], sys.argv[2])
body = pattern(5 * CHUNK + 1000)
sink = begin(driver, "cat", len(body))
sink.reserve(len(body))
for start in range(0, 4 * CHUNK, 100_000):
    sink.write(body[start : start + 100_000])
    sink.publish(sink.written - 10)
print("written", flush=True)
time.sleep(60)
"""


def test_a_fill_is_gone_on_with_after_its_writer_was_killed(
    driver, driver_name, tmp_path, start_python
):
    writer = start_python(KILLED, driver_name, tmp_path / "cache")
    assert writer.stdout.readline().strip() == "written"
    with contextlib.closing(driver.tail("cat")) as tail:
        assert tail.is_alive()
        assert driver.get_partial_images() == []
        assert driver.get_usage() == len(BODY)  # as reserved
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert (tail.is_alive(), tail.state().outcome) == (False, "")
        written = tail.state().readable + 10
        assert driver.get_partial_images()[0]["size"] == written // CHUNK * CHUNK
        assert kept(driver).parts == ((0, written // CHUNK * CHUNK),)
        assert tail.pread(10**9, 0) == BODY[: written // CHUNK * CHUNK]
    finish(driver)


# Listing, room, cleaning


def test_partial_images_are_listed(driver, other):
    leave(driver, (0, CHUNK), (3 * CHUNK, 4 * CHUNK), image_id="dog")
    leave(driver, (0, 10), image_id="a/b", length=20)
    leave(driver, (0, 10), image_id="of any length", length=None)
    die_while_filling(driver, "never announced")
    busy = begin(driver, "busy", len(BODY))
    busy.write(BODY)

    listed = other.get_partial_images()
    assert [(image["image_id"], image["size"], image["length"]) for image in listed] == [
        ("a/b", 10, 20),
        ("dog", 2 * CHUNK, len(BODY)),
    ]
    when = path_of(driver, "dog", "incomplete").stat().st_mtime
    assert listed[1]["last_modified"] == when
    busy.leave()
    assert len(other.get_partial_images()) == 3


def test_a_hole_takes_no_room(driver):
    sink = begin(driver, "cat", 2**40)
    sink.reserve(2 * CHUNK)
    sink.write(BODY[:CHUNK], 2**39)
    assert driver.get_usage() == 2 * CHUNK
    sink.leave()
    assert CHUNK <= driver.get_usage() < 2 * CHUNK
    assert driver.get_partial_images()[0]["size"] == CHUNK
    assert kept(driver).parts == ((2**39, 2**39 + CHUNK),)
    used = driver.get_usage()
    assert driver.evict(1) == (0, used)
    assert driver.get_usage() == 0
    assert in_incomplete(driver) == []


def test_a_fill_with_holes_that_failed_leaves_no_bytes(driver):
    sink = begin(driver, "cat", 2**40)
    sink.write(BODY[:CHUNK], 2**39)
    sink.rollback("wrong")

    assert driver.get_invalid_images()[0]["size"] == 0
    assert driver.get_usage() == 0


def test_what_is_left_is_as_long_as_what_is_there(driver):
    sink = begin(driver, "cat", len(BODY))
    sink.reserve(len(BODY))
    assert driver.get_usage() == len(BODY)
    sink.write(BODY[:1000])
    assert driver.get_usage() == len(BODY)
    sink.leave()
    assert driver.get_usage() == 1000


def test_partial_images_go_before_entries_and_with_their_state(driver):
    with driver.open_for_write("dog") as sink:
        sink.write(BODY)
    leave(driver, (0, CHUNK))
    busy = begin(driver, "busy", 5)

    assert driver.evict(1) == (0, CHUNK)
    assert fills(driver) == ["busy"]
    assert len(in_incomplete(driver)) == 2
    busy.leave()
    assert driver.is_cached("dog")


def test_clean_removes_what_belongs_to_no_fill(driver):
    leave(driver, (0, CHUNK))
    incomplete = Path(driver.directory) / "incomplete"
    (incomplete / ".cat.1.fill").write_bytes(b"of another file")
    (incomplete / ".gone.1.fill").write_bytes(b"of none")
    (incomplete / ".cat.new").write_bytes(b"half way")
    (incomplete / "cat.new").write_bytes(b"an abandoned fill of its own")
    before = in_incomplete(driver)

    assert driver.clean(1000) == 0
    assert set(before) - set(in_incomplete(driver)) == {".cat.1.fill", ".gone.1.fill", ".cat.new"}
    assert kept(driver).parts == ((0, CHUNK),)
    assert driver.clean(0) == 2
    assert in_incomplete(driver) == []


def test_deleting_an_image_removes_what_is_there_of_it(driver, other):
    leave(driver, (0, CHUNK), image_id="a/b")
    assert other.delete_cached_image("a/b") is False

    assert in_incomplete(driver) == []
    assert kept(driver, "a/b") is None


def test_a_state_that_belongs_to_another_image_is_not_used(driver):
    """An inode's number may come again."""
    leave(driver, (0, CHUNK), image_id="dog")
    incomplete = Path(driver.directory) / "incomplete"
    [state] = incomplete.glob(".dog.*.fill")
    os.rename(incomplete / "dog", incomplete / "cat")
    os.rename(state, incomplete / state.name.replace("dog", "cat"))

    assert kept(driver, "cat") is None
    assert driver.get_partial_images() == []
