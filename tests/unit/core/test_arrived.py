"""The bytes of an image that have come: in memory, in the file, or gone."""

from hypothesis import given
from hypothesis import strategies as st

from cachemw.core.arrived import Arrived
from cachemw.drivers.base import Part

CHUNKS = st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=9)


def arrived(chunks):
    made, position = Arrived(), 0
    for chunk in chunks:
        made.add(position, chunk)
        position += len(chunk)
    return made, b"".join(chunks)


@given(CHUNKS, st.data())
def test_what_is_found_is_what_came(chunks, data):
    made, whole = arrived(chunks)
    written = data.draw(st.integers(0, len(whole)))
    made.forget_written(written)
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start + 1, len(whole)))

    found = made.find(start, stop, written)

    if isinstance(found, Part):
        assert start == found.start < found.stop <= min(stop, written)
    else:
        assert found
        assert whole[start:stop].startswith(found)


@given(CHUNKS)
def test_what_is_in_the_file_is_not_in_memory(chunks):
    made, whole = arrived(chunks)
    made.forget_written(len(whole))

    assert made.in_memory == 0
    assert made.find(0, 1, len(whole)) == Part(0, 1)


def test_kept_parts_are_in_the_file_whatever_was_written():
    made = Arrived()
    made.add(0, Part(0, 4))
    made.add(4, b"new")

    assert made.find(1, 9, 0) == Part(1, 4)
    assert made.find(4, 9, 0) == b"new"


def test_what_one_reader_alone_has_read_is_forgotten():
    made, _ = arrived([b"ab", b"cd", b"ef", b"gh"])
    made.forget_between(2, 6)

    assert made.find(0, 8, 0) == b"ab"
    assert made.find(2, 8, 0) is None
    assert made.find(6, 8, 0) == b"gh"
    made.forget_but_last()
    assert made.in_memory == 2
    made.clear()
    assert made.in_memory == 0
