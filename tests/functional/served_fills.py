"""The app that real servers load for the tests of shared fills.

The cache in front of the proxy app, with something on either side that tells
the tests what happens inside. ``CACHEMW_TEST_DIR`` is for the cache and for
what is noted, ``CACHEMW_TEST_UPSTREAM`` the origin's URL, and
``CACHEMW_TEST_OPTIONS`` has the filter's options as JSON.
"""

from __future__ import annotations

import contextvars
import itertools
import json
import os
import threading

from cachemw import CacheFilter
from cachemw.web.apps.proxy import ProxyApp

DIRECTORY = os.environ["CACHEMW_TEST_DIR"]

#: Who asked, as the request says; what runs for it must still find it here.
asking = contextvars.ContextVar("asking", default="nobody")


def note(**what):
    """Append one line to what is noted: short enough to be written in one piece."""
    line = json.dumps({"process": os.getpid(), **what}) + "\n"
    fd = os.open(os.path.join(DIRECTORY, "calls"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


class Noted:
    """An app whose calls, and the reading and closing of whose answers, are noted."""

    def __init__(self, app):
        self._app = app
        self._numbers = itertools.count()

    def __call__(self, environ, start_response):
        call = next(self._numbers)
        body = self._app(environ, start_response)
        note(
            event="called",
            call=call,
            path=environ["PATH_INFO"],
            method=environ["REQUEST_METHOD"],
            thread=threading.get_ident(),
            client=asking.get(),
        )
        return NotedBody(body, call)


class NotedBody:
    """An answer's body, with the threads and contexts that read it."""

    def __init__(self, body, call):
        self._body, self._call = body, call
        self._chunks = iter(body)
        self._threads, self._clients = set(), set()

    def __iter__(self):
        return self

    def __next__(self):
        self._threads.add(threading.get_ident())
        self._clients.add(asking.get())
        return next(self._chunks)

    def close(self):
        if hasattr(self._body, "close"):
            self._body.close()
        note(
            event="closed",
            call=self._call,
            threads=sorted(self._threads),
            clients=sorted(self._clients),
        )


def in_front(app):
    """Tell the context who asks, and the client which process answers."""

    def named(environ, start_response):
        asking.set(environ.get("HTTP_X_CLIENT", "nobody"))

        def start(status, headers, *exc_info):
            return start_response(status, [*headers, ("X-Process", str(os.getpid()))], *exc_info)

        return app(environ, start)

    return named


app = in_front(
    CacheFilter(
        Noted(ProxyApp(os.environ["CACHEMW_TEST_UPSTREAM"])),
        dir=os.path.join(DIRECTORY, "cache"),
        **json.loads(os.environ.get("CACHEMW_TEST_OPTIONS", "{}")),
    )
)
