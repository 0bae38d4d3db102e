"""Who finds which fill, where one is just ending, failing or changing."""

import os
import threading
import time

import pytest

from cachemw import ImageCache
from cachemw.core.followed import Followed
from cachemw.core.growing import FillLost
from cachemw.core.supervisor import Supervisor, supervisor
from cachemw.drivers.base import FillState, Record
from cachemw.errors import CacheFull
from tests.unit.core.filling import Source
from tests.waiting import wait_until

RECORD = Record("cat", 0, "", stored=1.0)


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=str(tmp_path))
    yield cache
    cache.close()


def join(cache, **options):
    options = {"patience": 5, "may_lead": True, "is_movable": True, **options}
    return cache.sharing.join("cat", lambda record: True, **options)


def begin(cache, *chunks, length=None, **options):
    lead = join(cache, **options).lead
    return lead, cache.sharing.start_fill("cat", Source(*chunks), RECORD, lead=lead, length=length)


def test_fill_that_ended_since_it_was_found_is_followed_by_nobody(cache, monkeypatch):
    """Its file is closed by then."""
    _, leader = begin(cache, b"ab", b"cd", length=4)
    found = cache.fills.under_way

    def end_then(image_id):
        fills = found(image_id)
        assert b"".join(leader) == b"abcd"
        leader.close()
        monkeypatch.undo()
        return fills

    monkeypatch.setattr(cache.fills, "under_way", end_then)
    with join(cache).entry as entry:
        assert entry.pread(10, 0) == b"abcd"


def test_fill_that_ended_since_it_was_found_is_an_entry_for_who_may_not_lead(cache, monkeypatch):
    _, leader = begin(cache, b"ab", b"cd", length=4)
    found = cache.fills.under_way

    def end_then(image_id):
        fills = found(image_id)
        assert b"".join(leader) == b"abcd"
        leader.close()
        return fills

    monkeypatch.setattr(cache.fills, "under_way", end_then)
    with join(cache, may_lead=False).entry as entry:
        assert entry.pread(10, 0) == b"abcd"


def test_fill_that_is_just_being_given_up_is_followed_by_nobody(cache):
    """Who comes meanwhile waits for its end, and leads."""
    closing, go = threading.Event(), threading.Event()

    class Slow(Source):
        def close(self):
            super().close()
            closing.set()
            assert go.wait(20)

    source = Slow(b"ab", b"cd")
    lead = join(cache).lead
    leader = cache.sharing.start_fill("cat", source, RECORD, lead=lead, length=4)
    thread = threading.Thread(target=leader.close)
    thread.start()
    assert closing.wait(20)
    threading.Timer(0.1, go.set).start()

    joined = join(cache)
    thread.join()

    assert joined.growing is None
    joined.lead.decline("")


def test_fill_that_is_not_stored_any_more_is_followed_by_nobody(cache, monkeypatch):
    fill, leader = begin(cache, *[bytes(2**20)] * 40, length=40 * 2**20)

    def full(data, position=None):
        raise CacheFull("cat", "no space left on device")

    monkeypatch.setattr(fill.sink, "write", full)
    for _ in range(39):
        next(leader)

    joined = join(cache)
    leader.close()

    assert joined.growing is None
    assert joined.lead is not fill
    joined.lead.decline("")


def test_fill_whose_followers_were_quicker_is_not_attended_to_for_ever(cache, monkeypatch):
    lead = join(cache).lead
    begin_fill = lead.begin

    def begin_and_end(*args, **options):
        leader = begin_fill(*args, **options)
        assert b"".join(leader) == b"ab"
        return leader

    monkeypatch.setattr(lead, "begin", begin_and_end)
    cache.sharing.start_fill("cat", Source(b"ab"), RECORD, lead=lead).close()

    assert lead not in supervisor._fills


def test_closing_waits_until_nothing_is_written_any_more(cache):
    asked = threading.Event()

    class Waiting(Source):
        """Its chunks come once the cache is being closed."""

        def __next__(self):
            asked.set()
            wait_until(lambda: lead.is_ending, "the fill is given up")
            return super().__next__()

    lead = join(cache, finish_from=0.0).lead
    source = Waiting(b"ab", b"cd", b"ef")
    leader = cache.sharing.start_fill("cat", source, RECORD, lead=lead, length=6)
    leader.close()
    assert asked.wait(20)

    cache.close()

    assert lead.is_over
    assert source.closed == 1


def test_claim_is_given_back_where_the_second_look_is_interrupted(cache, monkeypatch):
    def interrupted(image_id, selects):
        raise GeneratorExit

    with monkeypatch.context() as patch:
        patch.setattr(cache.entries, "lookup", interrupted)
        with pytest.raises(GeneratorExit):
            join(cache)

    joined = join(cache, patience=0)
    assert joined.lead is not None
    joined.lead.decline("")


