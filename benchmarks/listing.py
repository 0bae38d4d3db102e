"""Listing a cache of many images through the management API (sqlite), beside os.scandir.

Each request is answered in this process, with its JSON, as a server would
have it answered. The reference is reading the names of the same directory,
in the same round.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _filled
import _harness as harness
from _harness import KIB, BenchmarkError, Row

from cachemw import ImageCache
from cachemw.web.manage import ManagementApp

#: Seconds that a page or a search may take at 100,000 entries.
GOAL = 0.2

#: What is asked for: a page as the dashboard has it, unless the words say otherwise.
REQUESTS = {
    "the first page by id": "limit=50",
    "the first page by id, backwards": "limit=50&sort=image_id:desc",
    "a page in the middle, by id": "limit=50&marker=MIDDLE",
    "the first page by last access": "limit=50&sort=last_accessed:desc",
    "the first page by size": "limit=50&sort=size:desc",
    "the first page by hits": "limit=50&sort=hits:desc",
    "a page in the middle, by hits": "limit=50&sort=hits:desc&marker=MIDDLE",
    "a search that finds a few": "limit=50&search=RARE",
    "a search that finds many, by size": "limit=50&search=debian&sort=size:desc",
    "a search that finds nothing": "limit=50&search=nowhere",
}

_NAMES = ("debian", "ubuntu", "fedora", "windows", "talos")


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=5)
    parser.add_argument("--entries", type=harness.positive, default=100_000)
    args = parser.parse_args(argv)
    rounds, entries = (1, 2000) if args.quick else (args.rounds, args.entries)
    with harness.workplace(args.dir, entries * 12 * KIB, 2 * entries) as place:
        cache = _filled.fill(place / "cache", map(_name, range(entries)))
        _use(cache, entries)
        app = ManagementApp(cache)
        words = {"MIDDLE": _name(entries // 2), "RARE": f"{entries // 3:07}"[:6]}
        measures: dict[str, Callable[[], float]] = {
            "scandir": harness.timed(lambda: _scan(place / "cache", entries))
        }
        for what, query in REQUESTS.items():
            for word, value in words.items():
                query = query.replace(word, value)
            measures[what] = _asking(app, query)
        measures["the whole list"] = _asking(app, "")
        figures = harness.in_turns(rounds, measures)
        cache.close()
    names = figures.pop("scandir")
    in_full = GOAL if entries >= 100_000 else None
    rows = [
        Row(what, "s", names, seconds, "itself", in_full if what in REQUESTS else None)
        for what, seconds in figures.items()
    ]
    rows += [Row(what, "s", names, seconds) for what, seconds in figures.items()]
    harness.report("listing", f"the names of {entries} files by os.scandir", rows, args)


def _name(number: int) -> str:
    return f"{_NAMES[number % len(_NAMES)]}-{number:07}-generic-amd64.qcow2"


def _use(cache: ImageCache, entries: int) -> None:
    """Have some of the images read, so that orders differ."""
    chance = random.Random(entries)
    now = time.time()
    for number in chance.choices(range(entries), k=min(entries, 20_000)):
        cache.driver.record_hit(_name(number), now - number)
    cache.driver.flush_hits()


def _scan(directory: Path, entries: int) -> None:
    with os.scandir(directory) as found:
        if sum(1 for entry in found if entry.name) < entries:
            raise BenchmarkError("files are missing")


def _asking(app: ManagementApp, query: str) -> Callable[[], float]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/v1/cached_images",
        "QUERY_STRING": query,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
    }

    def ask() -> bytes:
        status: list[str] = []
        body = b"".join(app(environ, lambda line, headers: status.append(line)))
        if status != ["200 OK"]:
            raise BenchmarkError(f"{query}: {body.decode()}")
        return body

    found = json.loads(ask())["cached_images"]
    if not found and "nowhere" not in query:
        raise BenchmarkError(f"{query}: nothing is found")
    return harness.timed(ask)


if __name__ == "__main__":
    harness.run(main)
