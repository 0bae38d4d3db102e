"""An origin whose speed is set: HTTP/1.1 with ranges, in a process of its own.

``python _origin.py`` prints its port. ``/SIZE-RATE-LATENCY/NAME`` is an image of
SIZE bytes, sent at RATE bytes per second (0: as fast as can be) after LATENCY
milliseconds; with ``silent`` for the rate the head is sent and nothing more
until ``/release/PATH`` is asked for. ``/told/PATH`` gives what happened to a path as JSON:
``requests``, ``bytes`` of bodies sent, and ``first``, ``last``: when the first
byte of the first body and the last byte of the last one were sent (monotonic clock).

Imports: the standard library only, so that it begins quickly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socketserver
import threading
import time

_PIECE = 64 * 1024
_BLOCK = os.urandom(2**20) * 2

_IMAGE = re.compile(r"/(\d+)-(\d+|silent)-(\d+)/")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclasses.dataclass
class Told:
    """What happened to one path."""

    requests: int = 0
    bytes: int = 0
    first: float = 0.0
    last: float = 0.0


_told: dict[str, Told] = {}
_lock = threading.Lock()
_events: dict[str, threading.Event] = {}


def _released(path: str) -> threading.Event:
    with _lock:
        return _events.setdefault(path, threading.Event())


class Handler(socketserver.StreamRequestHandler):
    """One connection, with as many requests as come."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            while request := self.rfile.readline().decode("latin-1").split():
                fields = {}
                while line := self.rfile.readline().decode("latin-1").strip():
                    name, _, value = line.partition(":")
                    fields[name.lower()] = value.strip()
                self._answer(request[0], request[1], fields)
        except OSError:
            pass

    def _answer(self, method: str, target: str, fields: dict[str, str]) -> None:
        if target.startswith("/release"):
            _released(target.removeprefix("/release")).set()
            self._say(b"{}")
            return
        if target.startswith("/told"):
            told = _told.get(target.removeprefix("/told"), Told())
            self._say(json.dumps(dataclasses.asdict(told)).encode())
            return
        match = _IMAGE.match(target)
        if match is None:
            self._say(b"{}")
            return
        with _lock:
            told = _told.setdefault(target, Told())
            told.requests += 1
        time.sleep(int(match[3]) / 1000)
        size = int(match[1])
        start, stop = part(fields.get("range"), size)
        self._head(start, stop, size)
        if method == "HEAD":
            return
        if match[2] == "silent":
            _released(target).wait()
            raise ConnectionError("released")
        self._body(told, start, stop, int(match[2]))

    def _say(self, text: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
        self.wfile.write(head.encode() + b"\r\n\r\n" + text)

    def _head(self, start: int, stop: int, size: int) -> None:
        is_part = (start, stop) != (0, size)
        lines = [
            f"HTTP/1.1 {'206 Partial Content' if is_part else '200 OK'}",
            "Content-Type: application/octet-stream",
            "Cache-Control: public, max-age=3600",
            'ETag: "1"',
            "Accept-Ranges: bytes",
            f"Content-Length: {stop - start}",
        ]
        if is_part:
            lines.append(f"Content-Range: bytes {start}-{stop - 1}/{size}")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())

    def _body(self, told: Told, start: int, stop: int, rate: int) -> None:
        due = time.monotonic()
        while start < stop:
            count = min(_PIECE, stop - start)
            if rate:
                time.sleep(max(0.0, due - time.monotonic()))
                due += count / rate
            told.first = told.first or time.monotonic()
            offset = start % 2**20
            self.wfile.write(memoryview(_BLOCK)[offset : offset + count])
            start += count
            with _lock:
                told.bytes += count
                told.last = time.monotonic()


def part(asked: str | None, size: int) -> tuple[int, int]:
    """Read a Range: the part to send, half-open."""
    match = _RANGE.fullmatch(asked or "")
    if match is None:
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(int(match[2]) + 1, size) if match[2] else size


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
