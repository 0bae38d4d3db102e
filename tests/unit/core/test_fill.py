"""One fill: what it lets out, and what it stores."""

import hashlib

import pytest

from cachemw.core.checksum import Checksum
from cachemw.core.intake import BLOCK
from cachemw.errors import ChecksumMismatch, LengthMismatch
from tests.unit.core.filling import FakeSink, Source, fill_of, md5


def test_chunks_pass_as_they_come():
    fill = fill_of(Source(b"ab", b"", b"c", b"def"), FakeSink(), length=6)

    assert list(fill) == [b"ab", b"c", b"def"]
    assert fill.stored


def test_last_chunk_waits_until_the_image_is_stored():
    """A client that has it all and asks again gets a hit."""
    sink = FakeSink()
    fill = fill_of(Source(b"ab", b"c"), sink, length=3)

    assert next(fill) == b"ab"
    assert sink.outcome is None
    assert next(fill) == b"c"
    assert sink.outcome == "committed"
    with pytest.raises(StopIteration):
        next(fill)


def test_without_a_length_one_chunk_always_waits():
    source = Source(b"a", b"b", ChecksumMismatch("x", "y"))
    fill = fill_of(source, FakeSink())

    assert next(fill) == b"a"
    with pytest.raises(ChecksumMismatch):
        next(fill)


def test_record_has_size_and_sha256():
    sink = FakeSink()
    list(fill_of(Source(b"abc"), sink))

    assert sink.record.size == 3
    assert sink.record.checksum == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"


def test_promised_checksum_is_the_one_that_is_computed_and_kept():
    sink = FakeSink()
    list(fill_of(Source(b"abc"), sink, expected=(md5(b"abc"),)))

    assert sink.record.checksum == str(md5(b"abc"))


@pytest.mark.parametrize("length", [None, 3 * BLOCK + 1])
def test_large_image_is_hashed_and_written_in_order(length):
    body = hashlib.shake_256(b"seed").digest(3 * BLOCK + 1)
    chunks = [body[start : start + 300_000] for start in range(0, len(body), 300_000)]
    sink = FakeSink()

    received = b"".join(fill_of(Source(*chunks), sink, length, expected=(md5(body),)))

    assert received == sink.data == body


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
@pytest.mark.parametrize("known", [True, False])
def test_wrong_checksum_is_raised_in_place_of_the_last_chunk(size, known):
    body = b"x" * size
    sink, source = FakeSink(), Source(body[: size // 2], body[size // 2 :])
    fill = fill_of(source, sink, size if known else None, expected=(md5(b"other"),))

    assert next(fill) == body[: size // 2]
    # Again and again: an end without an error would look complete.
    for _ in range(2):
        with pytest.raises(ChecksumMismatch):
            next(fill)
    fill.close()

    assert sink.outcome.startswith("md5 is ")
    assert source.closed == 1


def test_every_promised_checksum_is_verified():
    sha1 = Checksum("sha1", "0" * 40)

    with pytest.raises(ChecksumMismatch, match="sha1"):
        list(fill_of(Source(b"abc"), FakeSink(), expected=(md5(b"abc"), sha1)))


def test_image_that_is_too_long_is_noticed_before_its_promised_end_goes_out():
    fill = fill_of(Source(b"ab", b"c", b"d"), FakeSink(), length=3)

    assert next(fill) == b"ab"
    with pytest.raises(LengthMismatch, match="longer than the 3 bytes"):
        next(fill)


def test_image_that_is_too_short_is_noticed():
    sink = FakeSink()
    fill = fill_of(Source(b"ab"), sink, length=3)

    assert next(fill) == b"ab"
    with pytest.raises(LengthMismatch, match="ended after 2 of the 3 bytes"):
        next(fill)
    assert "ended after 2" in sink.outcome


def test_failure_of_the_app_passes_and_its_reason_is_kept():
    sink = FakeSink()
    fill = fill_of(Source(b"ab", RuntimeError("no")), sink, length=3)

    assert next(fill) == b"ab"
    with pytest.raises(RuntimeError, match="no"):
        next(fill)
    assert sink.outcome == "the app failed after 2 bytes: RuntimeError: no"


def test_app_whose_iterable_cannot_be_iterated_fails_like_any_other():
    class Broken:
        def __iter__(self):
            raise RuntimeError("no")

    sink = FakeSink()
    with pytest.raises(RuntimeError):
        next(fill_of(Broken(), sink))
    assert "the app failed after 0 bytes" in sink.outcome


def test_client_that_leaves_gives_the_fill_up():
    sink, source = FakeSink(), Source(b"ab", b"c")
    fill = fill_of(source, sink, length=3)
    next(fill)
    fill.close()
    fill.close()

    assert sink.outcome == "the client left after 2 of 3 bytes"
    assert source.closed == 1
    assert list(fill) == []


def test_fill_that_nobody_read_is_closed_all_the_same():
    sink, source = FakeSink(), Source(b"ab")
    fill_of(source, sink).close()

    assert sink.outcome == "the client left after 0 bytes"
    assert source.closed == 1


def test_closing_after_the_end_keeps_what_was_stored():
    sink, source = FakeSink(), Source(b"ab")
    fill = fill_of(source, sink)
    list(fill)
    fill.close()

    assert sink.outcome == "committed"
    assert source.closed == 1


def test_app_may_give_a_list():
    fill = fill_of([b"ab"], FakeSink())

    assert list(fill) == [b"ab"]
    fill.close()


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_app_may_give_what_only_looks_like_bytes(kind):
    """PEP 3333 has it give bytes; many servers take the others, and so they are taken here."""
    sink = FakeSink()

    assert b"".join(fill_of(Source(kind(b"ab"), kind(b"cd")), sink, 4)) == b"abcd"
    assert sink.data == b"abcd"


def test_app_may_use_a_buffer_again():
    buffer = bytearray(b"ab")

    def source():
        for value in b"xyz":
            buffer[:] = bytes([value, value])
            yield buffer

    sink = FakeSink()
    assert b"".join(fill_of(source(), sink, 6)) == b"xxyyzz"
    assert sink.data == b"xxyyzz"
