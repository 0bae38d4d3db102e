"""The caches that are compared: ours in front of the proxy app, nginx and Varnish.

Each is given the same origin, and does its best to ask it once: nginx with
``proxy_cache_lock`` (and ``slice``), Varnish as it comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _harness as harness
from _harness import Server

#: Threads of our server: each client that waits has one.
THREADS = 256

_NGINX = """\
daemon off;
worker_processes {workers};
user root;
pid {place}/nginx.pid;
error_log stderr;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    sendfile on;
    proxy_cache_path {place}/cache levels=1:2 keys_zone=images:10m max_size=20g;
    server {{
        listen 127.0.0.1:{port} backlog=512;
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_http_version 1.1;
            proxy_cache images;
            proxy_cache_valid 200 206 1h;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 120s;
            proxy_cache_lock_age 120s;
            {more}
        }}
    }}
}}
"""

_SLICE = """slice 1m;
            proxy_cache_key $uri$slice_range;
            proxy_set_header Range $slice_range;"""

_VCL = """\
vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "%d"; }
"""


@dataclasses.dataclass
class Cache:
    """A cache under way.

    :param servers: by turns asked; several that share one directory.
    """

    name: str
    servers: list[Server]

    def urls(self, path: str) -> list[str]:
        return [server.url(path) for server in self.servers]

    def cpu_seconds(self) -> float:
        return sum(server.cpu_seconds() for server in self.servers)


Start = Callable[[Path, int], contextlib.AbstractContextManager[Cache]]


def ours(name: str, servers: int = 1, workers: int = 1, **options: Any) -> Start:
    """Our filter under gunicorn.

    :param servers: so many with one cache directory.
    :param workers: processes of each.
    """

    @contextlib.contextmanager
    def start(place: Path, origin: int) -> Iterator[Cache]:
        directory = place / f"cachemw-{servers}-{workers}"
        settings = {
            "BENCH_CACHE": str(directory),
            "BENCH_UPSTREAM": f"http://127.0.0.1:{origin}",
            "BENCH_OPTIONS": json.dumps(options),
        }
        with contextlib.ExitStack() as stack:
            yield Cache(
                name,
                [
                    stack.enter_context(
                        harness.gunicorn(
                            "proxied",
                            settings,
                            place / f"{directory.name}-{number}.log",
                            threads=THREADS,
                            workers=workers,
                        )
                    )
                    for number in range(servers)
                ],
            )

    return start


def nginx(slices: bool = False, workers: int = 1) -> Start:
    """nginx from the distribution.

    :param slices: fetch and keep aligned parts.
    """

    @contextlib.contextmanager
    def start(place: Path, origin: int) -> Iterator[Cache]:
        own = place / f"nginx-{slices}"
        own.mkdir()

        def command(port: int) -> list[str]:
            text = _NGINX.format(
                workers=workers,
                place=own,
                port=port,
                origin=origin,
                more=_SLICE if slices else "",
            )
            (own / "nginx.conf").write_text(text)
            return ["nginx", "-p", str(own), "-e", "stderr", "-c", str(own / "nginx.conf")]

        with harness.running("nginx", command, {}, own / "log") as server:
            yield Cache("nginx", [server])

    return start


def varnish() -> Start:
    """Varnish from the distribution, which keeps images in memory."""

    @contextlib.contextmanager
    def start(place: Path, origin: int) -> Iterator[Cache]:
        own = place / "varnish"
        own.mkdir()
        (own / "origin.vcl").write_text(_VCL % origin)

        def command(port: int) -> list[str]:
            return [
                *("varnishd", "-F", "-j", "none", "-n", str(own / "run")),
                *("-a", f"127.0.0.1:{port}", "-f", str(own / "origin.vcl")),
                *("-s", "malloc,1g", "-t", "3600", "-p", "thread_pool_min=300"),
            ]

        with harness.running("Varnish", command, {}, own / "log") as server:
            yield Cache("Varnish", [server])

    return start


def missing(program: str, name: str) -> str | None:
    """Why a program is left out, if it is."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    return None if found else f"{name} is not installed and is left out"
