"""Entries that check what they give: no read gives a byte that is not the image's."""

import contextlib
import errno
import io
import os
import tempfile
import zlib
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.core import verified
from cachemw.core.verified import VerifiedEntry
from cachemw.drivers import base
from cachemw.drivers.base import Entry, Record, Sums
from cachemw.errors import DriverError, ImageCorrupt, ImageNotFound

#: Bytes of a chunk here, so that many fit in a small image.
CHUNK = 16


class FakeDriver:
    """Keeps one image in one file."""

    def __init__(self, path, data):
        self.path = path
        self.data = data
        self.invalidated = []
        with open(path, "wb") as file:
            file.write(data)

    def open_for_read(self, image_id, variant=0):
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise ImageNotFound(image_id, "not in the cache") from None
        return Entry(fd, image_id, len(self.data), Record(image_id, len(self.data), ""))

    def invalidate(self, image_id, reason, variant=0):
        self.invalidated.append(reason)
        os.unlink(self.path)

    def open_verified(self):
        data = self.data
        sums = Sums(
            len(data),
            [zlib.crc32(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK)],
        )
        return VerifiedEntry(self.open_for_read("cat"), sums, self)


@contextlib.contextmanager
def small_chunks():
    with mock.patch.object(base, "CHUNK", CHUNK), mock.patch.object(verified, "CHUNK", CHUNK):
        yield


@pytest.fixture(autouse=True)
def chunks():
    with small_chunks():
        yield


@pytest.fixture
def driver(tmp_path):
    return FakeDriver(tmp_path / "cat", bytes(range(100)))


@pytest.fixture
def entry(driver):
    with driver.open_verified() as entry:
        yield entry


def flip(path, at, bits=0x10):
    with open(path, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bits]))


images = st.binary(min_size=1, max_size=6 * CHUNK)
reads = st.lists(st.tuples(st.integers(0, 8 * CHUNK), st.integers(0, 7 * CHUNK)), max_size=12)


@given(data=images, wanted=reads)
def test_any_reads_give_the_bytes_of_the_image(data, wanted):
    with small_chunks(), tempfile.TemporaryDirectory() as directory:
        driver = FakeDriver(os.path.join(directory, "cat"), data)
        with driver.open_verified() as entry:
            for size, position in wanted:
                given_bytes = entry.pread(size, position)

                right = data[position : position + size]
                assert right.startswith(given_bytes)
                assert bool(given_bytes) == bool(right)
            assert entry.read() == data


@given(data=images, wanted=reads, draw=st.data())
def test_damage_anywhere_at_any_time_is_never_given(data, wanted, draw):
    at = draw.draw(st.integers(0, len(data) - 1), "damaged byte")
    bits = draw.draw(st.integers(0, 255), "flipped bits (0: cut there)")
    when = draw.draw(st.integers(0, len(wanted)), "reads before that")
    with small_chunks(), tempfile.TemporaryDirectory() as directory:
        driver = FakeDriver(os.path.join(directory, "cat"), data)
        with driver.open_verified() as entry:
            all_of_it = [(CHUNK, start) for start in range(0, len(data), CHUNK)]
            for number, (size, position) in enumerate([*wanted, *all_of_it]):
                if number == when:
                    kept = entry._kept
                    if bits:
                        flip(driver.path, at, bits)
                    else:
                        os.truncate(driver.path, at)
                with contextlib.suppress(ImageCorrupt):
                    assert data[position : position + size].startswith(entry.pread(size, position))
                if not os.path.exists(driver.path):
                    break
            else:
                # Only a chunk that was read before is still given.
                assert kept[0] == at // CHUNK
                return
        assert len(driver.invalidated) == 1


def test_damaged_bytes_are_named_and_leave_the_cache(driver, entry):
    flip(driver.path, 3 * CHUNK)

    with pytest.raises(ImageCorrupt, match="cat: bytes 48 to 63 do not match their checksum"):
        entry.pread(100, 0)
    with pytest.raises(ImageCorrupt):
        entry.pread(1, 50)
    assert entry.pread(3 * CHUNK, 0) == driver.data[: 3 * CHUNK]
    assert driver.invalidated == ["bytes 48 to 63 do not match their checksum"]


def test_cut_file_is_damaged(driver, entry):
    os.truncate(driver.path, 99)

    assert entry.pread(CHUNK, 0) == driver.data[:CHUNK]
    with pytest.raises(ImageCorrupt, match="bytes 96 to 99 do not match"):
        entry.pread(1, 96)


def test_bytes_that_cannot_be_read_are_damaged(driver, entry, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(verified.os, "pread", fail)

    with pytest.raises(ImageCorrupt, match="cannot be read: Input/output error"):
        entry.pread(1, 0)
    assert len(driver.invalidated) == 1


def test_image_that_took_its_place_stays(driver, entry):
    flip(driver.path, 0)
    os.rename(driver.path, f"{driver.path}.old")
    FakeDriver(driver.path, driver.data)

    with pytest.raises(ImageCorrupt):
        entry.pread(1, 0)
    assert driver.invalidated == []


def test_damage_is_told_where_the_image_cannot_be_moved(driver, entry, monkeypatch, caplog):
    def fail(*arguments):
        raise DriverError("cat", "read-only file system")

    monkeypatch.setattr(driver, "invalidate", fail)
    flip(driver.path, 0)

    with pytest.raises(ImageCorrupt):
        entry.pread(1, 0)
    assert "could not be moved to invalid/: cat: read-only file system" in caplog.text


def test_few_bytes_at_a_time_are_no_damage(driver, entry, monkeypatch):
    """What some file systems do."""
    pread = os.pread
    monkeypatch.setattr(
        verified.os, "pread", lambda fd, size, position: pread(fd, min(size, 7), position)
    )

    assert entry.pread(100, 0) == driver.data


@pytest.mark.parametrize("block", [1, 5, CHUNK // 2, CHUNK, 2 * CHUNK])
def test_reading_on_reads_no_chunk_twice(driver, entry, monkeypatch, block):
    pread, read = os.pread, []

    def counted(fd, size, position):
        read.append((position, size))
        return pread(fd, size, position)

    monkeypatch.setattr(verified.os, "pread", counted)
    given_bytes = b""
    while data := entry.pread(block, len(given_bytes)):
        given_bytes += data

    assert given_bytes == driver.data
    assert [position for position, _ in read] == sorted({position for position, _ in read})
    assert sum(size for _, size in read) == len(driver.data)


def test_it_is_read_as_a_file(driver, entry):
    assert entry.seek(30) == 30
    assert entry.read(10) == driver.data[30:40]
    assert entry.tell() == 40
    assert io.BufferedReader(entry).read(40) == driver.data[40:80]


def test_iterating_ends_at_damage(driver, entry):
    flip(driver.path, 0)

    with pytest.raises(ImageCorrupt):
        next(entry)


def test_its_file_is_not_for_others(entry):
    with pytest.raises(OSError, match="is to be read by its entry alone"):
        entry.fileno()


def test_closing_runs_on_close_once_and_closes_the_file(driver):
    entry = driver.open_verified()
    closed = []
    entry.on_close = lambda: closed.append(1)
    fd = entry._fd
    entry.close()
    entry.close()

    assert closed == [1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="cat is closed"):
        entry.pread(1, 0)
    assert driver.invalidated == []


def test_damaged_image_has_no_hit(driver, entry):
    closed = []
    entry.on_close = lambda: closed.append(1)
    flip(driver.path, 0)
    with pytest.raises(ImageCorrupt):
        entry.pread(1, 0)
    entry.close()

    assert closed == []
