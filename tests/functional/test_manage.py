"""The management API as an app and as a filter, over every driver."""

import errno
import io
import json
import logging
import os
import sys
import types
from urllib.parse import quote, unquote_to_bytes

import pytest

from cachemw import ImageCache
from cachemw.core.jobs import Jobs
from cachemw.errors import DriverError
from cachemw.web.manage import app_factory, filter_factory
from tests.wsgi import get

LOCAL = {"REMOTE_ADDR": "127.0.0.1"}

#: Ids with whatever a path, a query, a log or a page could stumble over.
ODD = (
    *("a/b", "/a", "a//b", "a/", "..", "../../etc/passwd", "a b", "a%2Fb", "a%20b", "a?b=c&d"),
    *("http://host/p?q#f", "ä€😀", "\udcff", "a\nb", 'a"b', "<b>", "jobs/x", "prune", "a;b", "+"),
)


@pytest.fixture
def options(tmp_path, driver_name):
    return {"dir": str(tmp_path / "cache"), "driver": driver_name, "min_free": "0"}


@pytest.fixture
def cache(options):
    cache = ImageCache(**options)
    yield cache
    cache.close()


@pytest.fixture
def managed(options):
    app = app_factory({}, **options)
    yield app
    app.cache.close()


def ask(app, path, method="GET", **environ):
    """Ask as a client on this machine does; the path is quoted."""
    raw, _, query = path.partition("?")
    unquoted = unquote_to_bytes(raw).decode("latin-1")
    target = {"RAW_URI": path, "PATH_INFO": unquoted, "QUERY_STRING": query}
    return get(app, "", method, **target, **LOCAL, **environ)


def quoted(image_id):
    return quote(image_id.encode("utf-8", "surrogateescape"), safe="")


def read(reply):
    assert reply.get("Content-Type") == "application/json"
    assert int(reply.get("Content-Length")) == len(reply.body)
    return json.loads(reply.body)


def error_of(reply):
    error = read(reply)["error"]
    assert error["code"] == reply.status
    assert set(error) == {"code", "title", "detail"}
    assert "Traceback" not in error["detail"]
    return error["detail"]


def fill(cache, *image_ids, size=10):
    for image_id in image_ids:
        assert cache.cache_image_iter(image_id, [bytes(size)])


# Images


@pytest.mark.parametrize("prefix", ["/v1/cached_images", "/v2/cached_images", "/v2/cache"])
def test_cached_images_are_listed_with_what_is_known_of_them(managed, cache, prefix):
    fill(cache, "cat", "a/b")
    listed = json.loads(ask(managed, prefix).body)

    assert [image["image_id"] for image in listed["cached_images"]] == ["a/b", "cat"]
    assert listed["cached_images"] == cache.get_cached_images()
    expected = {"cached_images", "queued_images"} if prefix == "/v2/cache" else {"cached_images"}
    assert set(listed) == expected


@pytest.mark.parametrize("image_id", ODD, ids=ascii)
def test_an_image_with_any_id_is_queued_listed_and_deleted(managed, cache, image_id):
    path = quoted(image_id)
    assert read(ask(managed, f"/v2/cache/{path}", "PUT")) == {"image_id": image_id, "queued": True}
    assert cache.get_queued_images() == [image_id]
    assert read(ask(managed, "/v1/queued_images"))["queued_images"] == [image_id]
    assert read(ask(managed, f"/v1/queued_images/{path}"))["queue"][0]["image_id"] == image_id
    assert ask(managed, f"/v1/queued_images/{path}", "DELETE").status == 204
    assert ask(managed, f"/v1/queued_images/{path}", "DELETE").status == 404

    fill(cache, image_id, "other")
    [image] = read(ask(managed, f"/v1/cached_images/{path}"))["cached_images"]
    assert (image["image_id"], image["size"]) == (image_id, 10)
    assert read(ask(managed, f"/v1/cached_images?search={path}&limit=5"))["total"] == 1
    assert ask(managed, f"/v1/cached_images/{path}", "DELETE").status == 204
    assert ask(managed, f"/v2/cache/{path}", "DELETE").status == 404
    assert [image["image_id"] for image in cache.get_cached_images()] == ["other"]


