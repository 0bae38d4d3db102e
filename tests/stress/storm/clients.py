"""Two hundred clients that do everything one can do with an image.

Each byte that comes is checked as it comes. The rule for versions: whoever asks
after a DELETE was answered gets the version that it made, or a later one.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections import Counter

from . import content
from .judge import Failure
from .wire import Broken, Request

#: What clients do, and how often.
OPERATIONS = {
    "whole": 36,
    "range": 18,
    "parts": 5,
    "resume": 5,
    "unchanged": 8,
    "head": 5,
    "leave": 12,
    "fresh": 5,
    "slow": 4,
    "delete": 2,
}

#: Longest of several parts, bytes: they are looked at when all have come.
LONGEST_PART = 100_000

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Wrong(Exception):
    """An answer that nobody may get."""


class Clients:
    """The clients, and what they saw.

    :param address: of the server.
    :ivar seen: how often what was done, and what came of it.
    :ivar wrong: answers that nobody may get, in words.
    :ivar failures: requests that did not get what they asked for.
    :ivar hits: for each image, the answers that count as a hit.
    :ivar unseen: for each image, the requests of which it cannot be told.
    """

    def __init__(self, address: tuple[str, int], seed: str) -> None:
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.failures: list[Failure] = []
        self.hits: Counter[int] = Counter()
        self.unseen: Counter[int] = Counter()
        self._address = address
        self._seed = seed
        #: For each image, the oldest version that an answer to a new request may have.
        self.floors = [0] * content.IMAGES
        self._last = [0] * content.IMAGES

    async def storm(self, count: int, seconds: float) -> None:
        """Let so many clients loose."""
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._be_client(number, deadline))

    async def _be_client(self, client: int, deadline: float) -> None:
        choice = random.Random(f"client {client} {self._seed}")
        names, weights = list(OPERATIONS), list(OPERATIONS.values())
        while time.monotonic() < deadline and not self.wrong:
            await self.do(choice.choices(names, weights)[0], _wanted(choice), choice)

    async def do(self, operation: str, number: int, choice: random.Random) -> None:
        """Do one thing, and note what came of it."""
        attempt = _Attempt(self, operation, number, choice)
        self.seen[operation] += 1
        try:
            await attempt.run()
        except Wrong as exc:
            self.wrong.append(f"seed {self._seed}, {operation} of image {number}: {exc}")
        except TimeoutError:
            # Nothing excuses it: whoever is killed or cut off is seen to be gone.
            self.wrong.append(str(attempt.failure(f"seed {self._seed}, {operation}: it hangs")))
        except Broken as exc:
            self.seen["failed"] += 1
            self.failures.append(attempt.failure(f"{operation}: {exc}"))

    def note_head(self, request: Request, number: int) -> None:
        """Count what an answer says of itself."""
        cache_status = request.headers.get("cache-status", "").removeprefix("cachemw; ")
        self.seen[f"{request.status} {cache_status}"] += 1
        # What the origin confirmed is sent from the cache as well.
        if cache_status.startswith("hit") or cache_status.endswith("fwd-status=304"):
            self.hits[number] += 1

    def learn(self, number: int, version: int) -> None:
        self._last[number] = version

    def last(self, number: int) -> int:
        """Give a version that there was lately."""
        return self._last[number]


def _wanted(choice: random.Random) -> int:
    """Choose an image: mostly one that everybody wants, and those are of every size."""
    if choice.random() < 0.25:
        return choice.randrange(content.IMAGES)
    rank = min(int(choice.paretovariate(0.8)) - 1, content.IMAGES - 1)
    return rank * 17 % content.IMAGES


class _Attempt:
    """One request."""

    def __init__(
        self, clients: Clients, operation: str, number: int, choice: random.Random
    ) -> None:
        self._clients = clients
        self._operation = operation
        self._number = number
        self._choice = choice
        self._began = time.monotonic()
        self._floor = clients.floors[number]
        self._size = content.SIZES[number]
        self._request: Request | None = None
        self._pause = 0.0
        self._leave_at: int | None = None
        self._asked: list[tuple[int, int]] = []

    async def run(self) -> None:
        method = {"head": "HEAD", "delete": "DELETE"}.get(self._operation, "GET")
        target = content.target(self._number)
        request = Request(self._clients._address, method, target, self._prepare())
        async with request:
            self._request = request
            try:
                await request.read_head()
            except (Broken, TimeoutError):
                self._clients.unseen[self._number] += 1
                raise
            self._clients.note_head(request, self._number)
            await self._judge(request)

    def failure(self, what: str) -> Failure:
        headers = self._request.headers if self._request else {}
        return Failure(
            what,
            self._number,
            self._began,
            time.monotonic(),
            self._request.status if self._request else None,
            int(headers["x-worker"]) if "x-worker" in headers else None,
            int(headers["x-answer"]) if "x-answer" in headers else None,
        )

    # What is asked

    def _prepare(self) -> dict[str, str]:
        """Choose the particulars. :return: the request's own fields."""
        make = getattr(self, f"_ask_{self._operation}", dict)
        return make()

    def _ask_range(self) -> dict[str, str]:
        self._asked = [self._some_range(self._size)]
        start, stop = self._asked[0]
        return {"Range": f"bytes={start}-{stop - 1}"}

    def _ask_parts(self) -> dict[str, str]:
        self._asked = [self._some_range(LONGEST_PART) for _ in range(self._choice.randint(2, 4))]
        return {"Range": "bytes=" + ", ".join(f"{a}-{b - 1}" for a, b in self._asked)}

    def _ask_resume(self) -> dict[str, str]:
        tag = content.tag(self._number, self._clients.last(self._number))
        return {**self._ask_range(), "If-Range": tag}

    def _ask_unchanged(self) -> dict[str, str]:
        return {"If-None-Match": content.tag(self._number, self._clients.last(self._number))}

    def _ask_fresh(self) -> dict[str, str]:
        return {"Cache-Control": "no-cache"}

    def _ask_leave(self) -> dict[str, str]:
        self._leave_at = self._choice.randrange(self._size)
        return {}

    def _ask_slow(self) -> dict[str, str]:
        self._pause = self._choice.uniform(0.02, 0.15)
        return {}

    def _some_range(self, longest: int) -> tuple[int, int]:
        start = self._choice.randrange(self._size)
        return start, self._choice.randint(start + 1, min(self._size, start + longest))

    # What comes

    async def _judge(self, request: Request) -> None:
        status = request.status
        if status is not None and status >= 500:
            # The origin's own error, or the proxy's in its place.
            raise Broken(f"status {status}")
        if self._operation == "delete" and status == 204:
            made = int(request.headers["x-version"])
            floors = self._clients.floors
            floors[self._number] = max(floors[self._number], made)
            return
        allowed = {"unchanged": (200, 304), "range": (200, 206), "parts": (200, 206)}
        allowed["resume"] = allowed["range"]
        if status not in allowed.get(self._operation, (200,)):
            raise Wrong(request.described())
        version = self._version(request)
        if status == 304 and version != content.parse_tag(self._given("If-None-Match"))[1]:
            raise Wrong(f"a 304 about version {version} for {self._given('If-None-Match')}")
        if status == 206:
            await self._read_part(request, version)
        elif status == 200:
            await self._read_whole(request, version)

    def _given(self, name: str) -> str:
        assert self._request is not None
        return self._request.fields[name]

    def _version(self, request: Request) -> int:
        """Which version it is, if it may be that."""
        try:
            number, version = content.parse_tag(request.headers.get("etag", ""))
        except ValueError as exc:
            raise Wrong(f"{exc}: {request.described()}") from exc
        if number != self._number:
            raise Wrong(f"it is image {number}: {request.described()}")
        if version < self._floor:
            raise Wrong(
                f"version {version}, though {self._floor} was made before it was asked for: "
                f"{request.described()}"
            )
        self._clients.learn(number, version)
        return version

    async def _read_whole(self, request: Request, version: int) -> None:
        size = content.size(self._number, version)
        length = request.headers.get("content-length")
        if length is not None and int(length) != size:
            raise Wrong(f"length {length}, expected {size}: {request.described()}")
        self._check_digest(request, version)
        if self._operation == "head":
            return
        came = await self._read(request, version, 0, size)
        if came != size and self._leave_at is None:
            raise Wrong(f"complete with {came} bytes, expected {size}: {request.described()}")

    def _check_digest(self, request: Request, version: int) -> None:
        value = request.headers.get("repr-digest")
        if value is None:
            return
        expected = base64.b64encode(content.digest(self._number, version)).decode()
        if value != f"sha-256=:{expected}:":
            raise Wrong(f"digest {value}, expected {expected}: {request.described()}")

    async def _read_part(self, request: Request, version: int) -> None:
        if self._operation == "resume":
            given = self._given("If-Range")
            if given != content.tag(self._number, version):
                raise Wrong(f"a part of version {version}, asked for if {given}")
        boundary = request.headers["content-type"].partition("boundary=")[2].strip('"')
        if boundary:
            body = b"".join([data async for data in request.body()])
            self._check_parts(body, boundary.encode(), version)
            return
        start, stop = self._extent(request.headers.get("content-range", ""), version)
        if (start, stop) != (min(self._asked)[0], max(last for _, last in self._asked)):
            raise Wrong(f"bytes {start} to {stop}, asked for {self._asked}: {request.described()}")
        came = await self._read(request, version, start, stop)
        if came != stop - start:
            raise Wrong(f"complete with {came} bytes: {request.described()}")

    def _check_parts(self, body: bytes, boundary: bytes, version: int) -> None:
        covered = []
        opening = b"--" + boundary
        # What random bytes hold is no boundary: it is as long as they are unlikely.
        pieces = (b"\r\n" + body).split(b"\r\n" + opening)
        if pieces[0] or not pieces[-1].startswith(b"--"):
            raise Wrong(f"a multipart body without beginning or end: {body[:200]!r}")
        for piece in pieces[1:-1]:
            head, _, data = piece.partition(b"\r\n\r\n")
            match = re.search(rb"(?i)content-range: *([^\r\n]*)", head)
            start, stop = self._extent(match[1].decode() if match else "", version)
            if stop - start != len(data):
                raise Wrong(f"a part {start} to {stop} of {len(data)} bytes")
            self._compare(version, start, data)
            covered.append((start, stop))
        for start, stop in self._asked:
            if not any(first <= start and stop <= last for first, last in covered):
                raise Wrong(f"parts {covered}, asked for {self._asked}")

    def _extent(self, text: str, version: int) -> tuple[int, int]:
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None or int(match[3]) != content.size(self._number, version):
            raise Wrong(f"Content-Range {text!r} of version {version}")
        return int(match[1]), int(match[2]) + 1

    async def _read(self, request: Request, version: int, start: int, stop: int) -> int:
        """Read and check. :return: how many bytes came."""
        at, pauses = start, 20
        async for data in request.body():
            if at + len(data) > stop:
                raise Wrong(f"more than the bytes {start} to {stop}: {request.described()}")
            self._compare(version, at, data)
            at += len(data)
            if self._leave_at is not None and at - start > self._leave_at:
                request.leave()
                break
            if self._pause and pauses:
                pauses -= 1
                await asyncio.sleep(self._pause)
        return at - start

    def _compare(self, version: int, start: int, data: bytes) -> None:
        place = content.first_difference(self._number, version, start, data)
        if place is not None:
            found = data[place - start : place - start + 16]
            expected = b"".join(content.chunks(self._number, version, place, place + len(found)))
            assert self._request is not None
            raise Wrong(
                f"wrong bytes at {place} of version {version}: {found.hex()}, expected "
                f"{expected.hex()}: {self._request.described()}"
            )
