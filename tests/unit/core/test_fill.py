"""One fill: what it lets out, and what it stores."""

import contextvars
import hashlib
import threading

import pytest

import cachemw.core.fill as fill_module
from cachemw.core.checksum import Checksum
from cachemw.core.fill import NEVER, Fill
from cachemw.core.growing import FillFailed, FillLost, FillStalled
from cachemw.core.intake import BLOCK
from cachemw.drivers.base import Kept, Part, Record, Sink
from cachemw.errors import CacheFull, ChecksumMismatch, DriverError, LengthMismatch


class FakeSink(Sink):
    """A sink in memory whose steps can fail."""

    def __init__(self, fail_write_at=None, fail_commit=False, error=None):
        self.written = 0
        self.data = b""
        self.record = None
        self.outcome = None
        self.fail_write_at = fail_write_at
        self.fail_commit = fail_commit
        self.writes = 0
        self.error = error or CacheFull("cat", "no space left on device")

    kept = None

    def announce(self, record, length, keep=False):
        pass

    def reserve(self, size):
        pass

    def publish(self, readable):
        self.published = readable

    def wanted(self):
        return 0

    def is_current(self):
        return True

    def pread(self, size, position):
        return self.data[position : position + size]

    def leave(self, declined=""):
        self.outcome = f"left {declined}".strip()

    def close(self):
        pass

    def write(self, data, position=None):
        if self.writes == self.fail_write_at:
            raise self.error
        self.writes += 1
        self.data += data
        self.written += len(data)
        return len(data)

    def commit(self, record):
        if self.fail_commit:
            raise self.error
        self.record, self.outcome = record, "committed"

    def rollback(self, reason, *, keep=True, is_wrong=True):
        self.outcome = reason


class FreeRoom:
    """Room without end."""

    def extend(self, sink, needed):
        pass

    def relieve(self, wanted):
        raise CacheFull("cat", "nothing to evict")


class Source:
    """The app's chunks; counts its closing."""

    def __init__(self, *chunks):
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self):
        self.closed += 1


def fill_of(source, sink, length=None, expected=()):
    return Fill("cat", sink, FreeRoom()).begin(
        source,
        Record("cat", 0, ""),
        length=length,
        expected=expected,
        make_record=lambda size, checksum: Record("cat", size, checksum),
    )


def md5(data):
    return Checksum("md5", hashlib.md5(data).hexdigest())


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


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
@pytest.mark.parametrize("kind", [CacheFull("cat", "no"), MemoryError()])
@pytest.mark.parametrize("trouble", [{"fail_write_at": 0}, {"fail_commit": True}])
def test_trouble_of_the_cache_does_not_reach_the_client(size, trouble, kind):
    """Nor does a mistake of ours."""
    sink = FakeSink(**trouble, error=kind)
    fill = fill_of(Source(b"x" * size), sink, size, expected=(md5(b"x" * size),))

    assert b"".join(fill) == b"x" * size
    assert not fill.stored


def test_image_is_verified_also_when_it_cannot_be_stored():
    sink = FakeSink(fail_write_at=0)

    with pytest.raises(ChecksumMismatch):
        list(fill_of(Source(b"x" * BLOCK, b"y"), sink, expected=(md5(b"other"),)))
    assert sink.outcome == "could not be written: no space left on device"


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


# Sharing


def shared(sink, **options):
    return Fill("cat", sink, FreeRoom(), is_movable=True, **options)


def begin(fill, source, length=None, expected=(), is_resumable=False):
    return fill.begin(
        source,
        Record("cat", 0, ""),
        length=length,
        expected=expected,
        make_record=lambda size, checksum: Record("cat", size, checksum),
        is_resumable=is_resumable,
    )


def read_all(reader):
    data = b""
    while piece := reader.read(len(data), 10**6, 5):
        data += piece
    return data


def test_follower_pumps_and_the_leader_reads_what_it_brought():
    source = Source(b"ab", b"cd", b"e")
    fill = shared(FakeSink())
    leader = begin(fill, source, 5)
    follower = fill.reader()

    assert read_all(follower) == b"abcde"
    assert source.closed == 1
    assert b"".join(leader) == b"abcde"


def test_with_one_thread_of_the_leaders_a_follower_waits():
    fill = Fill("cat", FakeSink(), FreeRoom())
    leader = begin(fill, Source(b"ab", b"cd"), 4)
    follower = fill.reader()

    with pytest.raises(FillStalled):
        follower.read(0, 10, 0.01)
    assert next(leader) == b"ab"
    assert follower.read(0, 10, 0.01) == b"ab"