def test_glances_delete_takes_an_image_from_both_places(managed, cache):
    fill(cache, "cat")
    cache.queue_image("dog")

    assert ask(managed, "/v2/cache/cat", "DELETE").status == 204
    assert ask(managed, "/v2/cache/dog", "DELETE").status == 204
    assert (cache.get_cached_images(), cache.get_queued_images()) == ([], [])
    assert error_of(ask(managed, "/v2/cache/dog", "DELETE")).startswith("there is no such image")


@pytest.mark.parametrize(
    ("target", "left"),
    [("cache", (0, 1)), ("queue", (1, 0)), (None, (0, 0)), ("", (0, 0)), ("both", (0, 0))],
)
def test_clearing_empties_what_is_named(managed, cache, target, left):
    fill(cache, "cat")
    cache.queue_image("dog")
    fields = {} if target is None else {"x-image-cache-clear-target": target}

    assert ask(managed, "/v2/cache", "DELETE", **fields).status == 204
    assert (len(cache.get_cached_images()), len(cache.get_queued_images())) == left


def test_clearing_something_else_clears_nothing(managed, cache):
    fill(cache, "cat")
    reply = ask(managed, "/v2/cache", "DELETE", **{"x-image-cache-clear-target": "caches"})

    assert (reply.status, len(cache.get_cached_images())) == (400, 1)


def test_the_old_api_tells_how_many_it_deleted(managed, cache):
    fill(cache, "cat", "dog")
    cache.queue_image("cow")

    assert read(ask(managed, "/v1/cached_images", "DELETE")) == {"num_deleted": 2}
    assert read(ask(managed, "/v1/queued_images", "DELETE")) == {"num_deleted": 1}


def test_an_image_that_is_cached_is_not_queued(managed, cache):
    fill(cache, "cat")
    reply = ask(managed, "/v2/cache/cat", "PUT")

    assert (reply.status, read(reply)["queued"]) == (202, False)


def test_what_nothing_says_how_to_fetch_is_not_queued(managed, cache, monkeypatch):
    monkeypatch.setattr(managed.cache, "can_fetch", lambda image_id: False, raising=False)
    reply = ask(managed, "/v1/queued_images/cat", "PUT")

    assert reply.status == 409
    assert "image_path" in error_of(reply)
    assert cache.get_queued_images() == []


def test_an_id_that_lost_its_quotes_is_refused(managed, cache):
    """Its query would name another image than was meant."""
    fill(cache, "http://h/p")

    assert ask(managed, "/v2/cache/http://h/p?version=2", "DELETE").status == 400
    assert ask(managed, f"/v2/cache/{'x' * 2001}", "DELETE").status == 400
    assert len(cache.get_cached_images()) == 1


@pytest.mark.parametrize("path", ["/v1/cached_images/", "/v2/cache/", "/v1/queued_images/"])
def test_a_slash_too_many_deletes_nothing(managed, cache, path):
    fill(cache, "cat")
    cache.queue_image("dog")

    assert ask(managed, path, "DELETE").status == 404
    assert (len(cache.get_cached_images()), len(cache.get_queued_images())) == (1, 1)


# Pages


def follow(app, path):
    """Read a list page by page."""
    images = []
    while path is not None:
        reply = ask(app, path)
        page = read(reply)
        images += page["cached_images"]
        path = page["next"]
        assert reply.get("Link") == (path and f'<{path}>; rel="next"')
    return images


@pytest.mark.parametrize("sort", ["image_id", "size:desc", "hits:asc", "last_accessed:desc"])
def test_pages_add_up_to_the_list(managed, cache, sort):
    for size, image_id in enumerate(ODD):
        fill(cache, image_id, size=size % 3)
    name, _, direction = sort.partition(":")
    whole = cache.find_images(sort=name, descending=direction == "desc")

    for limit in (1, 7, len(ODD), 100):
        assert follow(managed, f"/v1/cached_images?sort={sort}&limit={limit}") == whole
    assert json.loads(ask(managed, f"/v1/cached_images?sort={sort}").body)["cached_images"] == whole


def test_a_list_without_a_limit_is_sent_as_it_is_read(managed, cache, monkeypatch):
    monkeypatch.setattr("cachemw.web.manage.lists._BATCH", 3)
    fill(cache, *ODD)
    cache.queue_image("dog")
    reply = ask(managed, "/v2/cache?search=a")

    listed = json.loads(reply.body)
    assert listed["cached_images"] == cache.find_images(search="a")
    assert listed["queued_images"] == ["dog"]
    assert reply.get("Content-Length") is None
    assert ask(managed, "/v2/cache", "HEAD").body == b""


