"""Stale while the app is asked, by another thread."""

import threading

import pytest

from tests.functional.versions import NEW, OLD, URL, client_of, status_of

from .aging import FAILURES, HELD, HIT, LATER, break_down, lie_once, warm


class Gate:
    """Holds the app until the test lets it go on."""

    def __init__(self, origin):
        self.asked, self.go = threading.Event(), threading.Event()
        origin.before = self

    def __call__(self, environ):
        self.asked.set()
        assert self.go.wait(30)


def wait_for_refresh():
    for thread in threading.enumerate():
        if thread.name == "cachemw-refresh":
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def swr(client, origin, clock):
    """A copy that is stale, and may be served while the app is asked."""
    origin.control = "max-age=60, stale-while-revalidate=600"
    warm(client)
    clock.tick(LATER)
    return client


def test_stale_answers_at_once_and_the_app_is_asked_once_meanwhile(swr, origin, clock):
    """RFC 5861, section 3."""
    gate = Gate(origin)
    origin.change()

    for _ in range(5):
        response = swr.get(URL)
        assert response.body == OLD
        assert status_of(response) == "cachemw; hit; detail=stale-while-revalidate"
        assert int(response.headers["Age"]) >= LATER
    assert gate.asked.wait(30)
    assert origin.calls == 2
    gate.go.set()
    wait_for_refresh()

    response = swr.get(URL)
    assert (status_of(response), response.body) == (HIT, NEW)
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]
    assert origin.closed == origin.opened == 2


def test_304_in_the_background_makes_it_fresh(swr, origin):
    origin.fields_304 = [("X-New", "1")]
    swr.get(URL, headers={"If-None-Match": '"hers"', "Range": "bytes=0-9"}, status=206)
    wait_for_refresh()

    response = swr.get(URL)
    assert (status_of(response), response.body) == (HIT, OLD)
    assert response.headers["X-New"] == "1"
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]


def test_head_has_it_asked_about_as_a_get(swr, origin):
    origin.change()
    swr.head(URL)
    wait_for_refresh()

    assert origin.requests[-1] == ("GET", URL)
    assert swr.get(URL).body == NEW
    assert origin.calls == 2


def test_without_a_validator_it_is_fetched_in_the_background(client, origin, clock):
    origin.control, origin.tag = "max-age=60, stale-while-revalidate=600", None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    assert client.get(URL).body == OLD
    wait_for_refresh()

    assert (client.get(URL).body, origin.calls) == (NEW, 2)


@pytest.mark.parametrize("how", FAILURES)
def test_failure_in_the_background_leaves_the_copy(swr, origin, how):
    break_down(origin, how)
    swr.get(URL)
    wait_for_refresh()
    origin.before, origin.status = lambda environ: None, None

    assert swr.get(URL).body == OLD
    wait_for_refresh()
    assert status_of(swr.get(URL)) == HIT
    assert origin.calls == 3
    assert origin.closed == origin.opened


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_found_to_be_gone_in_the_background_is_dropped(swr, origin, cache, status):
    origin.status = status
    assert swr.get(URL).body == OLD
    wait_for_refresh()

    assert cache.get_cached_images() == []
    assert origin.closed == origin.opened


def test_304_about_another_image_in_the_background_fetches_it(swr, origin):
    origin.change()
    lie_once(origin)
    conditions = {"If-Match": '"old"', "Range": "bytes=0-9"}
    assert swr.get(URL, headers=conditions, status=206).body == OLD[:10]
    wait_for_refresh()

    assert origin.asked[-1] == {}

    assert (swr.get(URL).body, origin.calls) == (NEW, 3)


def test_app_that_writes_its_body_in_the_background_is_not_stored(origin, cache, clock):
    """What went through the callable is not in the body: half an image."""
    origin.control = "max-age=60, stale-while-revalidate=600"

    def app(environ, start_response):
        if origin.calls == 0:
            return origin(environ, start_response)
        origin.requests.append(("GET", URL))
        write = start_response(
            "200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=9")]
        )
        write(NEW[:10])
        return [NEW[10:]]

    client = client_of(app, cache)
    client.get(URL)
    clock.tick(LATER)
    client.get(URL)
    wait_for_refresh()

    assert client.get(URL).body == OLD
    wait_for_refresh()


def test_beyond_its_grace_it_is_asked_about_first(swr, clock):
    clock.tick(600)

    assert status_of(swr.get(URL)) == HELD


def test_app_that_threads_must_not_call_is_asked_before_the_answer(swr, origin):
    """PEP 3333: ``wsgi.multithread``; the background is another thread."""
    response = swr.get(URL, extra_environ={"wsgi.multithread": False})

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=304"
