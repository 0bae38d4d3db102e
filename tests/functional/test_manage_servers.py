"""The management API of a running pipeline: with two workers, by curl and by Glance's client."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from cachemw import ImageCache
from tests.engines.glance import install
from tests.servers import PATIENCE, gunicorn

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

INI = """\
[DEFAULT]
image_cache_dir = {directory}/cache
image_cache_min_free = 0
image_cache_admin_token = {token}
image_cache_routes = /(?P<image_id>[^/.]+)[.]img
image_cache_image_path = /{{image_id}}.img
image_cache_prefetch_workers = 0

[pipeline:main]
pipeline = manage cache images

[filter:manage]
use = egg:cachemw#manage

[filter:cache]
use = egg:cachemw#cache

[app:images]
use = egg:cachemw#images
dir = {directory}/images
"""

TOKEN = "s3cret"
KNOWN = ("X-Auth-Token", TOKEN)
BODY = bytes(range(256)) * 400


class Managed:
    """A server, and the cache that it has."""

    def __init__(self, server, cache, directory):
        self.server, self.cache, self.directory = server, cache, directory
        self.url = "http://{}:{}".format(*server.address)

    def ask(self, target, method="GET", *headers):
        reply = self.server.request(target, *(headers or (KNOWN,)), method=method)
        return reply.status, json.loads(reply.body) if reply.body else None

    def fetch(self, name):
        assert self.server.request(f"/{name}.img").body == BODY

    def hold(self):
        """Have prunes go on until :meth:`go_on`."""
        (self.directory / "hold").touch()

    def go_on(self):
        (self.directory / "hold").unlink()

    def wait_for(self, job_id, state):
        deadline = time.monotonic() + PATIENCE
        while (job := self.ask(f"/v2/cache/jobs/{job_id}")[1])["state"] != state:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job

    def ids(self):
        return [image["image_id"] for image in self.cache.get_cached_images()]


@pytest.fixture
def managed(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("cat", "cow", "dog"):
        (images / f"{name}.img").write_bytes(BODY)
    (tmp_path / "managed.ini").write_text(INI.format(directory=tmp_path, token=TOKEN))
    environ = {"CACHEMW_TEST_DIR": str(tmp_path)}
    app, log = "tests.functional.managed_app:app", tmp_path / "log"
    with gunicorn(app, log, workers=2, threads=4, environ=environ) as server:
        cache = ImageCache(dir=str(tmp_path / "cache"), min_free=0)
        yield Managed(server, cache, tmp_path)
        cache.close()
    assert TOKEN not in log.read_text()


def test_a_prune_that_runs_is_not_begun_twice_in_any_process(managed):
    for name in ("cat", "cow", "dog"):
        managed.fetch(name)
    managed.hold()
    jobs = []

    def start():
        jobs.append(managed.ask("/v2/cache/prune", "POST"))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    managed.go_on()

    assert {status for status, _ in jobs} == {202}
    assert len({job["id"] for _, job in jobs}) == 1
    assert {job["state"] for _, job in jobs} == {"running"}
    job = managed.wait_for(jobs[0][1]["id"], "done")
    assert job["result"] == {"images": 0, "bytes": 0}
    assert len(managed.ask("/v2/cache/jobs")[1]["jobs"]) == 1


def test_a_job_is_lost_with_its_process_and_another_can_begin(managed):
    managed.hold()
    _, job = managed.ask("/v2/cache/prune", "POST")
    assert job["state"] == "running"
    for pid in managed.server.workers():
        os.kill(pid, signal.SIGKILL)

    managed.wait_for(job["id"], "lost")
    managed.go_on()
    _, other = managed.ask("/v2/cache/prune", "POST")
    assert other["id"] != job["id"]
    managed.wait_for(other["id"], "done")


def test_workers_agree_on_what_is_there(managed):
    managed.fetch("cat")
    managed.fetch("dog")
    for _ in range(8):
        assert managed.ask("/v1/cached_images?limit=1")[1]["total"] == 2
    assert managed.ask("/v2/cache/cat", "DELETE") == (204, None)
    for _ in range(8):
        assert managed.ask("/v1/cached_images/cat")[0] == 404
    managed.fetch("cat")
    assert managed.ids() == ["cat", "dog"]


def test_odd_ids_arrive_as_they_are(managed):
    """A real server unquotes the path, and says how it was sent."""
    for target, image_id in (
        ("/v2/cache/http%3A%2F%2Fh%2Fp%3Fq", "http://h/p?q"),
        ("/v2/cache/http://h//p", "http://h//p"),
        ("/v2/cache/a%2520b", "a%20b"),
        ("/v2/cache/%2E%2E", ".."),
        ("/v2/cache/%FF%C3%A4", "\udcffä"),
        ("/.cachemw/v2/cache//a", "/a"),
    ):
        assert managed.ask(target, "PUT")[0] == 202
        assert managed.cache.get_queued_images() == [image_id]
        assert managed.ask(target, "DELETE") == (204, None)
        assert managed.cache.get_queued_images() == []


@pytest.fixture
def curl(managed):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    def run(*arguments, token=TOKEN):
        """Gives the status and what came."""
        *options, target = arguments
        known = () if token is None else ("-H", f"Authorization: Bearer {token}")
        done = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", *known, *options, f"{managed.url}{target}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body) if body else None

    return run


def test_curl_does_everything(managed, curl):
    managed.fetch("cat")
    managed.fetch("dog")

    assert curl("/.cachemw/healthz", token=None) == (200, {"status": "ok"})
    _, page = curl("/v1/cached_images?limit=1&sort=size:desc&search=o")
    assert [image["image_id"] for image in page["cached_images"]] == ["dog"]
    assert curl("-X", "DELETE", "/v1/cached_images/dog")[0] == 204
    assert managed.ids() == ["cat"]
    assert curl("-X", "PUT", "/v2/cache/cow")[0] == 202
    assert curl("-X", "DELETE", "/v2/cache")[0] == 204
    assert managed.ids() == managed.cache.get_queued_images() == []
    managed.fetch("cat")
    # As curl sends it: the type of a form, and the token beside it.
    status, job = curl("-d", '{"max_size": "1KiB"}', "/v2/cache/prune")
    assert (status, managed.wait_for(job["id"], "done")["result"]["images"]) == (202, 1)
    assert curl("-X", "POST", "/v2/cache/clean")[0] == 202
    assert [job["kind"] for job in curl("/v2/cache/jobs")[1]["jobs"]] == ["clean", "prune"]


def test_curl_changes_nothing_without_the_token(managed, curl):
    managed.fetch("cat")

    for token in (None, "guessed"):
        for method, target in (
            ("DELETE", "/v1/cached_images/cat"),
            ("DELETE", "/v2/cache"),
            ("PUT", "/v2/cache/dog"),
            ("POST", "/v2/cache/prune"),
            ("DELETE", "/.cachemw/v1/cached_images"),
            ("GET", "/v1/cached_images"),
        ):
            status, error = curl("-X", method, target, token=token)
            assert (status, error["error"]["code"]) == (401, 401)
    assert curl("-X", "DELETE", "-H", "Sec-Fetch-Site: cross-site", "/v2/cache")[0] == 403
    assert managed.ids() == ["cat"]
    assert managed.cache.get_queued_images() == []
    assert managed.ask("/v2/cache/jobs")[1]["jobs"] == []


@pytest.fixture
def glance(managed, tmp_path):
    """Glance's own client."""
    reason = install.missing()
    if reason is not None:
        if not install.is_wanted():
            pytest.skip(reason)
        install.install()

    def run(*arguments, token=TOKEN):
        done = subprocess.run(
            [
                *(install.program("glance"), "--os-image-url", f"{managed.url}/.cachemw"),
                *("--os-auth-token", token, "--os-image-api-version", "2", *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        return done.stdout + done.stderr

    return run


def test_glances_client_does_everything(managed, glance):
    managed.fetch("cat")
    managed.fetch("dog")
    managed.cache.queue_image("cow")

    listed = glance("cache-list")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in listed.splitlines()]
    assert [(row[0], row[1]) for row in rows if len(row) == 6 and row[0] != "ID"] == [
        ("cat", "cached"),
        ("dog", "cached"),
        ("cow", "queued"),
    ]
    assert glance("cache-delete", "cat", "cow") == ""
    assert (managed.ids(), managed.cache.get_queued_images()) == (["dog"], [])
    assert "Unable to delete image 'cat'" in glance("cache-delete", "cat")
    assert glance("cache-clean") == ""
    assert glance("cache-prune") == "Pruned 0 file(s), 0 byte(s).\n"
    assert glance("cache-queue", "cow") == ""
    assert managed.cache.get_queued_images() == ["cow"]
    assert glance("cache-clear", "--target", "queue") == ""
    assert (managed.ids(), managed.cache.get_queued_images()) == (["dog"], [])
    assert "Unauthorized" in glance("cache-clear", token="guessed")
    assert managed.ids() == ["dog"]
    assert glance("cache-clear") == ""
    assert managed.ids() == []
