"""Call the proxy app, over a socket or without, and write what its upstream answers."""

import contextlib
import http.client

import webtest
from webtest.http import StopableWSGIServer

from tests.upstreams import PATIENCE

BODY = bytes(range(256)) * 1024  # 256 KiB
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/x\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def served(app):
    """A threaded server for the app; gives a connection to it."""
    server = StopableWSGIServer.create(app)
    connection = http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()


def start(app, path="/image", method="GET", **environ):
    """Call an app; give status, headers and the body's iterable."""
    started = []
    request = webtest.TestRequest.blank(path, method=method).environ
    body = app({**request, **environ}, lambda *args: started.append(args))
    return *started[0][:2], body


def chunks(*blocks):
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)
