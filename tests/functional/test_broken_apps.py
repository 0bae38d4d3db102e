"""Apps whose images arrive wrong, and clients that leave, over real sockets.

Promise 1 of the design: a client never holds a complete image that differs
from the one promised. What is stored, closed and left open is seen from
outside the server's process.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import threading

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.drivers import _claims
from tests.servers import BrokenOff, descriptors, gunicorn, in_waitress
from tests.waiting import wait_until

SMALL, LARGE = 100, 3 * 2**20

#: One chunk, or many.
WHOLE, MANY = 2**30, 65_536

FAULTS = ("md5", "repr-digest", "short", "long", "raises")


@functools.cache
def image(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class BrokenApp:
    """An app whose images are wrong until it is healed.

    ``/images/<fault>/<size>/<chunk>/<length|chunked>/...`` is an image; a
    ``POST`` to it with ``/heal`` behind mends it, ``/calls``, ``/closed`` and
    ``/closed/<count>`` say (the last waits) how often it was asked for and closed.
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.closes: dict[str, int] = {}
        self.healed: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return self._say(start_response, "ready")
        what, _, path = path.removeprefix("/").partition("/")
        if what == "images":
            return self._image(path, start_response)
        if what == "heal":
            self.healed.add(path)
        with self._changed:
            if what == "closed":
                count, _, path = path.partition("/")
                self._changed.wait_for(lambda: self.closes.get(path, 0) >= int(count), 20)
            counts = {"calls": self.calls.get(path, 0), "closes": self.closes.get(path, 0)}
        return self._say(start_response, json.dumps(counts))

    def _say(self, start_response, text):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
        return [text.encode()]

    def _image(self, path, start_response):
        with self._changed:
            self.calls[path] = self.calls.get(path, 0) + 1
        fault, size, chunk, framing, *_ = path.split("/")
        if path in self.healed:
            fault = "none"
        data = image(int(size))
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Cache-Control", "public, max-age=86400"),
        ]
        if framing == "length":
            headers.append(("Content-Length", str(len(data))))
        if fault == "repr-digest" or size == str(SMALL):
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            headers.append(("Repr-Digest", f"sha-256=:{digest}:"))
        else:
            headers.append(("Content-MD5", hashlib.md5(data, usedforsecurity=False).hexdigest()))
        start_response("200 OK", headers)
        return Body(self, path, damaged(data, fault), int(chunk), fault == "raises")

    def count_close(self, path):
        with self._changed:
            self.closes[path] = self.closes.get(path, 0) + 1
            self._changed.notify_all()


