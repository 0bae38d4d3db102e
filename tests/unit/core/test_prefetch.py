"""Which queued image is next, and what follows from a failure."""

import threading
import time

import pytest

from cachemw import ImageCache
from cachemw.core import prefetch
from cachemw.core.outcomes import DONE, Outcome
from cachemw.core.prefetch import (
    LONGEST_PAUSE,
    MOST_LASTING_TRIES,
    MOST_TRIES,
    Prefetcher,
    after_failure,
    due,
    next_due,
)
from cachemw.drivers.queued import Note
from tests.waiting import wait_until

NOW = 1_700_000_000.0


def queued(image_id, **fields):
    return {"image_id": image_id, "after": 0.0, "set_aside": False, "fetching": False, **fields}


# Decisions


def test_each_failure_has_a_longer_pause_up_to_the_last():
    note, pauses = Note(url="http://x/"), []
    while not note.set_aside:
        note = after_failure(note, Outcome("no"), NOW)
        pauses.append(note.after - NOW)

    assert pauses == sorted(set(pauses))
    assert note.tries == len(pauses) == MOST_TRIES
    assert (note.url, note.reason) == ("http://x/", "no")
    assert after_failure(Note(tries=50), Outcome("no"), NOW).after == NOW + LONGEST_PAUSE


def test_what_will_fail_again_is_set_aside_sooner():
    note = Note()
    for _ in range(MOST_LASTING_TRIES):
        assert not note.set_aside
        note = after_failure(note, Outcome("404", is_lasting=True), NOW)

    assert note.set_aside
    assert MOST_LASTING_TRIES < MOST_TRIES


def test_due_is_what_waits_in_its_order():
    queue = [
        queued("later", after=NOW + 1),
        queued("b", after=NOW),
        queued("aside", set_aside=True),
        queued("busy", fetching=True),
        queued("a"),
        queued("of a wrong clock", after=NOW + LONGEST_PAUSE + 1),
    ]

    assert due(queue, NOW) == ["b", "a", "of a wrong clock"]
    assert next_due(queue[:4], NOW) == 1
    assert next_due([queued("a"), queued("b", after=NOW + 5, set_aside=True)], NOW) == float("inf")


# Effects


class Fake(Prefetcher):
    """Does with each image what the test says."""

    def __init__(self, cache, acts, **options):
        super().__init__(cache, 0.2, **options)
        self.acts, self.tried = acts, []

    def fetch(self, fetch):
        self.tried.append(fetch.image_id)
        act = self.acts.get(fetch.image_id, DONE)
        return act(fetch) if callable(act) else act


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", min_free=0)
    yield cache
    cache.close()


def work(prefetcher):
    """Go on until there is nothing to do at once."""
    while not prefetcher.step():
        pass


def notes(cache):
    return {queued["image_id"]: (queued["tries"], queued["reason"]) for queued in cache.get_queue()}


def test_one_failure_stops_no_other(cache):
    def burst(fetch):
        raise ValueError("boom")

    for image_id in ("a", "b", "c", "d"):
        cache.queue_image(image_id)
    prefetcher = Fake(cache, {"a": burst, "c": Outcome("no")})
    work(prefetcher)

    assert prefetcher.tried == ["a", "b", "c", "d"]
    assert notes(cache) == {"a": (1, "the app failed: ValueError: boom"), "c": (1, "no")}


def test_what_is_not_due_is_left(cache):
    cache.queue_image("a")
    prefetcher = Fake(cache, {"a": Outcome("no")})
    for _ in range(5):
        work(prefetcher)

    assert prefetcher.tried == ["a"]


def test_what_comes_later_is_found(cache):
    prefetcher = Fake(cache, {})
    work(prefetcher)
    time.sleep(0.02)
    cache.queue_image("a")
    work(prefetcher)

    assert prefetcher.tried == ["a"]
    assert cache.get_queue() == []


def test_a_fetch_that_hangs_stops_no_other_and_keeps_its_thread_alone(cache, monkeypatch):
    monkeypatch.setattr(prefetch, "FIRST_PAUSE", 0.0)
    go = threading.Event()

    def hang(fetch):
        fetch.advance(10)
        go.wait(20)
        return DONE

    cache.queue_image("a")
    cache.queue_image("b")
    prefetcher = Fake(cache, {"a": hang})
    try:
        wait_until(lambda: prefetcher.step() or notes(cache).get("a", (0,))[0] >= 3, "tried again")
        assert prefetcher.tried == ["a", "b"]
        assert notes(cache)["a"][1] == "stalled: nothing came for 0.2 s after 10 bytes"
    finally:
        go.set()
    # It goes on after all, and the next try finds that.
    wait_until(lambda: prefetcher.step() or not prefetcher._stuck, "the thread is back")


def test_slow_is_not_stalled(cache):
    def drip(fetch):
        for _ in range(8):
            time.sleep(0.1)
            fetch.advance(1)
        return DONE

    cache.queue_image("a")
    work(Fake(cache, {"a": drip}))

    assert cache.get_queue() == []


def test_threads_that_hang_are_bounded(cache, monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_STUCK", 2)
    go = threading.Event()
    for number in range(4):
        cache.queue_image(f"{number}")
    prefetcher = Fake(cache, dict.fromkeys("0123", lambda fetch: go.wait(20) and DONE))
    try:
        work(prefetcher)
        assert prefetcher.tried == ["0", "1"]
    finally:
        go.set()
    wait_until(lambda: not prefetcher._stuck, "the threads are back")
    work(prefetcher)
    assert prefetcher.tried[2:] == ["2", "3"]


def test_ending_leaves_what_is_being_fetched_in_the_queue(cache):
    go = threading.Event()
    cache.queue_image("a")
    prefetcher = Fake(cache, {"a": lambda fetch: go.wait(20) and DONE})
    prefetcher._stall_seconds = 60
    thread = threading.Thread(target=prefetcher.step)
    thread.start()
    wait_until(lambda: prefetcher.tried, "it began")
    prefetcher.end()
    thread.join(5)
    go.set()

    assert not thread.is_alive()
    assert notes(cache) == {"a": (0, "")}


def test_queue_that_cannot_be_written_is_not_worked_without_a_pause(cache, monkeypatch):
    from cachemw.drivers import _notes

    def refuse(*args):
        raise OSError(28, "No space left on device")

    cache.queue_image("a")
    monkeypatch.setattr(_notes, "write", refuse)
    prefetcher = Fake(cache, {"a": Outcome("no")})
    for _ in range(3):
        prefetcher._read_again = 0.0
        work(prefetcher)

    assert prefetcher.tried == ["a"]


@pytest.mark.parametrize("workers", [1, 4])
def test_working_off_tries_each_once_whatever_its_pause(cache, workers):
    for number in range(8):
        cache.queue_image(f"{number}")
    claim = cache.claim_queued("3")
    claim.keep(Note(tries=1, after=time.time() + 1000))
    claim.close()
    seen = []
    prefetcher = Fake(
        cache, {"5": Outcome("no")}, observe=lambda fetch: fetch.judged and seen.append(fetch)
    )
    found = prefetcher.work_off(workers)

    assert sorted(prefetcher.tried) == sorted(found) == sorted(f.image_id for f in seen)
    assert [i for i, outcome in found.items() if not outcome.is_done] == ["5"]
    assert notes(cache) == {"5": (1, "no")}
