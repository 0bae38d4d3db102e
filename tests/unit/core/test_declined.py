"""Which images nobody waits for, since their answers were not stored."""

import os

import pytest

from cachemw.core import declined
from cachemw.core.declined import DECLINED_FOR, Declined


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(declined.time, "monotonic", lambda: now[0])
    return now


def test_image_is_remembered_for_a_while(clock):
    images = Declined()
    images.add("cat")

    clock[0] += DECLINED_FOR - 1
    assert "cat" in images
    assert "dog" not in images

    clock[0] += 1
    assert "cat" not in images


def test_image_that_was_stored_after_all_is_forgotten():
    images = Declined()
    images.add("cat")
    images.add("dog")

    images.forget("cat")
    images.forget("emu")

    assert "cat" not in images
    assert "dog" in images


def test_those_noted_longest_ago_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(declined, "_MOST_DECLINED", 2)
    images = Declined()
    for image_id in ("cat", "dog", "cat", "emu"):
        images.add(image_id)

    assert [image_id for image_id in ("cat", "dog", "emu") if image_id in images] == ["cat", "emu"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_child_of_fork_finds_out_for_itself():
    """A thread of the parent may hold the lock at that moment."""
    images = Declined()
    images.add("cat")
    with images._lock:
        child = os.fork()
        if not child:
            status = 1
            try:
                remembered = "cat" in images
                has_lock = images._lock.acquire(timeout=5)
                status = 0 if has_lock and not remembered else 2
            finally:
                os._exit(status)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
