"""An answer that a change has overtaken is for those alone who asked before it."""

import threading
import time

import pytest

from cachemw import ImageCache
from cachemw.core.sharing import FillOvertaken
from cachemw.drivers.base import Record


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=tmp_path, min_free=0)
    yield cache
    cache.close()


def lead(cache):
    return cache.sharing.join("cat", lambda record: True, patience=0, may_lead=True).lead


def test_what_was_deleted_while_the_app_answered_is_shown_to_nobody(cache):
    fill, mark = lead(cache), cache.mark_of_deletion("cat")
    cache.delete_cached_image("cat")

    with pytest.raises(FillOvertaken):
        cache.sharing.start_fill("cat", [b"old"], Record("cat", 0, ""), lead=fill, mark=mark)

    again = lead(cache)  # nobody has it any more
    assert again is not None
    again.decline("")
    assert not cache.is_being_cached("cat")


def test_who_waited_for_the_answer_does_not_follow_what_was_deleted_just_before_it(
    cache, monkeypatch
):
    """Deleted when its files were there already: after the last look whether it was."""
    fill, mark = lead(cache), cache.mark_of_deletion("cat")
    joined = []
    follower = threading.Thread(
        target=lambda: joined.append(
            cache.sharing.join("cat", lambda record: True, patience=10, may_lead=True)
        )
    )
    make_ready = cache.sharing._make_ready

    def overtaken(*args):
        make_ready(*args)
        cache.delete_cached_image("cat")
        follower.start()
        while not fill._waiters:
            time.sleep(0.01)

    monkeypatch.setattr(cache.sharing, "_make_ready", overtaken)
    reader = cache.sharing.start_fill(
        "cat", [b"a", b"b"], Record("cat", 0, ""), lead=fill, mark=mark
    )
    follower.join()

    assert joined[0].reader is None
    assert b"".join(reader) == b"ab"
    assert not cache.is_cached("cat")
    if joined[0].lead is not None:
        joined[0].lead.decline("")
