"""One fill whose bytes cannot be stored, or not at once."""

import threading

import pytest

import cachemw.core.fill as fill_module
from cachemw.core.growing import FillLost
from cachemw.core.intake import BLOCK
from cachemw.drivers.base import Kept, Part, Record
from cachemw.errors import CacheFull, ChecksumMismatch
from tests.unit.core.filling import FakeSink, Source, begin, fill_of, md5, read_all, shared


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


# With several readers


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


# Storing that takes its time


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