def test_reader_behind_gets_bytes_from_the_file():
    sink = FakeSink()
    chunks = [bytes([n]) * BLOCK for n in range(8)]
    fill = shared(sink)
    leader = begin(fill, Source(*chunks), 8 * BLOCK)
    follower = fill.reader()

    assert read_all(follower) == b"".join(chunks)
    assert fill._arrived.in_memory == BLOCK
    assert b"".join(leader) == b"".join(chunks)


def test_range_that_is_about_to_come_is_waited_for():
    fill = shared(FakeSink())
    begin(fill, Source(b"ab", b"cd", b"ef"), 6)

    assert fill.reader().read(3, 10, 5) == b"d"


def test_wrong_image_is_complete_for_nobody():
    source = Source(b"ab", b"cd")
    fill = shared(FakeSink())
    leader = begin(fill, source, 4, expected=(md5(b"other"),))
    follower = fill.reader()

    assert follower.read(0, 10, 5) == b"ab"
    with pytest.raises(FillFailed, match="md5"):
        follower.read(2, 10, 5)
    with pytest.raises(ChecksumMismatch):
        list(leader)
    assert source.closed == 1


@pytest.mark.parametrize("is_resumable", [True, False])
def test_app_that_fails_fails_for_the_leader_and_is_lost_for_others(is_resumable):
    sink, source = FakeSink(), Source(b"ab", OSError("gone"))
    fill = shared(sink)
    leader = begin(fill, source, 4, is_resumable=is_resumable)
    follower = fill.reader()

    assert follower.read(0, 10, 5) == b"ab"
    with pytest.raises(FillLost, match="gone"):
        follower.read(2, 10, 5)
    with pytest.raises(OSError, match="gone"):
        list(leader)
    assert source.closed == 1
    assert sink.outcome == "left" if is_resumable else sink.outcome.startswith("the app failed")


def test_short_body_can_be_gone_on_with():
    sink = FakeSink()
    leader = begin(shared(sink), Source(b"ab"), 4, is_resumable=True)

    with pytest.raises(LengthMismatch):
        list(leader)
    assert sink.outcome == "left"


def test_fill_goes_on_for_the_readers_that_are_left():
    fill = shared(FakeSink())
    leader = begin(fill, Source(b"ab", b"cd"), 4)
    follower = fill.reader()
    next(leader)
    leader.close()

    assert read_all(follower) == b"abcd"
    assert fill.stored


@pytest.mark.parametrize(
    ("finish_from", "finished"), [(0.0, True), (0.25, True), (0.75, False), (NEVER, False)]
)
def test_fill_without_readers_is_finished_from_a_share_on(finish_from, finished):
    sink, source = FakeSink(), Source(b"ab", b"cd")
    fill = shared(sink, finish_from=finish_from)
    leader = begin(fill, source, 4)
    next(leader)
    leader.close()

    assert fill.attend() == finished
    assert source.closed == (not finished)
    fill.pump_on()
    assert fill.stored == finished


def test_part_that_is_there_is_not_written_again_but_counts():
    sink = FakeSink()
    sink.data = b"ab"
    fill = shared(sink)
    leader = begin(fill, Source(Part(0, 2), b"cd"), 4, expected=(md5(b"abcd"),))

    assert b"".join(leader) == b"abcd"
    assert sink.writes == 1
    assert fill.stored


def test_where_storing_ends_one_reader_goes_on_and_the_others_elsewhere():
    sink = FakeSink(fail_write_at=1)
    chunks = [bytes([n]) * BLOCK for n in range(40)]
    source = Source(*chunks)
    fill = shared(sink)
    leader = begin(fill, source, 40 * BLOCK, is_resumable=True)
    follower = fill.reader()
    assert follower.read(0, 10, 5)

    assert b"".join(leader) == b"".join(chunks)

    position = 10
    with pytest.raises(FillLost):
        while piece := follower.read(position, 10**9, 5):
            assert piece == b"".join(chunks)[position : position + len(piece)]
            position += len(piece)
    assert not fill.stored
    follower.close()
    assert sink.outcome.startswith("could not be written")
    assert source.closed == 1


def test_where_storing_ends_it_is_the_leader_who_goes_on():
    """Whoever pumps then: all but the leader can go on elsewhere."""
    sink = FakeSink(fail_write_at=1)
    chunks = [bytes([n]) * BLOCK for n in range(40)]
    fill = shared(sink)
    leader = begin(fill, Source(*chunks), 40 * BLOCK, is_resumable=True)
    follower = fill.reader()

    position = 0
    with pytest.raises(FillLost):
        while piece := follower.read(position, 10**9, 5):
            position += len(piece)
    follower.close()

    assert b"".join(leader) == b"".join(chunks)


