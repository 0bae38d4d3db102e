"""The server behind ``cachemw serve``: gunicorn with threads.

It hands files to sendfile(2), cuts the connection when a body breaks off, and
a slow client keeps one thread busy, not the others.

Imports: core.cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FrameType
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.http import wsgi
from gunicorn.workers import gthread

from ..core.cache import flush_hits

#: Time, client, request line, status, length, seconds, and what the cache did.
ACCESS_FORMAT = '%(t)s %(h)s "%(r)s" %(s)s %({content-length}o)s bytes %(L)s s %({cache-status}o)s'

#: Seconds that downloads under way get to finish after SIGTERM; Ctrl-C does not wait.
GRACE = 30


class _Response(wsgi.Response):
    """A response that keeps the app's Date and Server.

    gunicorn drops both and sends its own; but a cached image's Date says when
    it was fetched (RFC 9110, section 6.6.1), and a proxy does not change them.
    """

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        super().process_headers(headers)
        self.own = [pair for pair in headers if pair[0].lower() in ("date", "server")]
        self.headers.extend(self.own)

    def default_headers(self) -> list[str]:
        own = {name.lower() for name, _ in self.own}
        return [
            line for line in super().default_headers() if line.partition(":")[0].lower() not in own
        ]


class _Worker(gthread.ThreadWorker):
    """A worker that Ctrl-C ends at once.

    gunicorn 27.0 first shuts the pool down, from within the signal handler, and hangs
    where the signal came as the pool was just taking on a request. Leaving by ``sys.exit``
    would wait for the slowest download.
    """

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        flush_hits()
        os._exit(0)


class _Server(BaseApplication):
    def __init__(self, app: Callable[..., Any], options: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            # Settings that an older gunicorn does not have, it does not need either.
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        return self._app


def serve(
    app: Callable[..., Any],
    *,
    host: str,
    port: int,
    workers: int,
    threads: int,
    log_requests: bool,
    announce: Callable[[str], None],
) -> None:
    """Serve a WSGI app until a signal ends the process.

    :param port: 0: any that is free.
    :param announce: called with the URL once the server listens.
    """
    wsgi.Response = _Response
    bind_host = f"[{host}]" if ":" in host else host

    def when_ready(server: Any) -> None:
        actual = server.LISTENERS[0].sock.getsockname()[1]
        announce(f"http://{bind_host}:{actual}/")

    options = {
        "bind": f"{bind_host}:{port}",
        "workers": workers,
        "threads": threads,
        "worker_class": _Worker,
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,
        "graceful_timeout": GRACE,
        "limit_request_line": 8190,
        "loglevel": "warning",
        "accesslog": "-" if log_requests else None,
        "access_log_format": ACCESS_FORMAT,
        "proc_name": "cachemw",
        "when_ready": when_ready,
        "control_socket_disable": True,
    }
    _Server(app, options).run()
