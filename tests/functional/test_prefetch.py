"""The queue is worked by servers, whatever happens to them and to the images."""

import json
import os
import signal

import pytest

from cachemw import ImageCache
from tests.functional.failing_origin import BODY, Origin
from tests.servers import Client, waitress_process
from tests.waiting import wait_until

APP = "tests.functional.served_fills:app"

#: What each kind of failure is called.
REASONS = {
    "http://test/404": "the app answered 404 Not Found",
    "http://test/401": "the app answered 401 Unauthorized (prefetch_headers says who asks)",
    "http://test/wrong": "wrong checksum: md5 is ",
    "http://test/cut": "the app broke off after 1000 bytes",
    "http://test/stalled": "stalled: nothing came for 1 s",
}


@pytest.fixture
def origin():
    with Origin(seconds=0.15) as origin:
        yield origin


@pytest.fixture
def cache(tmp_path, driver_name):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, min_free=0)
    yield cache
    cache.close()


@pytest.fixture
def serve(tmp_path, origin, driver_name):
    def serve(**options):
        environ = {
            "CACHEMW_TEST_DIR": str(tmp_path),
            "CACHEMW_TEST_UPSTREAM": origin.url,
            "CACHEMW_TEST_OPTIONS": json.dumps(
                {"driver": driver_name, "min_free": 0, "follow_timeout": 1, **options}
            ),
        }
        return waitress_process(APP, tmp_path / "log", environ=environ)

    return serve


def poke(server):
    """Send the first request, with which the threads begin."""
    Client(server.address, "/404/first").finish()


def cached(cache):
    return {image["image_id"] for image in cache.get_cached_images()}


def test_failures_stop_nothing_and_are_listed_also_when_the_server_is_killed_twice(
    cache, serve, origin
):
    good = {f"http://test/good/{number}" for number in range(15)}
    order = [*REASONS, *sorted(good)]
    for image_id in order:
        assert cache.queue_image(image_id)

    for enough in (3, 8):
        with serve() as server:
            poke(server)
            wait_until(lambda: len(cached(cache)) >= enough, "some are cached")  # noqa: B023
            os.kill(server.pid, signal.SIGKILL)
    with serve() as server:
        poke(server)
        wait_until(lambda: cached(cache) == good, "all that can be cached are")
        wait_until(
            lambda: all(queued["reason"] for queued in cache.get_queue()), "the others have failed"
        )

    failed = {queued["image_id"]: queued["reason"] for queued in cache.get_queue()}
    assert set(failed) == set(REASONS)
    for image_id, reason in REASONS.items():
        assert reason in failed[image_id], failed
    for image_id in good:
        with cache.open_for_read(image_id) as entry:
            assert entry.read() == BODY
        assert origin.asked[image_id.removeprefix("http://test")] <= 3
    assert set(origin.agents[1:]) <= {"cachemw-prefetch", None}