def test_what_another_cache_fills_is_not_held_open_where_nobody_follows(cache, tmp_path):
    other = ImageCache(dir=str(tmp_path))
    _, leader = begin(other, b"ab", b"cd", length=4)
    next(leader)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.fills, "under_way", lambda image_id: [])
        assert join(cache, patience=0) == (None, None, None, None)

    assert not cache.fills._followed
    leader.close()
    other.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_of_fork_does_not_wait_for_its_parents_question(cache):
    lead = join(cache).lead
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(bool(cache.fills.under_way("cat")))
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    lead.decline("")

    assert status == 0


def test_followers_do_not_wait_for_a_leader_that_alone_could_go_on(cache):
    """The app needs the thread of the leader, whose client has left."""
    source = Source(b"ab", b"cd")
    lead = join(cache, is_movable=False).lead
    leader = cache.sharing.start_fill("cat", source, RECORD, lead=lead, length=4, is_resumable=True)
    follower = join(cache).reader
    next(leader)
    leader.close()

    assert source.closed == 1
    assert follower.read(0, 10, 5) == b"ab"
    with pytest.raises(FillLost, match="the client left"):
        follower.read(2, 10, 5)
    follower.close()


class FakeTail:
    """Another process's fill, which goes on whenever a reader says what it wants."""

    def __init__(self):
        self.data = b"ab"
        self.waits = None

    def state(self):
        return FillState(RECORD, 10, len(self.data), "")

    def is_alive(self):
        return True

    def is_current(self):
        return True

    def want(self, position):
        if self.waits is not None:
            self.data += b"cd"
            self.waits()

    def pread(self, size, position):
        return self.data[position : position + size]

    def close(self):
        pass


def test_bytes_that_come_between_two_looks_are_not_missed():
    tail = FakeTail()
    followed = Followed("cat", tail)
    tail.waits = followed.look  # as the supervisor does, before the reader begins to wait
    reader = followed.reader()

    assert reader.read(2, 10, 0.2) == b"cd"
    reader.close()


def test_one_fill_that_cannot_be_attended_to_keeps_no_other_from_it():
    attended = threading.Event()

    class Broken:
        image_id = "cat"
        available = 0

        def attend(self):
            raise OSError("no")

    class Other(Broken):
        def attend(self):
            attended.set()
            return False

    one, broken, other = Supervisor(), Broken(), Other()
    one._followed = _Ordered([broken, other])
    one._start()
    assert attended.wait(5)
    one.drop(other)
    deadline = time.monotonic() + 5
    while one._is_running and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not one._is_running


class _Ordered(dict):
    """A set that is gone through in order."""

    def __init__(self, members):
        super().__init__(dict.fromkeys(members))

    def discard(self, member):
        self.pop(member, None)


def test_fill_that_was_overtaken_is_followed_by_nobody_though_it_is_over(cache, monkeypatch):
    """Who waited for the answer may have begun to after the change."""
    lead = join(cache).lead
    over, joined = threading.Event(), []
    wait = lead.wait_for_record

    def wait_and_sleep(seconds):
        found = wait(seconds)
        assert over.wait(20)
        return found

    monkeypatch.setattr(lead, "wait_for_record", wait_and_sleep)
    follower = threading.Thread(target=lambda: joined.append(join(cache)))
    follower.start()
    leader = cache.sharing.start_fill("cat", Source(b"ab", b"cd"), RECORD, lead=lead, length=4)
    cache.delete_cached_image("cat")
    assert b"".join(leader) == b"abcd"
    assert lead.is_over
    over.set()
    follower.join(20)

    (found,) = joined
    leader.close()
    assert found.growing is None
    assert found.lead is not None
    found.lead.decline("")


def test_who_comes_while_the_first_copy_is_on_its_way_need_not_look_for_another(cache):
    assert not cache.sharing.is_filling("cat", lambda record: True)

    lead, leader = begin(cache, b"ab", b"cd", length=4)

    assert cache.sharing.is_filling("cat", lambda record: True)
    assert not cache.sharing.is_filling("cat", lambda record: False)
    assert not cache.sharing.is_filling("dog", lambda record: True)
    assert b"".join(leader) == b"abcd"
    assert lead.is_over
    assert not cache.sharing.is_filling("cat", lambda record: True)


def test_who_comes_while_another_variant_is_stored_looks_for_it(cache):
    """It may be what is asked for, and there at once."""
    cache.cache_image_iter("cat", [b"stored"])
    lead = cache.sharing.join("cat", lambda record: False, patience=5, may_lead=True).lead

    assert lead is not None
    assert not cache.sharing.is_filling("cat", lambda record: True)
    lead.decline("")
