"""The bytes of state files, as docs/formats/cache-directory.rst has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.drivers import _states
from cachemw.drivers._states import Chunk
from cachemw.drivers.base import CHUNK, Record

BOOT = "d6f4e9b2-0d6c-4b43-8f5f-0c8d5d6f7a11"


def test_the_documents_example_is_what_is_written():
    announced = _states.encode_announcement(Record("cat", 0, ""), 300_000)
    [(position, sums)] = _states.encode_sums([Chunk(0, CHUNK, 0xBBCD40B6)])
    header = _states.fresh_header(4660, BOOT)

    assert header[:32].hex(" ", 16) == (
        "63616368656d77663100000000000000 3412000000000000cbedffffffffffff"
    )
    assert header[64:112] == BOOT.encode().ljust(48, b"\0")
    assert header[496:520].hex() == "00" * 8 + "ff" * 8 + "00" * 8
    assert _states.number(300_000).hex() == "e0930400000000001f6cfbffffffffff"
    assert announced[:16].hex() == "63000000880083b5e093040000000000"
    assert announced[16:].startswith(b"cachemw1 50f995f2 {")
    assert (position, sums.hex()) == (0x44000, "00000400b640cdbb")


def test_a_fresh_header_says_nothing_but_whose_it_is():
    header = _states.parse_header(_states.fresh_header(7, BOOT))

    assert header == (7, 0, 0, BOOT, "", 0, "", (0, 0, 0))


@given(st.integers(0, 2**64 - 1), st.integers(0, 127))
def test_a_number_with_one_wrong_bit_is_not_read(value, bit):
    data = bytearray(_states.number(value))
    assert _states.read_number(data) == value
    data[bit // 8] ^= 1 << bit % 8
    assert _states.read_number(data) is None


@given(st.binary(max_size=1100))
def test_any_bytes_are_a_header_or_none(data):
    assert _states.parse_header(data) is None
    assert _states.parse_header((_states.MAGIC + data).ljust(1024, b"\0")) is None


@given(st.text(max_size=600))
def test_an_outcome_is_kept_as_far_as_it_fits(outcome):
    data = bytearray(_states.fresh_header(7, BOOT))
    data[512:1008] = _states.encode_outcome(outcome)
    found = _states.parse_header(bytes(data)).outcome

    assert outcome.startswith(found)
    assert len(found.encode()) > 480 or found == outcome


@given(st.integers(0, 495), st.integers(0, 7))
def test_an_outcome_with_one_wrong_bit_is_not_read(at, bit):
    data = bytearray(_states.fresh_header(7, BOOT))
    data[512:1008] = _states.encode_outcome("failed: md5 is 1, not 2")
    data[512 + at] ^= 1 << bit
    header = _states.parse_header(bytes(data))

    assert header is None or header.outcome == "failed: md5 is 1, not 2"
    assert (header is None) is (at < 8 + len("failed: md5 is 1, not 2"))


@pytest.mark.parametrize("length", [None, 0, 5, 2**63])
def test_what_was_announced_is_read_again(length):
    record = Record("a/b", 0, "", (("ETag", '"x"'),), variant=3)
    data = _states.encode_announcement(record, length)
    head = _states.Head(*_states._HEAD.unpack_from(data))
    found, promised = _states.read_announcement(head, data[16:])

    assert (found.image_id, found.headers, found.variant) == ("a/b", record.headers, 3)
    assert promised == length
    assert _states.record_size(head) == len(data) - 16
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        head = _states.Head(*_states._HEAD.unpack_from(changed))
        assert _states.read_announcement(head, bytes(changed[16:])) is None


def test_a_record_that_is_too_long_is_refused():
    fields = tuple((f"X-{number}", "v" * 8000) for number in range(40))
    with pytest.raises(OSError, match="long"):
        _states.encode_announcement(Record("cat", 0, "", fields), 5)


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, CHUNK), st.integers(0, 2**32 - 1))))
def test_checksums_are_read_as_they_were_written(given):
    chunks = [Chunk(*values) for values in sorted({c[0]: c for c in given}.values())]
    file = bytearray()
    for position, data in _states.encode_sums(chunks):
        file.extend(bytes(max(0, position - _states.SUMS + len(data) - len(file))))
        file[position - _states.SUMS : position - _states.SUMS + len(data)] = data

    assert list(_states.read_sums(0, bytes(file))) == chunks


def test_neighbours_are_written_together():
    chunks = [Chunk(n, CHUNK, n) for n in (0, 1, 2, 5, 6, 9)]
    written = [
        (position - _states.SUMS, len(data)) for position, data in _states.encode_sums(chunks)
    ]

    assert written == [(0, 24), (40, 16), (72, 8)]


@pytest.mark.parametrize(
    ("size", "lengths", "is_whole"),
    [
        (CHUNK + 1, (CHUNK, 1), True),
        (CHUNK + 1, (CHUNK, 2), False),
        (CHUNK + 1, (CHUNK,), False),
        (CHUNK + 1, (CHUNK, 1, 1), False),
        (2 * CHUNK, (CHUNK, CHUNK), True),
        (2 * CHUNK, (CHUNK - 1, CHUNK), False),
        (2 * CHUNK, (0, CHUNK), False),
        (0, (), True),
    ],
)
def test_checksums_of_a_whole_image_have_the_length_of_its_chunks(size, lengths, is_whole):
    data = b"".join(
        data
        for n, length in enumerate(lengths)
        for _, data in _states.encode_sums([Chunk(n, length, 5)])
    )

    values = _states.values_of(size, data)
    assert values == ([5] * len(lengths) if is_whole else None)


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        (".cat.5.fill", ("cat", 5)),
        (".a.b.12.fill", ("a.b", 12)),
        (".cat.fill.7.fill", ("cat.fill", 7)),
        ("cat.5.fill", None),
        (".cat.fill", None),
        (".cat.x.fill", None),
        (".cat.-5.fill", None),
        (".cat.\N{SUPERSCRIPT TWO}.fill", None),
        (".probe-5", None),
    ],
)
def test_a_state_files_name_tells_whose_it_is(name, fill):
    assert _states.fill_of(name) == fill
    if fill:
        assert _states.state_name(*fill) == name