def damaged(data: bytes, fault: str) -> bytes:
    if fault in ("md5", "repr-digest"):
        return data[:-1] + bytes([data[-1] ^ 1])
    if fault == "short":
        return data[: len(data) * 9 // 10]
    if fault == "long":
        return data + b"more"
    return data


class Body:
    """Chunks of an image, maybe with an error after half of them; counts its closes."""

    def __init__(self, app, path, data, chunk, raises):
        self._app, self._path = app, path
        self._chunks = self._generate(data, chunk, raises)

    @staticmethod
    def _generate(data, chunk, raises):
        for start in range(0, len(data), chunk):
            if raises and (start + chunk) * 2 > len(data):
                yield data[start : start + chunk // 2]
                raise ValueError("the app broke")
            yield data[start : start + chunk]

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._chunks)

    def close(self):
        self._app.count_close(self._path)


def application() -> CacheFilter:
    """What gunicorn serves; the cache's options are in the environment."""
    return CacheFilter(BrokenApp(), **json.loads(os.environ["TEST_CACHE_OPTIONS"]))


@pytest.fixture(scope="module", params=["sqlite", "xattr"])
def behind_gunicorn(request, tmp_path_factory):
    """A server, and the cache directory's own view of what it does."""
    tmp_path = tmp_path_factory.mktemp("broken")
    options = {"dir": str(tmp_path / "cache"), "driver": request.param, "driver_fallback": False}
    environ = {"TEST_CACHE_OPTIONS": json.dumps(options | {"on_abort": "discard"})}
    app = "tests.functional.test_broken_apps:application()"
    with gunicorn(app, tmp_path / "log", environ=environ) as server:
        cache = ImageCache(**options)
        yield server, cache
        cache.close()


@pytest.fixture(scope="module")
def behind_waitress(tmp_path_factory):
    cache = ImageCache(dir=tmp_path_factory.mktemp("broken") / "cache", driver="sqlite")
    with in_waitress(CacheFilter(BrokenApp(), cache=cache)) as server:
        yield server, cache
    cache.close()


CASES = [
    (fault, size, chunk, framing)
    for size, chunk in ((SMALL, WHOLE), (SMALL, 7), (LARGE, WHOLE), (LARGE, MANY))
    for framing in ("length", "chunked")
    for fault in FAULTS
]


@pytest.mark.parametrize(("fault", "size", "chunk", "framing"), CASES)
def test_client_of_a_broken_image_can_tell(behind_gunicorn, fault, size, chunk, framing):
    check_broken(*behind_gunicorn, f"{fault}/{size}/{chunk}/{framing}")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("chunk", [WHOLE, MANY])
@pytest.mark.parametrize("fault", FAULTS)
def test_client_of_a_broken_image_behind_waitress_can_tell(behind_waitress, fault, chunk, framing):
    check_broken(*behind_waitress, f"{fault}/{LARGE}/{chunk}/{framing}")


def check_broken(server, cache, path):
    fault, size, _, _ = path.split("/")
    data = image(int(size))
    image_id = f"http://test/images/{path}"

    for attempt in (1, 2):
        assert_seen_as_broken(server, path, data, fault)
        # The app is asked each time, and its body closed once each time.
        assert counts(server, f"closed/{attempt}/{path}") == {"calls": attempt, "closes": attempt}
        assert not cache.is_cached(image_id)
        assert not cache.is_being_cached(image_id)
        (reason,) = [
            invalid["reason"]
            for invalid in cache.driver.get_invalid_images()
            if invalid["image_id"] == image_id
        ]
        assert_says_why(reason, fault, path)

    counts(server, f"heal/{path}")
    healed = server.request(f"/images/{path}")
    assert (healed.complete, healed.body) == (True, data)
    assert healed.cache_status == "fwd=uri-miss; stored"
    hit = server.request(f"/images/{path}")
    assert (hit.complete, hit.body, hit.cache_status) == (True, data, "hit")
    assert counts(server, f"closed/3/{path}") == {"calls": 3, "closes": 3}


def assert_seen_as_broken(server, path, data, fault):
    try:
        reply = server.request(f"/images/{path}")
    except BrokenOff:
        return
    if reply.status == 500:
        # Nothing was sent yet, so the server could still say so.
        assert len(reply.body) < 1000
        assert data[:10] not in reply.body
        return
    assert reply.status == 200
    assert not reply.complete
    # Without a length, what is too much may be all that was held back.
    assert len(reply.body) < len(data) or fault == "long"
    assert data.startswith(reply.body)


def assert_says_why(reason, fault, path):
    if fault == "raises":
        assert "the app failed after" in reason
        assert "ValueError: the app broke" in reason
    elif fault in ("short", "long") and "/length" in path:
        assert "bytes promised" in reason
    else:
        assert "is" in reason
        assert "not" in reason


def counts(server, target):
    method = "POST" if target.startswith("heal") else "GET"
    reply = server.request(f"/{target}", method=method)
    assert reply.complete
    return json.loads(reply.body)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_client_that_leaves_leaves_nothing_behind(behind_gunicorn, framing):
    """Neither an entry nor a lock nor a descriptor; the next client gets the image."""
    server, cache = behind_gunicorn
    size = 64 * 2**20  # more than fits into the sockets' buffers
    (worker,) = server.workers()
    path = f"none/{size}/{MANY}/{framing}"
    # The first of its kind opens what stays open.
    leave_at_a_quarter(server, f"{path}/first", size)
    assert counts(server, f"closed/1/{path}/first") == {"calls": 1, "closes": 1}
    wait_until(lambda: not of_images(worker, cache), "the first of its kind is closed")

    for attempt in range(3):
        leave_at_a_quarter(server, f"{path}/{attempt}", size)
        assert counts(server, f"closed/1/{path}/{attempt}") == {"calls": 1, "closes": 1}

        image_id = f"http://test/images/{path}/{attempt}"
        assert not cache.is_cached(image_id)
        assert not is_locked(cache, image_id)
        assert "the client left after" in reasons(cache)[image_id]
    wait_until(lambda: not of_images(worker, cache), "nothing more is open")
    again = server.request(f"/images/{path}/0")
    assert (again.complete, again.cache_status) == (True, "fwd=uri-miss; stored")
    assert again.body == image(size)
    assert server.request(f"/images/{path}/0").cache_status == "hit"


def leave_at_a_quarter(server, path, size):
    client = server.begin(f"/images/{path}")
    status, _ = client.read_head()
    assert status == 200
    assert len(client.read(size // 4)) == size // 4
    client.leave()


def of_images(worker, cache):
    """What the server has open of images and fills, by path."""
    inside = f"{cache.driver.directory}/"
    opened = [path for path in descriptors(worker).values() if path.startswith(inside)]
    ours = re.compile(r"(incomplete|invalid|queue|\..*|cache\.db.*)")
    return [path for path in opened if ours.fullmatch(path.removeprefix(inside)) is None]


def is_locked(cache, image_id):
    """Whether anybody holds the fill's lock or the directory's, seen from this process."""
    with contextlib.closing(open(os.path.join(cache.driver.directory, ".lock"), "rb")) as file:
        return cache.driver.is_being_cached(image_id) or _claims.is_locked(file.fileno())


def reasons(cache):
    return {item["image_id"]: item["reason"] for item in cache.driver.get_invalid_images()}
