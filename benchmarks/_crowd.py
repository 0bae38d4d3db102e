"""Many clients in one process that reads and throws away, as cheaply as can be.

``python _crowd.py URL... --count 100`` asks all at once, the URLs by turns,
and prints a line of JSON: for each client ``began``, ``first`` and ``done``, when
it asked, and when its first byte of the body and its last one came (seconds of the monotonic clock,
which all processes share), and ``bytes``. ``--rate`` makes them slow.
An answer that breaks off, or another status than 200 or 206, ends it with status 1.

Bytes are dropped in the kernel (tcp(7), MSG_TRUNC), so that the clients take
next to nothing of the processors that they share with what is measured.

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
from collections.abc import Sequence

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_BLOCK = 4 * 2**20

#: Seconds without a byte for anybody after which something is wrong.
_PATIENCE = 120


class Client:
    """One request: its head is read, its body is counted."""

    def __init__(self, url: str, host: str, part: str | None, rate: float | None) -> None:
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        if rate:
            # Else the kernel takes megabytes in advance for it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect((parts.hostname or "", parts.port or 80))
        fields = f"Host: {host}\r\nConnection: close\r\n"
        if part:
            fields += f"Range: bytes={part}\r\n"
        self._request = f"GET {parts.path} HTTP/1.1\r\n{fields}\r\n".encode("ascii")
        self._head: bytes | None = b""
        self._missing = 0
        self.began = self.first = self.done = 0.0
        self.bytes = 0

    def ask(self) -> None:
        self.began = time.monotonic()
        self.socket.sendall(self._request)

    def read(self, buffer: bytearray, size: int = _BLOCK) -> bool:
        """Take in what is there. :return: whether the answer is whole now."""
        if self._head is not None:
            block = self.socket.recv(65536)
            if not block:
                raise ConnectionError(f"closed after {self._head!r}")
            head, end, rest = (self._head + block).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return False
            self._take_head(head)
            count = len(rest)
        else:
            count = self.socket.recv_into(buffer, size, socket.MSG_TRUNC)
            if not count:
                raise ConnectionError(f"closed with {self._missing} bytes missing")
        if count and not self.first:
            self.first = time.monotonic()
        self.bytes += count
        self._missing -= count
        if self._missing <= 0:
            self.done = time.monotonic()
        return self._missing <= 0

    def _take_head(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        if length is None or head.split(b" ", 2)[1] not in (b"200", b"206"):
            raise ConnectionError(f"unexpected answer: {head[:300]!r}")
        self._missing, self._head = int(length[1]), None


def work(clients: Sequence[Client]) -> None:
    """Read all answers to their end, whoever has something."""
    buffer = bytearray(_BLOCK)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.ask()
        while selector.get_map():
            ready = selector.select(timeout=_PATIENCE)
            if not ready:
                raise ConnectionError("nothing came for too long")
            for key, _ in ready:
                if key.data.read(buffer):
                    selector.unregister(key.fileobj)


def work_slowly(client: Client, rate: float) -> None:
    """Read one answer at so many bytes per second."""
    buffer = bytearray(_BLOCK)
    client.socket.settimeout(_PATIENCE)
    client.ask()
    began = time.monotonic()
    while not client.read(buffer, 64 * 1024):
        time.sleep(max(0.0, began + client.bytes / rate - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--host", default="localhost", help="the Host field")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--range", dest="part", help="first-last, in bytes")
    parser.add_argument("--rate", type=float, help="bytes per second; one client only")
    args = parser.parse_args()
    try:
        clients = [
            Client(args.urls[number % len(args.urls)], args.host, args.part, args.rate)
            for number in range(args.count)
        ]
        if args.rate:
            work_slowly(clients[0], args.rate)
        else:
            work(clients)
    except OSError as exc:
        sys.exit(str(exc))
    names = ("began", "first", "done", "bytes")
    print(json.dumps([{name: getattr(client, name) for name in names} for client in clients]))


if __name__ == "__main__":
    main()