def test_a_page_says_how_many_there_are(managed, cache):
    fill(cache, "cat", "cow", "dog")

    page = read(ask(managed, "/v1/cached_images?limit=1&search=c"))
    assert (page["total"], len(page["cached_images"])) == (2, 1)
    page = read(ask(managed, "/v2/cache?limit=2"))
    assert set(page) == {"cached_images", "queued_images"}


def test_the_queue_is_searched_and_paged_too(managed, cache):
    for image_id in ("cat", "dog", "cow"):
        cache.queue_image(image_id)

    def ids(query):
        return read(ask(managed, f"/v1/queued_images{query}"))["queued_images"]

    assert ids("?search=c") == ["cat", "cow"]
    assert ids("?limit=2") == ["cat", "dog"]
    assert ids("?limit=2&marker=dog") == ["cow"]
    assert ask(managed, "/v1/queued_images?marker=none").status == 400


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "'limit' has the value '0': expected 1 or more"),
        ("limit=many", "'limit'"),
        ("limit=1&limit=2", "twice"),
        ("sort=name", "expected one of image_id, size"),
        ("sort=size:up", "with :asc or :desc"),
        ("serach=x", "unknown parameter 'serach'"),
        ("sort=hits&marker=none", "is not cached any more"),
        ("sort=hits&marker=x&marker_value=many", "not a number"),
        ("sort=hits&marker=x&marker_value=nan", "not a number"),
        ("sort=hits&marker=x&marker_value=" + "9" * 40, "not a number"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/cached_images", "/v2/cache"])
def test_a_list_that_cannot_be_meant_is_refused(managed, path, query, message):
    reply = ask(managed, f"{path}?{query}")

    assert reply.status == 400
    assert message in error_of(reply)


# Jobs


def test_pruning_is_a_job_to_look_at(managed, cache):
    fill(cache, "cat", size=1000)
    fill(cache, "dog", size=500)
    body = _body(b'{"max_size": "600"}')
    reply = ask(managed, "/v2/cache/prune", "POST", **body)
    job = read(reply)

    assert reply.status == 202
    assert reply.get("Location") == f"/v2/cache/jobs/{job['id']}"
    Jobs(cache).wait(Jobs(cache).get(job["id"]), 30)
    looked = read(ask(managed, reply.get("Location")))
    assert (looked["kind"], looked["state"]) == ("prune", "done")
    assert looked["result"] == {"images": 1, "bytes": 1000}
    assert read(ask(managed, "/v2/cache/jobs"))["jobs"] == [looked]
    assert [image["image_id"] for image in cache.get_cached_images()] == ["dog"]


def _body(body):
    return {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}


@pytest.mark.parametrize("kind", ["prune", "clean"])
def test_a_quick_job_is_answered_with_what_it_did(managed, kind):
    job = read(ask(managed, f"/v2/cache/{kind}", "POST"))

    assert job["state"] == "done"
    if kind == "prune":
        assert (job["total_files_pruned"], job["total_bytes_pruned"]) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/cache/prune", b'{"max_size": "lots"}', 400),
        ("/v2/cache/prune", b'{"limit": 1}', 400),
        ("/v2/cache/clean", b"[]", 400),
        ("/v2/cache/check", b'{"repair": "perhaps"}', 400),
        ("/v2/cache/burn", b"", 405),
    ],
)
def test_a_job_that_cannot_be_meant_is_not_begun(managed, cache, path, body, status):
    if "check" in path:
        managed.cache.check = None
    assert ask(managed, path, "POST", **_body(body)).status in (status, 501)
    assert Jobs(cache).list() == []


@pytest.mark.parametrize("job_id", ["x", "../cache", "prune-0000000000000000-00000000"])
def test_a_job_that_there_is_not_is_not_found(managed, job_id):
    assert ask(managed, f"/v2/cache/jobs/{job_id}").status == 404


# Methods, paths, trouble


