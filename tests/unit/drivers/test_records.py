"""A record's bytes, and where they are kept."""

import errno
import json
import os
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw.drivers import _records, _xattrs
from cachemw.drivers.base import Record

ANY_TEXT = st.text(st.characters(categories=None), max_size=30)

RECORDS = st.builds(
    Record,
    image_id=ANY_TEXT,
    size=st.integers(0, 2**63),
    checksum=ANY_TEXT,
    headers=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=4).map(tuple),
    vary=st.lists(st.tuples(ANY_TEXT, st.none() | ANY_TEXT), max_size=4).map(tuple),
    stored=st.floats(0, 1e12),
    age=st.floats(0, 1e12),
)

RECORD = Record("cat", 5, "md5:" + "0" * 32, (("A", "b"),), (("accept", None),), 12.5, 3.0)

LONG = Record("cat", 5, "md5:" + "0" * 32, tuple((f"X-{n}", "v" * 100) for n in range(60)))


def fields(record):
    return {name: getattr(record, name) for name in record.__slots__}


@given(RECORDS)
@example(Record("\ud83d\ude00", 0, ""))  # two lone surrogates, which are not one character
@example(Record("\U0001f600", 0, ""))
def test_a_record_reads_back_as_it_was(record):
    assert fields(_records.decode(_records.encode(record))) == fields(record)


def test_the_bytes_are_those_of_the_format():
    """docs/formats/cache-directory.rst, "Record"."""
    data = _records.encode(RECORD)
    magic, crc, text = data.split(b" ", 2)

    assert magic == b"cachemw1"
    assert int(crc, 16) == zlib.crc32(text)
    assert len(crc) == 8
    assert b"\n" not in data
    assert json.loads(text) == {
        "id": "cat",
        "size": 5,
        "checksum": "md5:" + "0" * 32,
        "headers": [["A", "b"]],
        "vary": [["accept", None]],
        "stored": 12.5,
        "age": 3.0,
    }


@given(st.data())
def test_a_record_with_any_bit_changed_is_none(data):
    encoded = bytearray(_records.encode(RECORD))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= 1 << data.draw(st.integers(0, 7))

    assert _records.decode(bytes(encoded)) is None


@given(st.binary(max_size=100))
@example(b"cachemw1 00000000 ")
@example(b"cachemw1 %08x []" % zlib.crc32(b"[]"))
@example(b"cachemw1 %08x {}" % zlib.crc32(b"{}"))
@example(b"cachemw1 %08x \xff" % zlib.crc32(b"\xff"))
@example(b"cachemw1 %08x %s" % (zlib.crc32(b"[" * 5000), b"[" * 5000))
def test_bytes_that_are_no_record_are_none(data):
    assert _records.decode(data) is None


@pytest.mark.parametrize("field", ["id", "size", "checksum", "headers", "vary", "stored", "age"])
def test_a_record_without_one_of_its_fields_is_none(field):
    values = json.loads(_records.encode(RECORD).split(b" ", 2)[2])
    for wrong in ({}, {field: {"odd": 1e999}}):
        changed = {name: value for name, value in values.items() if name != field} | wrong
        if field in ("id", "checksum") and wrong:
            continue  # anything is a string
        text = json.dumps(changed).encode()
        assert _records.decode(b"cachemw1 %08x %s" % (zlib.crc32(text), text)) is None


def test_unknown_fields_are_skipped():
    values = json.loads(_records.encode(RECORD).split(b" ", 2)[2]) | {"later": [1]}
    text = json.dumps(values).encode()

    again = _records.decode(b"cachemw1 %08x %s" % (zlib.crc32(text), text))
    assert fields(again) == fields(RECORD)


def test_equal_short_records_are_parsed_once_and_long_ones_are_not_kept():
    short, long = _records.encode(RECORD), _records.encode(LONG)

    assert _records.decode(bytes(bytearray(short))) is _records.decode(short)
    assert _records.decode(long) is not _records.decode(long)


@pytest.fixture
def entry(tmp_path):
    """An image's file and the directory of records, open."""
    (tmp_path / "records").mkdir()
    fd = os.open(tmp_path / "cat", os.O_RDWR | os.O_CREAT)
    records_fd = os.open(tmp_path / "records", os.O_RDONLY)
    os.write(fd, b"image")
    yield fd, records_fd, tmp_path / "records"
    os.close(fd)
    os.close(records_fd)