def test_what_was_kept_is_not_freed_before_the_app_comes_back_to_it():
    whole = bytes(2 * BLOCK)

    class Freeing(FakeSink):
        def rollback(self, reason, *, keep=True, is_wrong=True):
            super().rollback(reason, keep=keep)
            self.data = self.data if keep else b""

    sink = Freeing(fail_write_at=0)
    sink.kept = Kept(Record("cat", 0, ""), 8 * BLOCK, (Part(6 * BLOCK, 8 * BLOCK),))
    sink.data = bytes(6 * BLOCK) + whole
    missing = [bytes(BLOCK) for _ in range(6)]
    fill = shared(sink)
    leader = begin(fill, Source(*missing, Part(6 * BLOCK, 8 * BLOCK)), 8 * BLOCK)

    assert b"".join(leader) == bytes(8 * BLOCK)
    assert not fill.stored


def test_what_was_not_stored_is_freed_when_its_readers_have_passed():
    """Storing fails at the very end, when the leader is still at the beginning."""

    class Freeing(FakeSink):
        def rollback(self, reason, *, keep=True, is_wrong=True):
            super().rollback(reason, keep=keep)
            self.data = b""

    sink = Freeing(fail_write_at=39)
    chunks = [bytes([n]) * BLOCK for n in range(40)]
    fill = shared(sink)
    leader = begin(fill, Source(*chunks), 40 * BLOCK, is_resumable=True)
    follower = fill.reader()
    position = 0
    while piece := follower.read(position, BLOCK, 5):
        position += len(piece)
    follower.close()

    assert fill.is_over
    assert b"".join(leader) == b"".join(chunks)
    leader.close()
    assert sink.outcome.startswith("could not be written")
    assert not sink.data


def test_nobody_begins_to_follow_what_was_freed():
    sink = FakeSink(fail_write_at=1)
    fill = shared(sink)
    leader = begin(fill, Source(*[bytes(BLOCK) for _ in range(40)]), 40 * BLOCK)
    assert next(leader)
    assert fill.is_current()

    while sink.outcome is None:
        next(leader)

    assert not fill.is_over
    assert not fill.is_current()
    leader.close()


def test_app_runs_in_the_context_of_the_request_that_leads():
    variable = contextvars.ContextVar("variable", default="")
    seen = []

    def source():
        for chunk in (b"ab", b"cd"):
            seen.append(variable.get())
            yield chunk

    fill = contextvars.copy_context().run(_with(variable, "leader"), lambda: shared(FakeSink()))
    begin(fill, source(), 4)

    assert read_all(fill.reader()) == b"abcd"
    assert seen == ["leader", "leader"]


def _with(variable, value):
    def run(function):
        variable.set(value)
        return function()

    return run


def test_end_of_a_large_image_does_not_wait_for_the_device(monkeypatch):
    """What is right is as good as an entry; its hits count once it is one."""
    monkeypatch.setattr(fill_module, "_LARGE", 4)
    stored, counted = threading.Event(), []

    class SlowSink(FakeSink):
        def commit(self, record):
            assert stored.wait(20)
            super().commit(record)

    sink, over = SlowSink(), threading.Event()
    fill = shared(sink, ended=lambda fill: over.set())
    leader = begin(fill, Source(b"ab", b"cd"), 4)

    assert b"".join(leader) == b"abcd"
    leader.close()
    assert (fill.is_verified, fill.is_over, fill.attend()) == (True, False, False)
    assert sink.published == 4
    assert read_all(fill.reader()) == b"abcd"
    fill.count_hit(lambda: counted.append(fill.stored))
    assert counted == []
    stored.set()
    assert over.wait(20)
    assert sink.outcome == "committed"
    assert counted == [True]


class WantedSink(FakeSink):
    """A reader in another process waits for all of it."""

    def wanted(self):
        return 10**9


def test_what_is_not_stored_any_more_is_not_gathered_for_other_processes():
    """Nothing of it could be shown to them."""
    sink = WantedSink(fail_write_at=0)
    source = Source(*[bytes(BLOCK)] * 200)
    fill = shared(sink)
    leader = begin(fill, source, 200 * BLOCK, is_resumable=True)
    next(leader)

    for _ in range(100):
        fill.pump_on()

    assert fill._arrived.in_memory < 64 * BLOCK
    assert sum(map(len, leader)) == 199 * BLOCK


