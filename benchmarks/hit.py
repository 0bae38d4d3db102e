"""Hits through the filter against a bare app that hands out the same file.

Small images: processor time of the server per request. Larger ones: requests,
then bytes, per second. Eight kept connections, one for the largest. The
largest also with ``verify_reads = always``, against a hit without.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import _harness as harness
from _harness import GIB, KIB, MIB, BenchmarkError, Row, Server

CONNECTIONS = 8


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--control", action="store_true", help="the bare app against itself, too")
    args = parser.parse_args(argv)
    seconds, rounds = (1.0, 2) if args.quick else (args.seconds, args.rounds)
    large = 64 * MIB if args.quick else GIB
    sizes = {4 * KIB: "4 KiB", 64 * KIB: "64 KiB", MIB: "1 MiB", large: harness.human(large)}
    rows: list[Row] = []
    with harness.workplace(args.dir, 3 * large) as place:
        (place / "images").mkdir()
        for size, name in sizes.items():
            harness.make_file(place / "images" / _file(name), size)
        for kind in harness.servers():
            with contextlib.ExitStack() as stack:
                apps = ["bare", "cached", "verified", *(["control"] if args.control else [])]
                running = {app: stack.enter_context(_start(kind, app, place)) for app in apps}
                for name in sizes.values():
                    _warm(running, name)
                for mine, title in (("cached", "hit"), ("control", "control")):
                    if mine not in running:
                        continue
                    pair = (running["bare"], running[mine])
                    rows += _compare(f"{kind} {title}", pair, sizes, rounds, seconds)
                pair = (running["cached"], running["verified"])
                title, largest = f"{kind} verified to hit", {large: sizes[large]}
                (row,) = _compare(title, pair, largest, rounds, seconds)
                rows.append(dataclasses.replace(row, goal=0.5))
    harness.report("hit", "a bare app and the server's file wrapper", rows, args)


def _file(name: str) -> str:
    return name.replace(" ", "") + ".bin"


def _start(kind: str, app: str, place: Path) -> contextlib.AbstractContextManager[Server]:
    settings = {"BENCH_IMAGES": str(place / "images"), "BENCH_CACHE": str(place / f"cache-{kind}")}
    wsgi_app = "bare" if app == "control" else app
    return harness.SERVERS[kind](wsgi_app, settings, place / f"{kind}-{app}.log")


def _warm(running: dict[str, Server], name: str) -> None:
    for _ in range(2):
        answers = {app: server.get(f"/{_file(name)}") for app, server in running.items()}
    status = answers["cached"].headers["Cache-Status"]
    if status != "cachemw; hit":
        raise BenchmarkError(f"{name} is not answered from the cache: {status}")


def _compare(
    title: str,
    pair: tuple[Server, Server],
    sizes: dict[int, str],
    rounds: int,
    seconds: float,
) -> list[Row]:
    rows = []
    for size, name in sizes.items():
        path = f"/{_file(name)}"
        kind, goal = "ratio", 0.85
        measures: Sequence[Callable[[], float]]
        if size < 64 * KIB:
            unit, kind, goal = "CPU us/request", "difference", 80.0
            measures = [_Cost(server, path, seconds) for server in pair]
        elif size <= MIB:
            unit = "requests/s"
            measures = [_Rate(server, path, seconds) for server in pair]
        else:
            unit, goal = "MiB/s", 0.95
            measures = [_Speed(server, path, size) for server in pair]
        bare, mine = harness.in_turns(
            rounds, dict(zip(("reference", "measured"), measures, strict=True))
        ).values()
        rows.append(Row(f"{title} {name}", unit, bare, mine, kind, goal, kind == "ratio"))
    return rows


@dataclasses.dataclass
class _Cost:
    """Processor time of the server for each request, in microseconds."""

    server: Server
    path: str
    seconds: float

    def __call__(self) -> float:
        before = self.server.cpu_seconds()
        done = harness.load(self.server.url(self.path), CONNECTIONS, self.seconds)
        return (self.server.cpu_seconds() - before) / done.requests * 1e6


@dataclasses.dataclass
class _Rate:
    """Requests per second."""

    server: Server
    path: str
    seconds: float

    def __call__(self) -> float:
        return harness.load(self.server.url(self.path), CONNECTIONS, self.seconds).rate


@dataclasses.dataclass
class _Speed:
    """MiB per second over one connection."""

    server: Server
    path: str
    size: int

    def __call__(self) -> float:
        return self.size / MIB / harness.download(self.server.url(self.path), times=3)


if __name__ == "__main__":
    harness.run(main)
