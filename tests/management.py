"""A management API that keeps everything in memory, for tests of what is in front of it.

Its answers have the shapes of the real one; the numbers are made up, but the same each
time, so that a screenshot of them changes only with the page.
"""

from __future__ import annotations

import contextlib
import json
import math
import socketserver
import threading
import time
import urllib.parse
import wsgiref.simple_server
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from cachemw.web import dashboard

GIB = 2**30
MIB = 2**20

_NAMES = (
    "debian-13-generic-amd64.qcow2",
    "ubuntu-26.04-server-cloudimg-amd64.img",
    "fedora-cloud-base-44.x86_64.qcow2",
    "rocky-10-genericcloud.latest.x86_64.qcow2",
    "windows-server-2025-datacenter.vhdx",
    "flatcar_production_openstack_image.img",
    "talos-metal-amd64.raw.zst",
    "netboot.tar.gz",
)


def make_images(count: int, now: float) -> list[dict[str, Any]]:
    """Make the records of so many images."""
    return [
        {
            "image_id": f"{_NAMES[number % len(_NAMES)].replace('.', f'-{number:05}.', 1)}",
            "size": (number * 2654435761) % (4 * GIB) + 900_000,
            "hits": int(48_000 / (number + 1)) + number % 7,
            "last_accessed": now - 3 - (number * 97.5) ** 1.05,
            "last_modified": now - 4000 - number * 611.0,
            "checksum": f"sha256:{number:064x}",
        }
        for number in range(count)
    ]


