"""An HTTP server with images that arrive, and with one for each way not to."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections import Counter

BODY = bytes(range(256)) * 256  # 64 KiB


class Origin:
    """A server on a free port of the loopback interface; a context manager.

    A path ``/good/...`` is an image, and ``/404``, ``/401``, ``/wrong``, ``/cut`` and
    ``/stalled`` are none.

    :param seconds: that an image takes.
    :ivar asked: how often for each path.
    :ivar tokens: what each request had for ``X-Auth-Token``.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: Counter[str] = Counter()
        self.tokens: list[str | None] = []
        self.agents: list[str | None] = []
        self.is_over = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Origin:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                origin.asked[path] += 1
                origin.tokens.append(self.headers.get("X-Auth-Token"))
                origin.agents.append(self.headers.get("User-Agent"))
                kind = path.split("/")[1]
                if kind in ("401", "404"):
                    self.send_response(int(kind))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_image(kind)

            def send_image(self, kind: str) -> None:
                digest = hashlib.md5(b"" if kind == "wrong" else BODY).hexdigest()
                self.send_response(200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Cache-Control", "public, max-age=600")
                self.send_header("Content-MD5", digest)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY[:1000])
                self.wfile.flush()
                if kind == "stalled":
                    origin.is_over.wait(60)
                if kind in ("stalled", "cut"):
                    self.close_connection = True
                    return
                time.sleep(origin.seconds)
                self.wfile.write(BODY[1000:])

            def log_message(self, *args: object) -> None:
                pass

        return Handler
