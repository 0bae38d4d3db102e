"""The rest of an image of which much is kept, fetched in the background."""

import logging
import threading

import pytest

from cachemw.drivers.base import CHUNK
from tests.waiting import wait_until
from tests.wsgi import get

from .asking import (
    BODY,
    IMAGE_ID,
    NEW,
    PATH,
    assert_part,
    assert_whole,
    partial,
    queued,
    spell,
    wait_until_cached,
    want,
)


@pytest.fixture
def completed_from():
    """What users have, in place of what the other suites have."""


def wait_until_idle():
    wait_until(
        lambda: all(thread.name != "cachemw-refresh" for thread in threading.enumerate()),
        "nothing is fetched in the background",
    )


def test_image_is_completed_once_half_of_it_is_kept(make, origin, driver_name):
    app = make(driver=driver_name)
    want(app, spell(CHUNK, 2 * CHUNK))
    want(app, spell(3 * CHUNK, 4 * CHUNK))
    wait_until_idle()
    assert len(origin.asked) == 2

    assert_part(want(app, "bytes=0-9"), 0, 10)

    wait_until_cached(app)
    assert origin.ranges_asked[3:] == [spell(2 * CHUNK, 3 * CHUNK), f"bytes={4 * CHUNK}-"]
    assert {asked.if_range for asked in origin.asked[3:]} == {'"one"'}
    reply = get(app, PATH)
    assert_whole(reply)
    assert reply.cache == "hit"
    assert len(origin.asked) == 5
    assert partial(app) == 0


def test_small_image_of_which_all_is_kept_becomes_an_entry(make, origin):
    origin.body = BODY[:1000]
    app = make()

    assert_part(want(app, "bytes=0-9"), 0, 10, BODY[:1000])

    wait_until_cached(app)
    assert origin.ranges_asked == [f"bytes=0-{CHUNK - 1}", "bytes=0-"]


def test_little_of_an_image_is_no_reason_to_fetch_or_queue_it(make, origin):
    app = make()

    want(app, spell(0, 2 * CHUNK))
    want(app, spell(100, 2 * CHUNK))

    wait_until_idle()
    assert len(origin.asked) == 1
    assert queued(app) == []
    assert partial(app) == 2 * CHUNK


def test_long_part_that_a_thread_fetches_is_completed_too(make, origin):
    origin.body = body = BODY * 3
    app = make()
    stop = len(body) - CHUNK

    assert_part(want(app, spell(0, stop)), 0, stop, body)

    wait_until_cached(app)


def test_server_without_threads_has_it_queued(make, origin):
    """The app must not be called by another thread there."""
    app = make()

    want(app, spell(0, 3 * CHUNK), **{"wsgi.multithread": False})

    wait_until_idle()
    assert queued(app) == [IMAGE_ID]
    assert len(origin.asked) == 1


def test_image_that_is_too_large_is_not_completed(make, origin):
    app = make(max_image_size=4 * CHUNK)

    assert_part(want(app, spell(0, 3 * CHUNK)), 0, 3 * CHUNK)

    wait_until_idle()
    assert len(origin.asked) == 1


def test_app_is_asked_with_the_rights_of_the_client(make, origin):
    """What is in front of the filter leaves more in a request than its fields."""
    caller = object()
    attributes = {"caller": caller}

    def allows(environ):
        attributes = environ.get("webob.adhoc_attrs", {})
        return environ.get("HTTP_X_AUTH_TOKEN") == "alice" and attributes.get("caller") is caller

    origin.allows = allows
    app = make(authorize="app")
    want(app, spell(0, 3 * CHUNK), X_Auth_Token="alice", **{"webob.adhoc_attrs": attributes})

    wait_until_cached(app)
    assert get(app, PATH, X_Auth_Token="eve").status == 403


@pytest.mark.parametrize("case", ["new version", "gone", "no-store", "cut", "raises"])
def test_rest_that_is_not_to_be_had_leaves_what_was_right(make, origin, caplog, case):
    caplog.set_level(logging.INFO)
    asked_before = []

    def change(asked, sent):
        """Between the part and the rest."""
        asked_before.append(asked)
        if len(asked_before) == 1:
            if case == "new version":
                origin.body, origin.etag = NEW, '"two"'
            elif case == "gone":
                origin.body = None
            elif case == "no-store":
                origin.fields[0] = ("Cache-Control", "no-store")
        elif case == "cut":
            del sent.chunks[1:]
        elif case == "raises":
            sent.chunks[1:] = [RuntimeError("broken")]

    origin.bend = change
    app = make()

    assert_part(want(app, spell(0, 3 * CHUNK)), 0, 3 * CHUNK)
    wait_until_idle()

    assert not app.cache.is_cached(IMAGE_ID)
    assert 2 <= len(origin.asked) <= 3
    origin.bend = lambda asked, sent: None
    if case == "gone":
        origin.body = BODY
    assert_whole(get(app, PATH), origin.body)
    assert origin.opened == origin.closed


def test_one_thread_completes_an_image(make, origin):
    """However many parts of it come meanwhile."""
    is_let_go = threading.Event()

    def hold(asked, number):
        if asked.range == f"bytes={4 * CHUNK}-":
            assert is_let_go.wait(30)

    origin.before_chunk = hold
    app = make()
    want(app, spell(0, 3 * CHUNK))
    wait_until(lambda: f"bytes={3 * CHUNK}-" in origin.ranges_asked, "the rest is asked for")

    assert_part(want(app, spell(0, CHUNK)), 0, CHUNK)
    is_let_go.set()

    wait_until_cached(app)
    assert len(origin.asked) == 2


def test_client_that_comes_meanwhile_follows(make, origin):
    is_let_go = threading.Event()

    def hold(asked, number):
        if asked.range == f"bytes={3 * CHUNK}-":
            assert is_let_go.wait(30)

    origin.before_chunk = hold
    app = make()
    want(app, spell(0, 3 * CHUNK))
    wait_until(lambda: f"bytes={3 * CHUNK}-" in origin.ranges_asked, "the rest is asked for")
    threading.Timer(0.0, is_let_go.set).start()

    reply = get(app, PATH)

    assert_whole(reply)
    assert len(origin.asked) == 2
