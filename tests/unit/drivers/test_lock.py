"""The directory's lock, and what it remembers."""

import json
import os
import threading

import pytest

from cachemw.drivers import _lock
from cachemw.drivers._lock import EVERYTHING, MOST_NAMES, SIZE, DirectoryLock


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def repaired():
    return []


@pytest.fixture
def make_lock(directory, repaired):
    return lambda driver="sqlite": DirectoryLock(driver, lambda: directory, repaired.append)


def content(tmp_path):
    return json.loads((tmp_path / ".lock").read_bytes())


def test_the_first_holder_looks_at_everything_and_the_next_at_nothing(make_lock, repaired):
    for _ in range(3):
        with make_lock().hold():
            pass

    assert repaired == [EVERYTHING]


def test_a_change_is_written_down_before_and_taken_out_after(make_lock, repaired, tmp_path):
    lock = make_lock()
    with lock.changing(["cat", "dog"]):
        assert content(tmp_path)["changing"] == ["cat", "dog"]
        lock.state.total = 7
    assert content(tmp_path) == {
        "boot": _lock.boot_id(),
        "driver": "sqlite",
        "changing": [],
        "total": 7,
    }
    assert (tmp_path / ".lock").stat().st_size == SIZE
    assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600
    assert repaired == [EVERYTHING]


DIE = """
import os, sys
from cachemw.drivers._lock import DirectoryLock
fd = os.open(sys.argv[1], os.O_RDONLY)
lock = DirectoryLock("sqlite", lambda: fd, lambda names: None)
with lock.changing(sys.argv[2:]):
    os._exit(0)
"""


def test_a_holder_that_dies_amid_a_change_is_repaired_by_the_next(
    make_lock, repaired, run_python, tmp_path
):
    with make_lock().hold():
        pass
    run_python(DIE, tmp_path, "cat", "dog")
    with make_lock().hold():
        assert repaired == [EVERYTHING, ["cat", "dog"]]
    with make_lock().hold():
        pass

    assert repaired == [EVERYTHING, ["cat", "dog"]]


def test_more_names_than_fit_are_everything(make_lock, repaired, run_python, tmp_path):
    with make_lock().hold():
        pass
    for names in ([f"n{n}" for n in range(MOST_NAMES + 1)], [f"{n:0200}" for n in range(50)]):
        run_python(DIE, tmp_path, *names)
        with make_lock().hold():
            assert repaired.pop() is EVERYTHING
    assert (tmp_path / ".lock").stat().st_size == SIZE


@pytest.mark.parametrize("change", [{"boot": "another"}, {"driver": "xattr"}])
def test_another_boot_or_driver_makes_everything_be_looked_at(
    make_lock, repaired, tmp_path, change
):
    with make_lock().changing([]):
        pass
    (tmp_path / ".lock").write_text(json.dumps(content(tmp_path) | change))
    with make_lock().hold() as lock:
        assert lock.state.total is None

    assert repaired == [EVERYTHING, EVERYTHING]


def test_a_change_that_raises_is_repaired_by_its_holder(make_lock, repaired, tmp_path):
    with pytest.raises(ZeroDivisionError), make_lock().changing(["cat"]):
        raise ZeroDivisionError

    assert repaired == [EVERYTHING, ["cat"]]
    assert content(tmp_path)["changing"] == []


def test_what_cannot_be_repaired_stays_written_down_and_hinders_nobody(directory, tmp_path):
    repaired, broken = [], [True]

    def repair(names):
        if broken:
            raise OSError("the index is locked")
        repaired.append(names)

    lock = DirectoryLock("sqlite", lambda: directory, repair)
    with lock.hold():
        pass
    with lock.changing(["ant"]):
        assert content(tmp_path)["changing"] is EVERYTHING
    broken.clear()
    with lock.hold():
        assert repaired == [EVERYTHING]
    broken.append(True)
    with pytest.raises(ZeroDivisionError), lock.changing(["cat"]):
        raise ZeroDivisionError
    assert content(tmp_path)["changing"] == ["cat"]
    with lock.changing(["dog"]):
        assert content(tmp_path)["changing"] == ["cat", "dog"]
    assert content(tmp_path)["changing"] == ["cat"]
    broken.clear()
    with lock.hold():
        assert repaired == [EVERYTHING, ["cat"]]


def test_a_change_inside_another_keeps_both_names(make_lock, tmp_path):
    lock = make_lock()
    with lock.changing(["cat"]):
        with lock.changing(["dog"]):
            assert content(tmp_path)["changing"] == ["cat", "dog"]
        assert content(tmp_path)["changing"] == ["cat"]


def test_threads_exclude_each_other_and_one_thread_may_hold_twice(make_lock):
    lock = make_lock()
    inside, order = threading.Event(), []

    def second():
        inside.set()
        with lock.hold():
            order.append("second")

    thread = threading.Thread(target=second)
    with lock.hold():
        thread.start()
        inside.wait()
        with lock.hold():
            order.append("first")
        assert lock.is_mine()
    thread.join()

    assert order == ["first", "second"]
    assert not lock.is_mine()


def test_processes_exclude_each_other(make_lock, start_python, tmp_path):
    other = start_python(
        """
import os, sys
from cachemw.drivers._lock import DirectoryLock
fd = os.open(sys.argv[1], os.O_RDONLY)
lock = DirectoryLock("sqlite", lambda: fd, lambda names: None)
with lock.changing(["other"]):
    print("inside", flush=True)
    sys.stdin.read()
""",
        tmp_path,
    )
    assert other.stdout.readline() == "inside\n"
    entered = threading.Event()

    def enter():
        with make_lock().hold():
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)  # it cannot be seen that somebody waits
    other.communicate("")
    assert entered.wait(20)
    thread.join()


def test_a_lock_file_that_is_removed_is_made_again(make_lock, repaired, tmp_path):
    lock = make_lock()
    with lock.hold():
        os.unlink(tmp_path / ".lock")
        with lock.hold():
            pass
    with lock.hold():
        assert (tmp_path / ".lock").exists()
    assert repaired == [EVERYTHING, EVERYTHING]


def test_a_planted_link_is_not_followed(make_lock, tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".lock").symlink_to("victim")

    with pytest.raises(OSError, match="symbolic"), make_lock().hold():
        pass
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_nothing_stays_open(make_lock):
    lock = make_lock()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with lock.changing(["cat"]):
            pass
        with pytest.raises(KeyError), lock.changing(["cat"]):
            raise KeyError
    assert len(os.listdir("/proc/self/fd")) == before
