"""Numbers of many processes in one directory: none lost, none counted twice."""

import gc
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from cachemw.metrics import counters as counters_module
from cachemw.metrics.counters import Counters
from cachemw.metrics.declared import FILLS, FIRST_BYTE, METRICS, NAMES, REQUESTS, SENT_BYTES
from cachemw.metrics.totals import totals

HITS = "cachemw_requests_total{outcome=hit}"

#: Children that begin with a copy of the parent's memory, as a server's workers do.
fork = multiprocessing.get_context("fork")


def files(directory):
    return sorted(path.name for path in (directory / ".stats").iterdir() if path.suffix)


def in_child(function, *args):
    """Run a function in a child of fork, which ends as a process does that is killed."""

    def run():
        function(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork.Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_every_place_has_a_name_of_its_own():
    assert len(set(NAMES)) == len(NAMES)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_unknown_value_of_a_label_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        REQUESTS.place("no such outcome")


def test_nothing_was_counted_where_there_is_no_file(tmp_path):
    assert set(totals(str(tmp_path)).values()) == {0}
    assert list(tmp_path.iterdir()) == []


def test_what_is_counted_is_seen_at_once(tmp_path):
    counters = Counters(str(tmp_path))

    counters.add(REQUESTS, value="hit")
    counters.add(SENT_BYTES, 2**40, "hit")
    counters.observe(FIRST_BYTE, 0.003, "hit")

    found = totals(str(tmp_path))
    assert found[HITS] == 1
    assert found["cachemw_sent_bytes_total{outcome=hit}"] == 2**40
    assert found["cachemw_first_byte_seconds{outcome=hit} le 0.005"] == 1
    assert found["cachemw_first_byte_seconds{outcome=hit} sum"] == 3_000_000
    assert {name: value for name, value in counters.own().items() if value} == {
        name: value for name, value in found.items() if value
    }


def test_time_beyond_every_bound_is_counted(tmp_path):
    counters = Counters(str(tmp_path))

    counters.observe(FIRST_BYTE, 1e6, "miss")

    assert totals(str(tmp_path))["cachemw_first_byte_seconds{outcome=miss} le inf"] == 1


def test_threads_lose_nothing(tmp_path):
    counters = Counters(str(tmp_path))

    def count():
        for _ in range(2000):
            counters.add(REQUESTS, value="hit")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert totals(str(tmp_path))[HITS] == 16_000


def test_killed_processes_lose_nothing(tmp_path):
    counters = Counters(str(tmp_path))
    counters.add(REQUESTS, value="hit")

    for number in range(5):
        in_child(counters.add, REQUESTS, 10, "hit")
        assert totals(str(tmp_path))[HITS] == 1 + 10 * (number + 1)

    assert len(files(tmp_path)) == 1  # those of the dead are put away


def test_dead_are_counted_once_however_often_one_looks(tmp_path):
    for _ in range(3):
        in_child(Counters(str(tmp_path)).add, REQUESTS, 1, "hit")

    for _ in range(3):
        assert totals(str(tmp_path))[HITS] == 3


@pytest.mark.parametrize("step", range(4))
def test_who_is_killed_while_putting_away_counts_nobody_twice(tmp_path, monkeypatch, step):
    for _ in range(2):
        in_child(Counters(str(tmp_path)).add, REQUESTS, 1, "hit")

    def die_after(directory):
        done = iter(range(step))

        def watched(call):
            def do(*args, **options):
                if next(done, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            return do

        monkeypatch.setattr(os, "rename", watched(os.rename))
        monkeypatch.setattr(os, "unlink", watched(os.unlink))
        totals(directory)

    in_child(die_after, str(tmp_path))

    for _ in range(2):
        assert totals(str(tmp_path))[HITS] == 2
    assert files(tmp_path) == []


def test_gauges_are_of_the_living(tmp_path):
    counters = Counters(str(tmp_path))
    counters.add(FILLS, 2)

    in_child(Counters(str(tmp_path)).add, FILLS, 7)

    assert totals(str(tmp_path))["cachemw_fills"] == 2
    counters.add(FILLS, -1)
    assert totals(str(tmp_path))["cachemw_fills"] == 1


def test_child_counts_for_itself(tmp_path):
    """And its parent's file is the parent's, also when the child lives on."""
    counters = Counters(str(tmp_path))
    counters.add(REQUESTS, value="hit")
    here, there = fork.Pipe()

    def count():
        counters.add(REQUESTS, 5, "hit")
        there.send("counted")
        there.recv()

    child = fork.Process(target=count)
    child.start()
    try:
        assert here.recv() == "counted"
        counters.close()
        assert totals(str(tmp_path))[HITS] == 6
        assert len(files(tmp_path)) == 1
    finally:
        here.send("end")
        child.join()
    assert totals(str(tmp_path))[HITS] == 6
    assert files(tmp_path) == []


def test_closed_counters_go_on_for_nobody(tmp_path):
    counters = Counters(str(tmp_path))
    counters.add(REQUESTS, value="hit")
    counters.close()
    counters.add(REQUESTS, value="hit")
    counters.close()

    assert totals(str(tmp_path))[HITS] == 1


def test_counting_goes_on_where_there_can_be_no_file(tmp_path, caplog):
    (tmp_path / ".stats").write_text("in the way")
    counters = Counters(str(tmp_path))

    counters.add(REQUESTS, value="hit")

    assert counters.own()[HITS] == 1
    assert "statistics are not shared" in caplog.text


def test_full_disk_leaves_no_file(tmp_path, monkeypatch):
    """A page of a mapped file for which there is no room would kill the process."""
    monkeypatch.setattr(counters_module.os, "write", lambda fd, data: 10)
    counters = Counters(str(tmp_path))

    counters.add(REQUESTS, value="hit")

    assert counters.own()[HITS] == 1
    assert list((tmp_path / ".stats").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 64, b"cachemws1 0000000002\n{}", b"cachemws1 x\n", b"cachemws9 0000000002\n{}"],
)
def test_files_that_are_not_ours_count_nothing(tmp_path, data):
    counters = Counters(str(tmp_path))
    counters.add(REQUESTS, value="hit")
    (tmp_path / ".stats" / "1-1.counts").write_bytes(data)

    assert totals(str(tmp_path))[HITS] == 1


@pytest.mark.parametrize("data", [b"", b"[]", b'{"counts": 3, "added": []}', b"\xff"])
def test_damaged_past_is_begun_anew(tmp_path, data, caplog):
    in_child(Counters(str(tmp_path)).add, REQUESTS, 1, "hit")
    totals(str(tmp_path))
    (tmp_path / ".stats" / "past").write_bytes(data)

    assert totals(str(tmp_path))[HITS] == 0
    assert "begun anew" in caplog.text


def test_numbers_of_another_version_are_kept(tmp_path):
    (tmp_path / ".stats").mkdir()
    names = b'{"names": ["cachemw_older_total", "cachemw_requests_total{outcome=hit}"]}'
    line = b"cachemws1 %010d\n" % len(names)
    head = (line + names).ljust(-(-(len(line) + len(names)) // 8) * 8, b"\n")
    numbers = (4).to_bytes(8, "little") + (5).to_bytes(8, "little")
    (tmp_path / ".stats" / "1-1.counts").write_bytes(head + numbers)

    for _ in range(2):
        found = totals(str(tmp_path))
        assert (found["cachemw_older_total"], found[HITS]) == (4, 5)


def test_forgotten_counters_let_go_of_their_file(tmp_path):
    counters = Counters(str(tmp_path))
    counters.add(REQUESTS, value="hit")

    def opened():
        links = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
        paths = [os.readlink(link) for link in links if link.is_symlink()]
        return [path for path in paths if path.startswith(str(tmp_path))]

    assert len(opened()) == 1

    del counters
    gc.collect()

    assert opened() == []
    assert totals(str(tmp_path))[HITS] == 1
