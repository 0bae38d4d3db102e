"""One fill and several readers: who pumps, who gets what, and when it ends."""

import contextvars

import pytest

from cachemw.core.fill import NEVER, Fill
from cachemw.core.growing import FillFailed, FillLost, FillStalled
from cachemw.core.intake import BLOCK
from cachemw.drivers.base import Part
from cachemw.errors import ChecksumMismatch, DriverError, LengthMismatch
from tests.unit.core.filling import FakeSink, FreeRoom, Source, begin, md5, read_all, shared


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


def test_fill_ends_although_nobody_can_say_who_waits_elsewhere():
    """Its state may just be closed, by the thread that ends it."""

    class Closed(FakeSink):
        def wanted(self):
            raise DriverError("cat", "bad file descriptor")

    source = Source(b"ab")
    fill = shared(Closed())
    begin(fill, source, 4).close()

    assert (fill.is_over, source.closed) == (True, 1)


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