def read(fd, records_fd):
    return _records.read(fd, "cat", os.fstat(fd), records_fd)


@pytest.mark.usefixtures("attributes")
def test_a_record_that_fits_is_an_attribute(entry):
    fd, records_fd, records = entry

    assert _records.write(fd, "cat", RECORD, records_fd, sync=True) is False
    assert os.listdir(records) == []
    assert fields(read(fd, records_fd)) == fields(RECORD)


@pytest.fixture
def refused(monkeypatch):
    """Attributes are refused in each of the ways that they are."""
    number = [errno.ENOTSUP]

    def refuse(*arguments):
        raise OSError(number[0], "refused")

    monkeypatch.setattr(_xattrs, "_set", refuse)
    return number


@pytest.mark.parametrize("number", sorted(_records.REFUSED), ids=errno.errorcode.get)
def test_a_record_that_is_refused_is_kept_aside(entry, refused, number):
    fd, records_fd, records = entry
    refused[0] = number

    assert _records.write(fd, "cat", RECORD, records_fd, sync=True) is True
    assert os.listdir(records) == [f".cat-{os.fstat(fd).st_ino}"]
    assert fields(read(fd, records_fd)) == fields(RECORD)
    assert _records.finish("cat", os.fstat(fd), records_fd)
    assert os.listdir(records) == ["cat"]
    assert fields(read(fd, records_fd)) == fields(RECORD)
    tie, _, record = (records / "cat").read_bytes().partition(b"\n")
    assert tie == b"%d %d" % (5, os.fstat(fd).st_mtime_ns)
    assert record == _records.encode(RECORD)


def test_another_error_is_not_taken_for_a_refusal(entry, refused):
    fd, records_fd, records = entry
    refused[0] = errno.EIO

    with pytest.raises(OSError, match="refused"):
        _records.write(fd, "cat", RECORD, records_fd, sync=True)
    assert os.listdir(records) == []


def test_a_record_that_cannot_be_written_whole_leaves_nothing(entry, refused, monkeypatch):
    fd, records_fd, records = entry
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))

    with pytest.raises(OSError, match="cut short"):
        _records.write(fd, "cat", RECORD, records_fd, sync=True)
    assert os.listdir(records) == []


def test_the_older_entrys_record_holds_until_the_newer_takes_its_place(entry, refused, tmp_path):
    old, records_fd, _ = entry
    _records.write(old, "cat", RECORD, records_fd, sync=False)
    _records.finish("cat", os.fstat(old), records_fd)
    new = os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT)
    os.write(new, b"another")
    _records.write(new, "cat", LONG, records_fd, sync=False)

    assert fields(read(old, records_fd)) == fields(RECORD)
    assert fields(read(new, records_fd)) == fields(LONG)
    assert _records.finish("cat", os.fstat(old), records_fd) is False
    assert _records.finish("cat", os.fstat(new), records_fd) is True
    assert read(old, records_fd) is None
    assert fields(read(new, records_fd)) == fields(LONG)
    os.close(new)


def test_two_fills_of_one_image_do_not_write_over_each_others_record(entry, refused, tmp_path):
    """The first was voided, and does not know it yet."""
    fd, records_fd, records = entry
    stale = os.open(tmp_path / "stale", os.O_RDWR | os.O_CREAT)
    _records.write(fd, "cat", RECORD, records_fd, sync=False)
    _records.write(stale, "cat", LONG, records_fd, sync=False)

    assert _records.finish("cat", os.fstat(fd), records_fd) is True
    assert fields(read(fd, records_fd)) == fields(RECORD)
    _records.discard("cat", os.fstat(stale), records_fd)
    assert os.listdir(records) == ["cat"]
    os.close(stale)


@pytest.mark.parametrize(
    ("aside", "entry_name"),
    [("cat", "cat"), (".cat-12", "cat"), (".a-b-12", "a-b"), ("a-1", "a-1")],
)
def test_the_file_of_a_record_names_its_entry(aside, entry_name):
    assert _records.entry_of(aside) == entry_name


def test_removing_a_record_that_is_not_there_is_no_error(entry):
    _, records_fd, records = entry
    _records.remove("cat", records_fd)
    (records / "cat").mkdir()
    _records.remove("cat", records_fd)