@pytest.mark.parametrize("path", ["/", "/healthz", "/versions", "/v1/cached_images", "/v2/cache"])
def test_head_is_get_without_the_body(managed, path):
    whole, head = ask(managed, path), ask(managed, path, "HEAD")

    assert (head.status, head.body) == (whole.status, b"")
    assert head.headers == whole.headers


def test_a_method_that_is_not_there_is_told_which_are(managed):
    reply = ask(managed, "/v1/cached_images/cat", "PATCH")

    assert reply.status == 405
    assert reply.get("Allow") == "GET, HEAD, DELETE"
    assert error_of(reply) == "the methods here are GET, HEAD, DELETE"


@pytest.mark.parametrize("path", ["/none", "/v1", "/v2/other", "/v2/cache/", "//"])
def test_a_path_that_is_not_there_is_not_found(managed, path):
    assert error_of(ask(managed, path)) == "there is nothing here"


def test_the_mount_point_gets_its_slash(managed):
    reply = get(managed, "", SCRIPT_NAME="/my cache", **LOCAL)

    assert (reply.status, reply.get("Location")) == (308, "/my%20cache/")
    job = get(managed, "/v2/cache/clean", "POST", SCRIPT_NAME="/c", **LOCAL)
    assert job.get("Location").startswith("/c/v2/cache/jobs/clean-")


@pytest.mark.parametrize("path", ["/healthz", "/v1/cached_images?limit=1", "/none", "/v2/cache"])
def test_every_answer_keeps_browsers_careful(managed, path):
    reply = ask(managed, path)

    assert reply.get("X-Content-Type-Options") == "nosniff"
    assert reply.get("Cache-Control") == "no-store"
    assert "frame-ancestors 'none'" in reply.get("Content-Security-Policy")
    assert reply.get("Referrer-Policy") == "no-referrer"


@pytest.mark.parametrize(
    ("error", "status"),
    [(DriverError("index", "database is locked"), 503), (OSError(28, "x"), 503), (KeyError(), 500)],
)
def test_trouble_is_told_without_a_traceback(managed, monkeypatch, caplog, error, status):
    def fail(**query):
        raise error

    monkeypatch.setattr(managed.cache, "find_images", fail)
    for path in ("/v1/cached_images", "/v1/cached_images?limit=1", "/v2/cache"):
        reply = ask(managed, path)
        assert reply.status == status
        error_of(reply)
    assert caplog.records


# Health, numbers, dashboard


def test_health_is_told_to_everybody(managed):
    reply = get(managed, "/healthz", REMOTE_ADDR="192.0.2.1", HTTP_HOST="any")

    assert (reply.status, read(reply)) == (200, {"status": "ok"})


def test_a_driver_that_does_not_answer_is_no_health(managed, monkeypatch):
    def fail():
        raise DriverError("index", "secret path")

    monkeypatch.setattr(managed.cache.driver, "get_usage", fail)
    reply = ask(managed, "/healthz")

    assert reply.status == 503
    assert read(reply) == {"status": "failing", "reason": "the driver does not answer"}


def test_a_directory_that_is_gone_is_no_health(managed, options):
    os.rename(options["dir"], options["dir"] + ".away")
    try:
        reply = ask(managed, "/healthz")
    finally:
        os.rename(options["dir"] + ".away", options["dir"])

    assert reply.status == 503
    assert options["dir"] not in reply.body.decode()


