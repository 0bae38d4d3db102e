"""The origin: a process that has every image, and its bad moments.

``python -m tests.stress.storm.origin LOG SEED`` prints its port and serves
until it gets SIGTERM. ``DELETE`` makes a new version of an image. Each answer
has a number (``X-Answer``), and each a line in the log: what was asked, and
what came of it, so that one can tell afterwards whom a failure excuses.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import signal
import sys
import time
from typing import Any, TextIO

from . import content

#: How often it fails in each way, of all answers to GET.
ERROR, HANG_UP, CUT, SLOW = 0.03, 0.01, 0.04, 0.05

#: Bytes given to the socket at a time.
STEP = 2**18

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class HungUp(Exception):
    """The connection ends here, on purpose."""


class Origin:
    """Serves one connection after the other, and many at once.

    :param log: gets a line for every answer once it is over.
    """

    def __init__(self, log: TextIO, seed: str) -> None:
        self.versions = [0] * content.IMAGES
        self.calm = False
        self._log = log
        self._choice = random.Random(f"origin {seed}")
        self._answers = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head.decode("latin-1"), writer)
        except (OSError, asyncio.IncompleteReadError, HungUp):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        line, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        fields = {
            name.lower(): value for name, _, value in (text.partition(": ") for text in lines)
        }
        if not target.startswith("/images/"):
            self.calm = self.calm or target == "/calm"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        self._answers += 1
        seen = {
            "answer": self._answers,
            "image": content.number_of(target),
            "method": method,
            "range": fields.get("range"),
            "if_range": fields.get("if-range"),
            "again": "x-again" in fields,
            "version": None,
            "began": time.monotonic(),
        }
        reply = _Reply(writer, seen, fields)
        try:
            await self._reply(reply, method)
        except OSError:
            seen["outcome"] = "left"
            raise
        finally:
            seen["ended"] = time.monotonic()
            print(json.dumps(seen), file=self._log, flush=True)

    async def _reply(self, reply: _Reply, method: str) -> None:
        number = reply.seen["image"]
        chance = 1.0 if self.calm else self._choice.random()
        if chance < ERROR:
            await reply.send_error()
        elif method == "DELETE":
            self.versions[number] += 1
            await reply.send_head("204 No Content", [("X-Version", str(self.versions[number]))])
        elif chance < ERROR + HANG_UP and method == "GET":
            reply.hang_up(self._choice.random() < 0.5)
        else:
            faults = {}
            if chance < ERROR + HANG_UP + CUT:
                faults = {"cut": self._choice.random(), "reset": self._choice.random() < 0.5}
            elif chance < ERROR + HANG_UP + CUT + SLOW:
                faults = {"pause": self._choice.uniform(0.01, 0.1)}
            await reply.send_image(number, self.versions[number], method, **faults)


class _Reply:
    """One answer on its way.

    :param seen: its line in the log.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, seen: dict[str, Any], fields: dict[str, str]
    ) -> None:
        self.seen = seen
        self._writer = writer
        self._fields = fields

    async def send_head(self, status: str, fields: list[tuple[str, str]]) -> None:
        self.seen["outcome"] = status[:3]
        fields = [*fields, ("X-Answer", str(self.seen["answer"]))]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "", ""]
        self._writer.write("\r\n".join(lines).encode("latin-1"))
        await self._writer.drain()

    async def send_error(self) -> None:
        length = ("Content-Length", "6")
        await self.send_head("500 Bad Moment", [("Content-Type", "text/plain"), length])
        if self.seen["method"] != "HEAD":
            self._writer.write(b"sorry\n")

    def hang_up(self, reset: bool, outcome: str = "hung up") -> None:
        self.seen["outcome"] = outcome
        if reset:
            self._writer.transport.abort()
        raise HungUp

    async def send_image(
        self,
        number: int,
        version: int,
        method: str,
        cut: float | None = None,
        reset: bool = False,
        pause: float = 0,
    ) -> None:
        """Answer GET or HEAD.

        :param cut: the part of the body after which it breaks off.
        :param pause: seconds between two pieces, some of the time.
        """
        self.seen["version"] = version
        tag, size = content.tag(number, version), content.size(number, version)
        fields = [("ETag", tag), ("Cache-Control", "public, max-age=3600")]
        if self._fields.get("if-none-match") == tag:
            await self.send_head("304 Not Modified", fields)
            return
        fields.append(("Content-Type", "application/octet-stream"))
        fields.append(("Accept-Ranges", "bytes"))
        if number % 4 == 0 and number < 36:
            value = base64.b64encode(content.digest(number, version)).decode()
            fields.append(("Repr-Digest", f"sha-256=:{value}:"))
        if number % 5 == 0:
            fields.append(("X-Notes", "n" * 5000))
        start, stop = self._selected(tag, size)
        status = "200 OK"
        if (start, stop) != (0, size):
            status = "206 Partial Content"
            fields.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
        chunked = number % 3 == 0 and status[:3] == "200"
        fields.append(
            ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(stop - start))
        )
        await self.send_head(status, fields)
        if method == "GET":
            end = stop if cut is None else start + int(cut * (stop - start))
            await self._send_body(number, version, start, end, chunked, pause)
            if cut is not None:
                self.hang_up(reset, "cut")
            if chunked:
                self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()

    def _selected(self, tag: str, size: int) -> tuple[int, int]:
        """Which part is asked for; one of several ranges is no part that we give."""
        match = _RANGE.fullmatch(self._fields.get("range", ""))
        if match is None or self._fields.get("if-range", tag) != tag:
            return 0, size
        if match[1] == "":
            return max(0, size - int(match[2])), size
        return int(match[1]), min(int(match[2] or size) + 1, size)

    async def _send_body(
        self, number: int, version: int, start: int, stop: int, chunked: bool, pause: float
    ) -> None:
        pauses = 10
        while start < stop:
            piece = min(STEP, stop - start)
            if chunked:
                self._writer.write(b"%x\r\n" % piece)
            # Not writelines(): in Python 3.12 and 3.13, after the connection was lost, it has
            # the selector watch a descriptor that is another connection's by then.
            self._writer.write(b"".join(content.chunks(number, version, start, start + piece)))
            if chunked:
                self._writer.write(b"\r\n")
            await self._writer.drain()
            start += piece
            if pause and pauses:
                pauses -= 1
                await asyncio.sleep(pause)


async def main(log: str, seed: str) -> None:
    with open(log, "w") as lines:
        origin = Origin(lines, seed)
        server = await asyncio.start_server(origin.serve, "127.0.0.1", 0, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        server.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
