"""The WSGI apps that are measured, made by the server from environment variables.

``BENCH_IMAGES`` is the directory of images, ``BENCH_CACHE`` the cache
directory, ``BENCH_DURABILITY`` the option of that name, ``BENCH_UPSTREAM`` the
URL of an origin, and ``BENCH_OPTIONS`` more of the filter's options as JSON;
``verified`` has another ``verify_reads`` than ``cached``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

App = Callable[..., Iterable[bytes]]


def bare() -> App:
    """The least that a server's own app does to hand out a file."""
    directory = os.environ["BENCH_IMAGES"]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = os.path.join(directory, environ["PATH_INFO"].rpartition("/")[2])
        file = open(path, "rb", buffering=0)  # noqa: SIM115 - the server closes it
        length = str(os.fstat(file.fileno()).st_size)
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", length)]
        start_response("200 OK", headers)
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 512 * 1024)
        return wrapped

    return app


def images() -> App:
    """The images app alone."""
    from cachemw.web.apps.images import ImagesApp

    return ImagesApp(os.environ["BENCH_IMAGES"])


def iterated() -> App:
    """The images app where the server has no sendfile for it: all bytes pass through Python."""
    app = images()

    def without_wrapper(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        # A copy: gunicorn looks for its own wrapper there afterwards.
        plain = {key: value for key, value in environ.items() if key != "wsgi.file_wrapper"}
        return app(plain, start_response)

    return without_wrapper


def verified() -> App:
    """The images app behind a cache that checks all it sends."""
    return cached(verify_reads="always")


def cached(**options: str) -> App:
    """The images app behind the cache."""
    return _behind_the_cache(images(), **options)


def proxied() -> App:
    """An HTTP server behind the cache."""
    from cachemw.web.apps.proxy import ProxyApp

    return _behind_the_cache(ProxyApp(os.environ["BENCH_UPSTREAM"]))


def _behind_the_cache(app: App, **more: str) -> App:
    from cachemw import CacheFilter

    options = {
        "dir": os.environ["BENCH_CACHE"],
        "driver": "sqlite",
        "content_types": "*/*",
        "max_size": "1TiB",
        "min_free": 0,
        "durability": os.environ.get("BENCH_DURABILITY", "data"),
    }
    return CacheFilter(app, **options | more | json.loads(os.environ.get("BENCH_OPTIONS", "{}")))
