"""A small HTTP client that keeps its connections, run as a process of its own.

``python _client.py URL --connections 8 --seconds 3`` or ``--requests 2``
prints ``{"requests": ..., "seconds": ...}``. Bodies are read and thrown away;
an answer that is not a whole 200 with a Content-Length ends it with status 1.

Imports: the standard library only, so that it begins quickly.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import sys
import time
import urllib.parse

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_BLOCK = 2**20


class Connection:
    """One connection that asks, reads the answer, and asks again."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._head = b""
        self._missing = 0

    def ask(self) -> None:
        self.socket.sendall(self._request)

    def read(self, buffer: bytearray) -> bool:
        """Take in what is there. :return: whether the answer is whole now."""
        count = self.socket.recv_into(buffer)
        if not count:
            raise ConnectionError("closed in the middle of an answer")
        if self._missing:
            self._missing -= count
        else:
            self._head += buffer[:count]
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            length = _LENGTH.search(head)
            if length is None or head.split(b" ", 2)[1:2] != [b"200"]:
                raise ConnectionError(f"unexpected answer: {head[:500]!r}")
            self._missing = int(length[1]) - len(rest)
            self._head = b""
        if self._missing < 0:
            raise ConnectionError("more bytes than the answer has")
        return not self._missing


def work(
    url: str, host: str, connections: int, seconds: float | None, requests: int
) -> dict[str, float]:
    """Ask until the time is over, or so many answers are there.

    :param seconds: ``None``: until ``requests`` (at least one a connection) are done.
    """
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")
    port = parts.port or 80
    every = [Connection(parts.hostname, port, request) for _ in range(connections)]
    buffer = bytearray(_BLOCK)
    done = 0
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for connection in every:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask()
        while True:
            ready = selector.select(timeout=60)
            if not ready:
                raise ConnectionError("no answer for a minute")
            for key, _ in ready:
                if key.data.read(buffer):
                    done += 1
                    if seconds is not None or done + len(every) <= requests:
                        key.data.ask()
            now = time.perf_counter()
            if done >= requests if seconds is None else now - began >= seconds:
                return {"requests": done, "seconds": now - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--host", default="localhost", help="the Host field")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--requests", type=int, default=1)
    args = parser.parse_args()
    try:
        print(json.dumps(work(args.url, args.host, args.connections, args.seconds, args.requests)))
    except OSError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
