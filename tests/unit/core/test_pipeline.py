"""Blocks of a fill are worked on in order, beside the response, within bounds."""

import os
import threading

from cachemw.core import pipeline
from cachemw.core.pipeline import Pipeline

PATIENCE = 20


def test_every_worker_gets_every_block_in_order():
    seen = [[], []]
    work = Pipeline([seen[0].append, seen[1].append], len)
    blocks = [b"%d" % number for number in range(1000)]
    for block in blocks:
        work.put(block)
    work.drain()

    assert seen == [blocks, blocks]
    assert work.errors == [None, None]


def test_workers_run_beside_each_other():
    met = threading.Barrier(2, timeout=PATIENCE)
    work = Pipeline([lambda block: met.wait(), lambda block: met.wait()], len)
    work.put(b"x")
    work.drain()

    assert work.errors == [None, None]


def test_worker_that_fails_gets_no_more_and_does_not_stop_the_other():
    calls = []

    def fail(block):
        calls.append(block)
        raise OSError("no")

    seen = []
    work = Pipeline([fail, seen.append], len)
    for number in range(10):
        work.put(b"%d" % number)
        work.drain()

    assert calls == [b"0"]
    assert len(seen) == 10
    assert isinstance(work.errors[0], OSError)


def test_fast_app_waits_for_a_slow_worker(monkeypatch):
    """What waits in memory is bounded."""
    monkeypatch.setattr(pipeline, "LIMIT", 10)
    go, taken = threading.Event(), []

    def slow(block):
        assert go.wait(PATIENCE)
        taken.append(block)

    work = Pipeline([slow], len)
    done = threading.Event()

    def app():
        for _ in range(5):
            work.wait_for_room()
            work.put(b"x" * 5)
        done.set()

    thread = threading.Thread(target=app)
    thread.start()
    assert not done.wait(0.05)
    go.set()
    assert done.wait(PATIENCE)
    thread.join()
    work.drain()
    assert len(taken) == 5


def test_number_of_threads_is_bounded_for_many_fills():
    before = threading.active_count()
    fills = [Pipeline([lambda block: None, lambda block: None], len) for _ in range(50)]
    for _ in range(20):
        for fill in fills:
            fill.put(b"x")
    for fill in fills:
        fill.drain()

    assert threading.active_count() - before <= pipeline.THREADS


def test_child_of_fork_has_threads_of_its_own():
    work = Pipeline([lambda block: None], len)
    work.put(b"x")
    work.drain()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        seen = []
        child = Pipeline([seen.append], len)
        child.put(b"x")
        child.drain()
        os.write(write, b"%d" % len(seen))
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(read, 10) == b"1"
    os.close(read)
    os.close(write)
