"""Hits gathered in memory."""

import gc
import threading

import pytest

from cachemw.drivers import _hits
from cachemw.drivers._hits import HitCounter


@pytest.fixture
def written():
    return []


@pytest.fixture
def counter(written, monkeypatch):
    monkeypatch.setattr(_hits, "INTERVAL", 3600)
    counter = HitCounter(lambda hits: written.append(dict(hits)))
    yield counter
    counter.stop()


def test_hits_are_written_together(counter, written):
    for when in (5.0, 9.0, 7.0):
        counter.count("cat", when)
    counter.count("dog", 1.0)
    assert written == []
    counter.flush()
    counter.flush()

    assert written == [{"cat": (3, 9.0), "dog": (1, 1.0)}]


def test_nothing_is_written_where_nothing_was_counted(counter, written):
    counter.flush()

    assert written == []


def test_hits_of_an_entry_that_is_gone_are_dropped(counter, written):
    counter.count("cat", 1.0)
    counter.count("dog", 1.0)
    counter.forget("cat")
    counter.forget("none")
    counter.flush()

    assert written == [{"dog": (1, 1.0)}]


def test_hits_that_could_not_be_written_are_kept_and_added_to(monkeypatch, caplog):
    monkeypatch.setattr(_hits, "INTERVAL", 3600)
    written, broken = [], [True]

    def write(hits):
        if broken:
            raise RuntimeError("the disk is full")
        written.append(dict(hits))

    counter = HitCounter(write)
    counter.count("cat", 5.0)
    counter.flush()
    counter.count("cat", 3.0)
    broken.clear()
    counter.flush()
    counter.stop()

    assert written == [{"cat": (2, 5.0)}]
    assert "the disk is full" in caplog.text


def test_a_hit_that_comes_while_others_are_written_is_kept(monkeypatch):
    monkeypatch.setattr(_hits, "INTERVAL", 3600)
    written = []

    def write(hits):
        written.append(dict(hits))
        if len(written) == 1:
            counter.count("cat", 2.0)

    counter = HitCounter(write)
    counter.count("cat", 1.0)
    counter.flush()
    counter.flush()
    counter.stop()

    assert written == [{"cat": (1, 1.0)}, {"cat": (1, 2.0)}]


def test_the_thread_writes_by_itself(monkeypatch):
    monkeypatch.setattr(_hits, "INTERVAL", 0.001)
    written = threading.Event()
    counter = HitCounter(lambda hits: written.set())
    counter.count("cat", 1.0)

    assert written.wait(20)
    counter.stop()
    written.clear()
    counter.count("cat", 1.0)  # begins another thread
    assert written.wait(20)
    counter.stop()


def test_a_hit_writes_where_no_thread_does(counter, written, monkeypatch):
    """Some servers keep threads from running between requests."""
    counter.count("cat", 1.0)
    monkeypatch.setattr(_hits, "_OVERDUE", -1.0)
    counter.count("cat", 1.0)

    assert written == [{"cat": (2, 1.0)}]


def test_a_hit_is_counted_where_no_thread_can_begin(counter, written, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    counter.count("cat", 1.0)
    counter.flush()

    assert written == [{"cat": (1, 1.0)}]


def test_an_overdue_hit_does_not_wait_for_a_write_that_takes_long(counter, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()

    def write(hits):
        writing.set()
        go_on.wait(20)

    counter._write = write
    counter.count("cat", 1.0)
    thread = threading.Thread(target=counter.flush)
    thread.start()
    assert writing.wait(20)
    monkeypatch.setattr(_hits, "_OVERDUE", -1.0)
    counter.count("cat", 1.0)  # returns
    go_on.set()
    thread.join()


def test_a_forgotten_entry_may_be_collected_inside_any_method(counter, written, monkeypatch):
    """Its hit is counted by the very thread that holds the counter's locks."""
    monkeypatch.setattr(_hits, "_OVERDUE", -1.0)

    class Forgotten:
        def __del__(self):
            counter.count("dog", 1.0)

    def leave_garbage():
        forgotten = Forgotten()
        forgotten.itself = forgotten

    class Names(str):
        def __hash__(self):
            leave_garbage()
            gc.collect()
            return super().__hash__()

    for turn in range(3):
        counter.count(Names(f"cat{turn}"), 1.0)
        counter.forget(Names("none"))
        counter.flush()
    counter.flush()

    dogs = sum(hits.get("dog", (0, 0))[0] for hits in written)
    assert dogs > 3
    assert sum(hits.get("cat0", (0, 0))[0] for hits in written) == 1


def test_a_counter_that_nobody_uses_ends_its_thread(monkeypatch):
    monkeypatch.setattr(_hits, "INTERVAL", 0.001)
    counter = HitCounter(lambda hits: None)
    before = set(threading.enumerate())
    counter.count("cat", 1.0)
    [thread] = set(threading.enumerate()) - before
    del counter
    gc.collect()

    thread.join(20)
    assert not thread.is_alive()


def test_hits_are_written_when_the_process_ends(run_python):
    output = run_python(
        """
import os
from cachemw.drivers._hits import HitCounter
counter = HitCounter(lambda hits: print(os.getpid() == parent, dict(hits), flush=True))
parent = os.getpid()
counter.count("cat", 1.0)
if os.fork() == 0:
    counter.count("dog", 1.0)  # and not the parent's cat
else:
    os.wait()
"""
    )

    assert output == "False {'dog': (1, 1.0)}\nTrue {'cat': (1, 1.0)}\n"
