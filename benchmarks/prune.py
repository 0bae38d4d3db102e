"""Pruning a cache of many small images; with ``--million``, whether size matters at all.

The reference of a prune is the time that it takes to unlink as many plain
files. With ``--million`` each operation at 1,000,000 entries is compared with
itself at 1,000 (sqlite).
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _filled
import _harness as harness
from _filled import BODY, SIZE
from _harness import GIB, KIB, BenchmarkError, Row

from cachemw import CacheFilter, ImageCache

#: Seconds that pruning 20,000 entries to half may take.
GOALS = {"sqlite": 2.0, "xattr": 4.0}

#: How much more each operation may take with ``--million``. Counts are written in the
#: background; few entries share pages of the index that many do not.
GOALS_GROWTH = {
    "lookup": 1.5,
    "hit in process": 1.5,
    "hit count written": None,
    "commit of 1 KiB": 1.5,
    "eviction of one": 1.5,
}

#: Entries of the small cache of ``--million``, and images that are asked for in either.
FEW, ASKED = 1000, 200

_ROUTE = "/images/(?P<image_id>[^/]+)"


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=3)
    parser.add_argument("--entries", type=harness.positive, default=20_000)
    parser.add_argument(
        "--million", action="store_true", help="compare 1,000 entries with 1,000,000 instead"
    )
    parser.add_argument(
        "--many", type=harness.positive, default=1_000_000, help="entries for --million"
    )
    parser.add_argument(
        "--operations", type=harness.positive, default=250, help="of each kind a round (--million)"
    )
    args = parser.parse_args(argv)
    if args.million:
        _growth(args)
    else:
        _prune(args)


# Pruning


def _prune(args: Any) -> None:
    rounds, entries = (1, 1000) if args.quick else (args.rounds, args.entries)
    rows = []
    with harness.workplace(args.dir, entries * 16 * KIB, 2 * entries) as place:

        def measure(driver: str) -> float:
            cache = _filled.open_cache(place / driver, driver)
            for number in range(entries):
                _commit(cache, f"image-{number:07}")
            began = time.perf_counter()
            removed, _ = cache.prune(entries * SIZE // 2)
            seconds = time.perf_counter() - began
            cache.close()
            shutil.rmtree(place / driver)
            if removed != entries - entries // 2:
                raise BenchmarkError(f"{driver}: {removed} of {entries} entries were pruned")
            return seconds

        figures = harness.in_turns(
            rounds,
            {
                "unlink": lambda: _unlink(place / "plain", entries - entries // 2),
                "sqlite": lambda: measure("sqlite"),
                "xattr": lambda: measure("xattr"),
            },
        )
    for driver, goal in GOALS.items():
        what = f"{driver}: {entries} entries pruned to half"
        in_full = goal if entries == 20_000 else None
        rows.append(Row(what, "s", figures["unlink"], figures[driver], "itself", in_full))
        rows.append(Row(what, "s", figures["unlink"], figures[driver]))
    harness.report("prune", "unlinking as many plain files", rows, args)


def _commit(cache: ImageCache, image_id: str) -> None:
    sink = cache.driver.start_fill(image_id)
    sink.write(BODY)
    sink.commit(_filled.record(image_id))


def _unlink(directory: Path, count: int) -> float:
    directory.mkdir()
    paths = [str(directory / f"image-{number:07}") for number in range(count)]
    for path in paths:
        with open(path, "wb", buffering=0) as file:
            file.write(BODY)
    began = time.perf_counter()
    for path in paths:
        os.unlink(path)
    seconds = time.perf_counter() - began
    directory.rmdir()
    return seconds


# Growth


def _growth(args: Any) -> None:
    rounds = 2 if args.quick else args.rounds
    counts = {"few": FEW, "many": 20_000 if args.quick else args.many}
    operations = min(args.operations, 200 if args.quick else args.operations)
    if rounds * operations > FEW - ASKED:
        raise BenchmarkError("fewer --operations or --rounds: the small cache would run empty")
    with harness.workplace(args.dir, counts["many"] * 12 * KIB + GIB, counts["many"]) as place:
        sizes = {
            name: _Filled(place / name, count, random.Random(count))
            for name, count in counts.items()
        }
        figures: dict[str, dict[str, list[float]]] = {name: {} for name in sizes}
        for number in range(rounds):
            for name in sizes if number % 2 == 0 else reversed(sizes):
                for what, seconds in sizes[name].measure(operations):
                    figures[name].setdefault(what, []).append(seconds * 1e6)
        for filled in sizes.values():
            filled.close()
        rows = [
            Row(
                what,
                "us each",
                figures["few"][what],
                figures["many"][what],
                goal=GOALS_GROWTH[what],
            )
            for what in figures["few"]
        ]
        reference = f"{counts['few']} entries; measured: {counts['many']} entries (sqlite)"
        # Before the directory is removed, which takes a while.
        harness.report("prune --million", reference, rows, args)


class _Filled:
    """A cache filled at once, and the operations that are measured on it."""

    def __init__(self, directory: Path, count: int, chance: random.Random) -> None:
        self.cache = _filled.fill(directory, (f"image-{number:07}" for number in range(count)))
        self._filter = CacheFilter(_no_app, cache=self.cache, routes=_ROUTE, freshness="immutable")
        self._chance = chance
        # The images that are asked for: as many in a large cache as in a small one. Read
        # just now, and so the last to be evicted.
        self._kept = [f"image-{number:07}" for number in chance.sample(range(count), ASKED)]
        for image_id in self._kept:
            self._hit(image_id)
        self.cache.driver.flush_hits()
        self._added = 0

    def close(self) -> None:
        self.cache.close()

    def measure(self, operations: int) -> Iterator[tuple[str, float]]:
        """Give each operation's name with the median of its times, in seconds."""
        present = self._chance.choices(self._kept, k=operations)
        yield "lookup", _median(self._look_up, present)
        yield "hit in process", _median(self._hit, present)
        began = time.perf_counter()
        self.cache.driver.flush_hits()
        yield "hit count written", (time.perf_counter() - began) / len(set(present))
        added = [f"added-{self._added + number:07}" for number in range(operations)]
        self._added += operations
        yield "commit of 1 KiB", _median(self._write, added)
        yield "eviction of one", _median(self._evict, added)

    def _look_up(self, image_id: str) -> None:
        self.cache.driver.open_for_read(image_id).close()

    def _hit(self, image_id: str) -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": f"/images/{image_id}",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
        }
        body = self._filter(environ, lambda status, headers: None)
        received = sum(map(len, body))
        body.close()  # type: ignore[attr-defined]
        if received != SIZE:
            raise BenchmarkError(f"{image_id}: {received} bytes")

    def _write(self, image_id: str) -> None:
        with self.cache.driver.open_for_write(image_id) as sink:
            sink.write(BODY)

    def _evict(self, _: str) -> None:
        if self.cache.driver.evict(1)[0] != 1:
            raise BenchmarkError("nothing was evicted")


def _median(work: Callable[[str], None], image_ids: Sequence[str]) -> float:
    times = []
    for image_id in image_ids:
        began = time.perf_counter()
        work(image_id)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _no_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Sequence[bytes]:
    raise BenchmarkError(f"{environ['PATH_INFO']} is not answered from the cache")


if __name__ == "__main__":
    harness.run(main)
