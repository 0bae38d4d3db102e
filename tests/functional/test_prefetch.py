"""The queue is worked by servers, whatever happens to them and to the images."""

import hashlib
import json
import os
import signal

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.web.apps.proxy import ProxyApp
from tests.functional.failing_origin import BODY, Origin
from tests.ranged import RangedOrigin
from tests.servers import Client, gunicorn, waitress_process
from tests.waiting import wait_until
from tests.wsgi import get

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


def test_each_image_is_asked_for_once_by_all_processes_together(
    tmp_path, cache, origin, driver_name
):
    wanted = [f"http://test/good/{number}" for number in range(24)]
    for image_id in wanted:
        cache.queue_image(image_id)
    options = {"driver": driver_name, "min_free": 0, "prefetch_workers": 2}
    environ = {
        "CACHEMW_TEST_DIR": str(tmp_path),
        "CACHEMW_TEST_UPSTREAM": origin.url,
        "CACHEMW_TEST_OPTIONS": json.dumps(options),
    }
    with gunicorn(APP, tmp_path / "log", workers=3, environ=environ) as server:
        for _ in range(30):
            poke(server)
        wait_until(lambda: len(cached(cache)) == len(wanted), "all are cached")

    assert {origin.asked[path.removeprefix("http://test")] for path in wanted} == {1}
    assert cache.get_queue() == []


# In one process


@pytest.fixture
def make(tmp_path, origin, driver_name):
    made = []
    proxy = ProxyApp(origin.url)

    def make(app=None, **options):
        made.append(
            CacheFilter(
                app or proxy,
                dir=tmp_path / "cache",
                driver=driver_name,
                min_free=0,
                **options,
            )
        )
        return made[-1]

    yield make
    for app in made:
        app.cache.close()
    proxy.close()


def failures(app):
    return {queued["image_id"]: queued["reason"] for queued in app.cache.get_queue()}


def test_credentials_are_sent_and_never_said(make, origin, tmp_path, caplog):
    caplog.set_level("DEBUG")
    (tmp_path / "token").write_text("X-Auth-Token: s3cret-token\n")
    app = make(prefetch_headers=f"file:{tmp_path}/token")
    for kind in ("good/1", "401", "wrong", "cut"):
        app.cache.queue_image(f"http://localhost/{kind}")
    get(app, "/404/first")
    wait_until(lambda: len(failures(app)) == 3 and all(failures(app).values()), "all were tried")

    assert origin.tokens.count("s3cret-token") == 4
    assert cached(app.cache) == {"http://localhost/good/1"}
    assert "s3cret" not in caplog.text + repr(app.cache.get_queue())
    for path in (tmp_path / "cache").rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()


def test_credentials_that_cannot_be_read_are_a_reason(make, tmp_path):
    app = make(prefetch_headers="env:CACHEMW_NO_SUCH_VARIABLE")
    app.cache.queue_image("http://localhost/good/1")
    get(app, "/404/first")
    wait_until(lambda: all(failures(app).values()), "it was tried")

    (reason,) = failures(app).values()
    assert reason == (
        "prefetch_headers: the environment variable CACHEMW_NO_SUCH_VARIABLE is not set"
    )


REGISTRY = f"/v2/team/app/blobs/sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.mark.parametrize(
    ("options", "path", "url"),
    [
        ({"preset": "registry"}, REGISTRY, f"http://localhost{REGISTRY}"),
        (
            {"preset": "swift"},
            "/v1/a/c/o%25?temp_url_sig=x&temp_url_expires=y",
            "http://localhost/v1/a/c/o%25",
        ),
        ({}, "/cat.img?a=b", None),
    ],
)
def test_range_that_is_not_there_has_the_whole_fetched_by_its_url(make, options, path, url):
    inner = RangedOrigin(BODY)
    app = make(inner, authorize="off", freshness="immutable", prefetch_workers=0, **options)
    path = path.replace("%25", "%")
    assert get(app, path, Range="bytes=0-9").status == 206
    (queued,) = app.cache.get_queue()
    assert queued["url"] == url
    app.cache.close()

    app = make(inner, authorize="off", freshness="immutable", **options)
    get(app, "/nothing", method="OPTIONS")
    wait_until(lambda: not app.cache.get_queue(), "it was fetched")
    reply = get(app, path, Range="bytes=0-9")
    assert (reply.status, reply.cache) == (206, "hit")


def test_range_of_what_was_set_aside_does_not_begin_it_anew(make):
    inner = RangedOrigin(BODY)
    app = make(inner, prefetch_workers=0)
    get(app, "/cat.img", Range="bytes=0-9")
    claim = app.cache.claim_queued("http://localhost/cat.img")
    claim.keep(type(claim.note)(tries=5, reason="no", set_aside=True))
    claim.close()
    get(app, "/cat.img", Range="bytes=0-9")

    assert failures(app) == {"http://localhost/cat.img": "no"}


def test_what_may_not_be_stored_is_a_reason_and_is_not_read(make):
    def private(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "private")])
        yield b"image"
        raise AssertionError("read to the end")

    app = make(private)
    app.cache.queue_image("http://localhost/mine")
    get(app, "/other", method="OPTIONS")
    wait_until(lambda: all(failures(app).values()), "it was tried")

    assert failures(app) == {"http://localhost/mine": "not stored: it says private (private)"}


def test_id_that_gives_another_image_is_not_fetched(make):
    inner = RangedOrigin(BODY)
    app = make(inner)
    app.cache.queue_image("HTTP://localhost/x")
    app.cache.queue_image("http://LOCALHOST/x")
    get(app, "/other", method="OPTIONS")
    wait_until(lambda: all(failures(app).values()), "both were tried")

    assert "nothing says how to fetch it" in failures(app)["HTTP://localhost/x"]
    assert "another image" in failures(app)["http://LOCALHOST/x"]
    assert [asked for asked in inner.asked if asked.method == "GET"] == []


@pytest.mark.parametrize(("authorize", "guarded"), [("app", True), ("off", False)])
def test_what_is_fetched_behind_the_authentication_stays_guarded(make, authorize, guarded):
    """It was fetched without asking who may have it, and may be given out only by asking."""
    inner = RangedOrigin(BODY)
    inner.fields = [("Cache-Control", "max-age=600")]
    app = make(inner, authorize=authorize)
    app.cache.queue_image("http://localhost/cat.img")
    get(app, "/other", method="OPTIONS")
    wait_until(lambda: not app.cache.get_queue(), "it was fetched")

    with app.cache.open_for_read("http://localhost/cat.img") as entry:
        assert entry.record.guarded is guarded


def test_an_app_that_says_the_credentials_has_them_taken_out(make, monkeypatch, caplog):
    def burst(environ, start_response):
        raise ValueError(f"no such token: {environ.get('HTTP_X_AUTH_TOKEN')}")

    monkeypatch.setenv("FIELDS", "X-Auth-Token: s3cret-token")
    app = make(burst, prefetch_headers="env:FIELDS")
    app.cache.queue_image("http://localhost/cat.img")
    with pytest.raises(ValueError, match="None"):
        get(app, "/other", method="OPTIONS")
    wait_until(lambda: all(failures(app).values()), "it was tried")

    assert failures(app) == {
        "http://localhost/cat.img": "the app failed: ValueError: no such token: ..."
    }
    assert "s3cret" not in caplog.text
