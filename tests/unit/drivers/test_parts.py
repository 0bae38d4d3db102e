"""Which bytes are there, and the checksums of chunks, against a plain model."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.drivers import _parts
from cachemw.drivers._parts import Chunks, Parts
from cachemw.drivers._states import Chunk

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))


@given(RANGES)
def test_parts_are_as_a_set_of_bytes_has_them(ranges):
    parts, there = Parts(), set()
    for start, stop in ranges:
        parts.add(start, stop)
        there.update(range(start, stop))

        flat = [byte for part in parts.all() for byte in range(*part)]
        assert flat == sorted(there)
        assert all(a.stop < b.start for a, b in zip(parts.all(), parts.all()[1:], strict=False))
        assert parts.end == max(there, default=-1) + 1
        for position in range(0, 61, 7):
            stop_from = parts.stop_from(position)
            assert set(range(position, stop_from)) <= there
            assert stop_from not in there
            assert parts.touches(position, position + 5) == bool(
                there & set(range(position, position + 5))
            )
        for size in (0, 5, parts.end):
            assert parts.are(size) == (there == set(range(size)))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(_parts, "CHUNK", 8)


@pytest.mark.usefixtures("small_chunks")
def test_checksums_are_those_of_the_bytes_in_any_order_of_writes():
    for seed in range(400):
        chance = random.Random(seed)
        file, there = bytearray(64), set()
        chunks = Chunks(lambda size, position, file=file: bytes(file[position : position + size]))
        noted: dict[int, Chunk] = {}
        position = 0
        for _ in range(chance.randrange(12)):
            if chance.random() < 0.4:
                position = chance.randrange(60)
            data = chance.randbytes(min(chance.randrange(1, 30), 64 - position))
            file[position : position + len(data)] = data
            for chunk in chunks.note(position, memoryview(data)):
                noted[chunk.number] = chunk
            there.update(range(position, position + len(data)))
            position += len(data)
            for number in range(8):
                if set(range(8 * number, 8 * number + 8)) <= there:
                    whole = bytes(file[8 * number : 8 * number + 8])
                    assert noted[number] == (number, 8, zlib.crc32(whole)), seed
        noted.update((chunk.number, chunk) for chunk in chunks.settle())
        for number in range(8):
            length = 0
            while length < 8 and 8 * number + length in there:
                length += 1
            crc = zlib.crc32(bytes(file[8 * number : 8 * number + length]))
            assert noted.get(number, (number, 0, 0)) == (number, length, crc), seed


@pytest.mark.usefixtures("small_chunks")
def test_bytes_that_come_in_order_are_not_read_again():
    def fail(size, position):
        raise AssertionError("read again")

    chunks = Chunks(fail)
    chunks.keep(Chunk(0, 3, zlib.crc32(b"abc")))
    assert chunks.note(3, memoryview(b"defgh01")) == [Chunk(0, 8, zlib.crc32(b"abcdefgh"))]
    assert chunks.note(10, memoryview(b"234567ABCDEFGHx")) == [
        Chunk(1, 8, zlib.crc32(b"01234567")),
        Chunk(2, 8, zlib.crc32(b"ABCDEFGH")),
    ]
    assert chunks.settle() == [Chunk(3, 1, zlib.crc32(b"x"))]
    assert chunks.parts.are(25)