def test_a_directory_that_cannot_be_written_is_no_health(managed, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    reply = ask(managed, "/healthz")
    monkeypatch.undo()

    assert reply.status == 503
    assert "Read-only" in read(reply)["reason"]


def test_asking_often_looks_once_and_leaves_nothing(managed, options, monkeypatch):
    looks = []
    monkeypatch.setattr(managed.cache.driver, "get_usage", lambda: looks.append(1) or 0)
    before = set(os.listdir(options["dir"]))
    for _ in range(20):
        assert ask(managed, "/healthz").status == 200

    assert len(looks) == 1
    assert set(os.listdir(options["dir"])) == before


def test_glances_client_finds_the_versions_that_it_looks_for(managed):
    versions = {version["id"] for version in read(ask(managed, "/versions"))["versions"]}

    assert versions >= {"v2.14", "v2.18"}


@pytest.fixture
def numbers(monkeypatch):
    """Stands in for the statistics."""
    module = types.ModuleType("cachemw.core.statistics")
    module.snapshot = lambda cache: {"images": cache.count_images()}
    module.past = lambda cache, hours: {"step": 60, "samples": [], "hours": hours}
    module.exposition = lambda cache: "# HELP x y\nx 1\n"
    monkeypatch.setitem(sys.modules, "cachemw.core.statistics", module)
    return module


def test_numbers_are_those_of_the_statistics(managed, cache, numbers):
    fill(cache, "cat")
    assert read(ask(managed, "/stats")) == {"images": 1}
    assert read(ask(managed, "/stats/history"))["hours"] == 24
    assert read(ask(managed, "/stats/history?hours=0.5"))["hours"] == 0.5
    reply = ask(managed, "/metrics")
    assert reply.body == b"# HELP x y\nx 1\n"
    assert reply.get("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("hours", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_a_history_that_cannot_be_meant_is_refused(managed, numbers, hours):
    assert ask(managed, f"/stats/history?hours={hours}").status == 400


@pytest.mark.parametrize("path", ["/stats", "/stats/history", "/metrics"])
def test_numbers_that_are_not_built_are_said_to_be_missing(managed, monkeypatch, path):
    monkeypatch.setitem(sys.modules, "cachemw.core.statistics", types.ModuleType("statistics"))
    reply = ask(managed, path)

    assert reply.status == 501
    assert "statistics" in error_of(reply)


@pytest.fixture
def page(monkeypatch):
    """Stands in for the dashboard."""
    module = types.ModuleType("cachemw.web.dashboard")
    module.FILES = {
        "index.html": ("text/html; charset=utf-8", lambda: b"<!doctype html>"),
        "app.js": ("text/javascript", lambda: b"'use strict'"),
    }
    module.CONTENT_SECURITY_POLICY = "default-src 'none'; script-src 'self'; frame-ancestors 'none'"
    monkeypatch.setitem(sys.modules, "cachemw.web.dashboard", module)
    return module


def test_the_dashboard_is_served_with_its_policy(managed, page):
    for path, body in (("/", b"<!doctype html>"), ("/app.js", b"'use strict'")):
        reply = ask(managed, path)
        assert (reply.status, reply.body) == (200, body)
        assert reply.get("Content-Security-Policy") == page.CONTENT_SECURITY_POLICY
        assert reply.get("Cache-Control") == "no-cache"
    assert ask(managed, "/other.js").status == 404
    assert ask(managed, "/__init__.py").status == 404


# Who may


@pytest.fixture
def guarded(options):
    app = app_factory({"image_cache_admin_token": "s3cret"}, **options)
    yield app
    app.cache.close()


#: What would change something, and must not.
CHANGES = (
    ("/v1/cached_images/cat", "DELETE"),
    ("/v1/cached_images", "DELETE"),
    ("/v1/queued_images/dog", "DELETE"),
    ("/v1/queued_images", "DELETE"),
    ("/v1/queued_images/cow", "PUT"),
    ("/v2/cache/cow", "PUT"),
    ("/v2/cache/cat", "DELETE"),
    ("/v2/cache", "DELETE"),
    ("/v2/cache/prune", "POST"),
    ("/v2/cache/clean", "POST"),
    ("/v2/cache/check", "POST"),
)


def state_of(cache):
    return cache.get_cached_images(), cache.get_queued_images(), Jobs(cache).list()


def refused(app, cache, status, **environ):
    """See that nothing is changed, nor told."""
    fill(cache, "cat")
    cache.queue_image("dog")
    before = state_of(cache)
    replies = [get(app, path, method, **environ) for path, method in CHANGES]
    assert {reply.status for reply in replies} == {status}
    assert state_of(cache) == before
    return replies


def test_without_the_token_nothing_is_changed_or_told(guarded, cache):
    replies = refused(guarded, cache, 401, **LOCAL)

    assert {reply.get("WWW-Authenticate") for reply in replies} == {'Bearer realm="cachemw"'}
    for path in ("/v1/cached_images", "/v2/cache", "/stats", "/metrics", "/none", "/v2/cache/jobs"):
        assert get(guarded, path, **LOCAL).status == 401
    assert get(guarded, "/healthz").status == 200


def test_from_elsewhere_nothing_is_changed_or_told(managed, cache, page):
    refused(managed, cache, 403, REMOTE_ADDR="192.0.2.1")
    for path in ("/v1/cached_images", "/stats", "/metrics", "/", "/app.js"):
        assert get(managed, path, REMOTE_ADDR="192.0.2.1").status == 403


@pytest.mark.parametrize(
    "fields",
    [
        {"HTTP_X_FORWARDED_FOR": "192.0.2.1"},
        {"HTTP_HOST": "rebound.example.org"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site"},
        {"HTTP_ORIGIN": "http://example.org"},
    ],
)
def test_through_a_proxy_and_across_sites_nothing_is_changed(managed, cache, fields):
    refused(managed, cache, 403, **LOCAL, **fields)


def test_across_sites_nothing_is_changed_with_the_token_either(guarded, cache):
    refused(guarded, cache, 403, HTTP_X_AUTH_TOKEN="s3cret", HTTP_SEC_FETCH_SITE="cross-site")


def test_with_the_token_everything_is_done(guarded, cache):
    fill(cache, "cat")
    known = {"HTTP_AUTHORIZATION": "Bearer s3cret", "REMOTE_ADDR": "192.0.2.1"}

    assert get(guarded, "/v1/cached_images/cat", "DELETE", **known).status == 204
    assert get(guarded, "/v2/cache/prune", "POST", **known).status == 202
    assert cache.get_cached_images() == []


def test_the_page_is_there_before_the_token(guarded, page):
    assert get(guarded, "/", REMOTE_ADDR="192.0.2.1").status == 200
    assert get(guarded, "/app.js", REMOTE_ADDR="192.0.2.1").status == 200


def test_neither_token_nor_body_is_logged(guarded, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    for token in ("s3cret", "guessed"):
        fields = {"HTTP_X_AUTH_TOKEN": token, **_body(b'{"max_size": "private"}')}
        get(guarded, "/v2/cache/prune", "POST", **fields)
        get(guarded, "/v1/queued_images/cat", "PUT", HTTP_X_AUTH_TOKEN=token)

    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(guarded.cache, "delete_cached_image", fail)
    get(guarded, "/v1/cached_images/a%0Ab", "DELETE", HTTP_X_AUTH_TOKEN="s3cret")

    assert "PUT '/v1/queued_images/cat'" in caplog.text
    assert "RuntimeError" in caplog.text
    for secret in ("s3cret", "guessed", "private"):
        assert secret not in caplog.text


# As a filter


@pytest.fixture
def filtered(options):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the app's ", environ["PATH_INFO"].encode("latin-1")]

    made = filter_factory({}, **options)(app)
    yield made
    made.management.cache.close()


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/stats", "/versions", "/v1/AUTH_a/c/o", "/v2/images", "/.cachemwx"]
)
def test_a_filter_leaves_other_paths_to_the_app(filtered, path):
    reply = get(filtered, path)

    assert reply.body == b"the app's " + path.encode()


def test_a_filter_has_glances_paths_in_front_and_all_in_its_folder(filtered, cache):
    fill(cache, "cat")

    for prefix in ("", "/.cachemw"):
        assert ask(filtered, f"{prefix}/v2/cache").status == 200
        assert read(ask(filtered, f"{prefix}/v1/cached_images?limit=1"))["total"] == 1
        location = ask(filtered, f"{prefix}/v2/cache/clean", "POST").get("Location")
        assert location.startswith(f"{prefix}/v2/cache/jobs/clean-")
        assert ask(filtered, location).status == 200
    assert ask(filtered, "/.cachemw/healthz").status == 200
    assert ask(filtered, "/.cachemw").get("Location") == "/.cachemw/"
    assert ask(filtered, "/.cachemw/none").status == 404
    assert ask(filtered, "/v2/cache/cat", "DELETE").status == 204
    assert cache.get_cached_images() == []


def test_a_filter_refuses_on_its_own_paths_only(filtered, cache):
    refused(filtered, cache, 403, REMOTE_ADDR="192.0.2.1")


def test_several_processes_worth_of_instances_see_the_same(managed, guarded, cache):
    fill(cache, "cat")

    assert ask(managed, "/v1/cached_images/cat", "DELETE").status == 204
    known = {"X-Auth-Token": "s3cret"}
    assert json.loads(ask(guarded, "/v1/cached_images", **known).body)["cached_images"] == []