def test_kept_parts_are_read_to_the_end_where_what_is_between_cannot_be_stored():
    """Its file is not freed under the one reader that goes on."""

    class KeptSink(FakeSink):
        kept = Kept(Record("cat", 0, ""), 5 * BLOCK, (Part(3 * BLOCK, 5 * BLOCK),))

        def rollback(self, reason, *, keep=True, is_wrong=True):
            super().rollback(reason, keep=keep)
            self.data = b""

    body = bytes(3 * BLOCK) + b"x" * 2 * BLOCK
    sink = KeptSink(fail_write_at=0)
    sink.data = body
    chunks = [bytes(BLOCK)] * 3
    parts = [Part(3 * BLOCK, 4 * BLOCK), Part(4 * BLOCK, 5 * BLOCK)]
    leader = begin(shared(sink), Source(*chunks, *parts), 5 * BLOCK, (md5(body),))

    assert b"".join(leader) == body
    assert not leader.stored


def test_fill_that_failed_is_over_also_if_closing_the_app_is_interrupted():
    """Else the next reader would take the app's end for the image's."""

    class Interrupted(Source):
        def close(self):
            super().close()
            raise GeneratorExit

    sink, source = FakeSink(), Interrupted(b"ab", b"cd", OSError("gone"))
    fill = shared(sink)
    leader, follower = begin(fill, source), fill.reader()
    assert next(leader) == b"ab"
    with pytest.raises(GeneratorExit):
        next(leader)

    assert fill.is_over
    with pytest.raises(OSError, match="gone"):
        next(leader)
    with pytest.raises(FillLost):
        follower.read(2, 10, 5)
    assert (source.closed, fill.stored) == (1, False)


def test_what_interrupts_one_reader_is_not_raised_for_the_leader():
    sink, source = FakeSink(), Source(b"ab", GeneratorExit())
    fill = shared(sink)
    leader, follower = begin(fill, source, 4), fill.reader()
    assert follower.read(0, 10, 5) == b"ab"
    with pytest.raises(GeneratorExit):
        follower.read(2, 10, 5)

    assert next(leader) == b"ab"
    with pytest.raises(FillLost, match="GeneratorExit"):
        next(leader)


def test_cache_that_is_closed_does_not_end_what_is_just_being_stored(monkeypatch):
    monkeypatch.setattr(fill_module, "_LARGE", 4)
    stored, over = threading.Event(), threading.Event()

    class SlowSink(FakeSink):
        def commit(self, record):
            assert stored.wait(20)
            super().commit(record)

    class Stopping(Source):
        def close(self):
            super().close()
            fill.stop()

    sink, source = SlowSink(), Stopping(b"ab", b"cd")
    fill = shared(sink, finish_from=0.0, ended=lambda fill: over.set())
    begin(fill, source, 4).close()
    fill.pump_on()
    stored.set()

    assert over.wait(20)
    assert (sink.outcome, source.closed) == ("committed", 1)


def test_fill_ends_although_nobody_can_say_who_waits_elsewhere():
    """Its state may just be closed, by the thread that ends it."""

    class Closed(FakeSink):
        def wanted(self):
            raise DriverError("cat", "bad file descriptor")

    source = Source(b"ab")
    fill = shared(Closed())
    begin(fill, source, 4).close()

    assert (fill.is_over, source.closed) == (True, 1)


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


def test_who_cannot_be_told_of_bytes_costs_the_copy_and_not_the_response():
    class Silent(FakeSink):
        def publish(self, readable):
            raise CacheFull("cat", "no space left on device")

    sink = Silent()
    body = bytes(3 * BLOCK)
    fill = fill_of(Source(*[bytes(BLOCK)] * 3), sink, len(body))

    assert b"".join(fill) == body
    assert not fill.stored
    assert sink.outcome.startswith("could not be written")


def test_who_waits_in_vain_for_the_answer_ends_nothing():
    fill = shared(FakeSink())
    follower = fill.reader()
    assert not fill.wait_for_record(0.01)
    follower.close()

    assert b"".join(begin(fill, Source(b"ab"), 2)) == b"ab"
    assert fill.stored


def test_who_reads_a_fill_that_was_given_up_may_go_on_elsewhere():
    """Whether what came is kept has nothing to do with it."""
    fill = shared(FakeSink())
    leader = begin(fill, Source(b"ab", b"cd"), 4)
    leader.close()
    late = fill.reader()

    with pytest.raises(FillLost, match="the client left"):
        late.read(0, 10, 5)
    late.close()