class Management:
    """The app.

    :param mount: the path under which it is.
    :param is_filter: /v1 and /v2 are one up from the page.
    :param token: that has to be given; none: nobody is asked.
    :param clock: gives the time.
    """

    def __init__(
        self,
        images: Iterable[Mapping[str, Any]] = (),
        *,
        mount: str = "/",
        is_filter: bool = False,
        token: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.images = {image["image_id"]: dict(image) for image in images}
        self.queue: list[dict[str, Any]] = []
        self.invalid: list[dict[str, Any]] = []
        self.fills: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.rates: dict[str, float] = {}
        self.token = token
        #: Instead of any answer of the API.
        self.failure: str | None = None
        #: Method, path and body of what was asked.
        self.asked: list[tuple[str, str, Any]] = []
        self._mount = mount
        self._api = mount.removesuffix(".cachemw/") if is_filter else mount
        self._clock = clock

    # What ImageCache answers too, so that a test can look.

    def get_cached_images(self) -> list[dict[str, Any]]:
        return sorted(self.images.values(), key=lambda image: image["image_id"])

    def get_queued_images(self) -> list[str]:
        return [item["image_id"] for item in self.queue]

    def queue_image(self, image_id: str, **state: Any) -> None:
        self.queue = [item for item in self.queue if item["image_id"] != image_id]
        usual = {"url": None, "tries": 0, "after": None, "reason": None}
        usual |= {"set_aside": False, "fetching": False, "queued": self._clock()}
        self.queue.append({"image_id": image_id, **usual, **state})

    # The app itself.

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "surrogateescape")
        status, headers, body = self._answer(method, path, environ)
        headers = {
            "Content-Security-Policy": dashboard.CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Content-Length": str(len(body)),
            **headers,
        }
        start_response(status, list(headers.items()))
        return [body]

    def _answer(
        self, method: str, path: str, environ: dict[str, Any]
    ) -> tuple[str, dict[str, str], bytes]:
        name = path.removeprefix(self._mount) or "index.html"
        if path.startswith(self._mount) and name in dashboard.FILES:
            media_type, load = dashboard.FILES[name]
            return "200 OK", {"Content-Type": media_type}, load()
        if self.failure:
            return _error(self.failure)
        if self.token and environ.get("HTTP_AUTHORIZATION") != f"Bearer {self.token}":
            return _error("401 Unauthorized")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.asked.append((method, path, json.loads(body) if body else None))
        query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
        if method == "GET" and path == f"{self._mount}stats":
            return _json(self.stats())
        if method == "GET" and path == f"{self._mount}stats/history":
            return _json(self.history(float(query["hours"])))
        if path.startswith(self._api):
            return self._manage(method, path.removeprefix(self._api), query, body)
        return _error("404 Not Found")

    def _manage(
        self, method: str, path: str, query: dict[str, str], body: bytes
    ) -> tuple[str, dict[str, str], bytes]:
        match (method, *path.split("/", 2)):
            case "GET", "v1", "cached_images":
                return _json(self._list(query))
            case "DELETE", "v1", "cached_images", image_id if image_id in self.images:
                del self.images[image_id]
                return _json({})
            case "DELETE", "v1", ("cached_images" | "queued_images"), "":
                raise AssertionError("this deletes everything")
            case "PUT", "v1", "queued_images", image_id if "unknown" not in image_id:
                self.queue_image(image_id)
                return _json({})
            case "PUT", "v1", "queued_images", _:
                return _error("409 Conflict", "no request named how it is fetched")
            case "DELETE", "v1", "queued_images", image_id if image_id in self.get_queued_images():
                self.queue = [item for item in self.queue if item["image_id"] != image_id]
                return _json({})
            case "POST", "v2", "cache", ("prune" | "clean" | "check") as kind:
                return self._start(kind, json.loads(body or b"{}"))
        return _error("404 Not Found")

    def _start(self, kind: str, options: dict[str, Any]) -> tuple[str, dict[str, str], bytes]:
        job = self.job(kind, state="running", options=options)
        self.jobs.insert(0, job)
        _, headers, body = _json(job)
        return "202 Accepted", headers, body

    def job(self, kind: str, **state: Any) -> dict[str, Any]:
        usual = {"ended": None, "done": 0, "total": 100, "result": None, "error": None}
        number = f"{kind}-{len(self.jobs)}"
        return {"id": number, "kind": kind, "started": self._clock(), **usual, **state}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        key, _, direction = query.get("sort", "image_id").partition(":")
        wanted = query.get("search", "")
        found = [image for image in self.images.values() if wanted in image["image_id"]]
        found.sort(key=lambda image: (image[key], image["image_id"]), reverse=direction == "desc")
        total = len(found)
        if "marker" in query:
            value = query["marker"] if key == "image_id" else float(query["marker_value"])
            last = (value, query["marker"])
            places = [(image[key], image["image_id"]) for image in found]
            is_after = [place < last if direction == "desc" else place > last for place in places]
            found = [image for image, after in zip(found, is_after, strict=True) if after]
        limit = int(query["limit"])
        return {
            "cached_images": found[:limit],
            "total": total,
            "next": "more" if len(found) > limit else None,
        }

    def stats(self) -> dict[str, Any]:
        images = list(self.images.values())
        entries = sum(image["size"] for image in images)
        rates = {
            "requests": 214.3,
            "bytes": 412 * MIB,
            "bytes_cache": 391 * MIB,
            "bytes_app": 21 * MIB,
            "hit_ratio": 0.968,
            "byte_hit_ratio": 0.949,
            **self.rates,
        }

        def ends(key: str, *, most: bool) -> list[dict[str, Any]]:
            return sorted(images, key=lambda image: image[key], reverse=most)[:10]

        requests = {"hit": 1_284_311, "miss": 20_874, "collapsed": 6_120, "revalidated": 3_377}
        requests |= {"stale": 12, "pass": 9_981, "bypass": 204, "error": 31}
        return {
            "time": self._clock(),
            "version": "0.1.0",
            "dir": "/var/cache/images",
            "driver": "sqlite",
            "size": {
                "used": int(entries * 1.04),
                "entries": entries,
                "max": int(entries * 1.3) + GIB,
                "free": 212 * GIB,
                "min_free": 10 * GIB,
            },
            "images": len(images),
            "partial_images": 3,
            "totals": {
                "requests": requests,
                "bytes": {"cache": 912_000 * GIB // 1000, "app": 31_400 * GIB // 1000},
                "fills": {
                    "started": 20_874,
                    "committed": 20_790,
                    "resumed": 41,
                    "taken_over": 6,
                    "rolled_back": {"checksum": 3, "length": 12, "app": 59, "disk": 0},
                },
                "evictions": {"images": 18_211, "bytes": 26_300 * GIB // 1000},
                "verification_failures": 1,
            },
            "rates": {
                "10s": rates,
                "1m": {**rates, "requests": rates["requests"] * 0.93, "hit_ratio": 0.9571},
                "10m": {**rates, "requests": rates["requests"] * 0.81, "hit_ratio": 0.9436},
            },
            "fills": self.fills,
            "queue": self.queue,
            "invalid": self.invalid,
            "biggest": ends("size", most=True),
            "hottest": ends("hits", most=True),
            "coldest": ends("last_accessed", most=False),
            "jobs": self.jobs,
        }

    def history(self, hours: float) -> dict[str, Any]:
        """Give a day: more by day, a cold start in the morning, two hours switched off."""
        step = 60
        end = self._clock() // step * step
        samples = []
        for number in range(int(hours * 60)):
            moment = end - (int(hours * 60) - number) * step
            share = number / (hours * 60)
            if 0.14 < share < 0.2:
                continue
            load = 1 + 0.6 * math.sin(share * 7 - 1.4) + 0.16 * math.sin(number / 41)
            load += 0.07 * math.sin(number * 1.7)
            ratio = 0.955 - 0.45 * math.exp(-abs(share - 0.2) * 40) * (share >= 0.2)
            ratio += 0.02 * math.sin(number / 67) + 0.012 * math.sin(number * 2.3)
            requests = int(9000 * load)
            total = requests * 2.1 * MIB
            samples.append(
                {
                    "time": moment,
                    "requests": requests,
                    "hits": int(requests * ratio),
                    "bytes_cache": int(total * (ratio - 0.09)),
                    "bytes_app": int(total * (1.09 - ratio)),
                    "used": 0,
                    "images": len(self.images),
                }
            )
        return {"step": step, "samples": samples}


def fill_with_work(management: Management, now: float) -> None:
    """Give it fills, a queue, failures and jobs to show."""
    management.fills = [
        {"image_id": name, "received": received, "length": length, "followers": followers}
        | {"since": now - since, "rate": rate}
        for name, received, length, followers, since, rate in (
            (f"10.{_NAMES[4]}", int(6.1 * GIB), int(9.4 * GIB), 14, 143.0, 44.1 * MIB),
            (f"10.{_NAMES[1]}", 212 * MIB, 691 * MIB, 2, 9.0, 23.8 * MIB),
            ("https://images.example.org/build/daily?arch=arm64", 87 * MIB, None, 0, 31.0, 2.9e6),
        )
    ]
    management.queue = []
    management.queue_image(_NAMES[0], queued=now - 311, fetching=True)
    management.queue_image(
        _NAMES[2], queued=now - 290, tries=2, after=now + 95, reason="the app answered 503"
    )
    management.queue_image(_NAMES[6], queued=now - 40)
    management.queue_image(
        "golden/retired-2024.img", queued=now - 9000, tries=8, set_aside=True,
        reason="the app answered 404",
    )  # fmt: skip
    management.invalid = [
        {"image_id": "build-4711.raw", "size": 5 * GIB, "last_modified": now - 1800.0}
        | {"reason": "sha256 is 9f86d081…, the app said 2c26b46b…"},
        {"image_id": _NAMES[5], "size": 118 * MIB, "last_modified": now - 70_000.0}
        | {"reason": "the app sent 123,731,968 of 512,000,000 bytes"},
    ]
    management.jobs = [
        management.job("check", state="running", started=now - 340, done=44, total=100),
        management.job(
            "prune", id="p", state="done", started=now - 5400, ended=now - 5399,
            result={"images": 112, "bytes": int(148.2 * GIB)},
        ),
    ]  # fmt: skip


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(management: Management, mount: str = "/") -> Iterator[str]:
    """Serve it, one connection a request, so that no idle one of a browser's delays the end.

    :return: the dashboard's URL.
    """
    with wsgiref.simple_server.make_server(
        "127.0.0.1", 0, management, server_class=_Server, handler_class=_Handler
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{mount}"
        finally:
            server.shutdown()
            thread.join()


def _json(value: Any) -> tuple[str, dict[str, str], bytes]:
    return "200 OK", {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status: str, detail: str = "") -> tuple[str, dict[str, str], bytes]:
    code, _, title = status.partition(" ")
    error = {"code": int(code), "title": title, "detail": detail or title}
    _, headers, body = _json({"error": error})
    return status, headers, body
