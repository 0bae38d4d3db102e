"""Peak memory of a server's worker, above what it has when idle, for one large download.

Without the filter, at the first download with it (a miss), and at the second
(a hit). Each has a new server, since a process keeps memory that it had. The
image is sparse: it takes no room, and its copy in the cache does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import _harness as harness
from _harness import GIB, MIB, Row, Server

NAME = "image.bin"


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=3)
    parser.add_argument("--size", type=harness.positive, default=2 * GIB // MIB, help="MiB")
    args = parser.parse_args(argv)
    rounds, size = (1, 256 * MIB) if args.quick else (args.rounds, args.size * MIB)
    figures: dict[str, list[float]] = {"app": [], "miss": [], "hit": []}
    for number in range(rounds):
        # The image itself and its copy in the cache have the same length.
        with harness.workplace(args.dir, size + GIB) as place:
            (place / "images").mkdir()
            (place / "images" / "small.bin").write_bytes(bytes(1000))
            with open(place / "images" / NAME, "wb") as file:
                os.truncate(file.fileno(), size)
            turns = [("images", "app"), ("cached", "miss"), ("cached", "hit")]
            # Never the hit before the miss.
            for app, name in turns if number % 2 == 0 else [*turns[1:], turns[0]]:
                with _start(app, place) as server:
                    idle = _warmed(server)
                    if name == "hit":
                        _must_be_cached(server)
                    figures[name].append(_rise(server, idle))
    rows = [
        Row(f"miss of {harness.human(size)}", "MiB", figures["app"], figures["miss"], "itself", 32),
        Row(f"hit of {harness.human(size)}", "MiB", figures["app"], figures["hit"], "itself", 32),
    ]
    harness.report("memory", "the same download without the filter", rows, args)


def _start(app: str, place: Path) -> contextlib.AbstractContextManager[Server]:
    settings = {"BENCH_IMAGES": str(place / "images"), "BENCH_CACHE": str(place / "cache")}
    return harness.gunicorn(app, settings, place / f"{app}.log")


def _worker(server: Server) -> int:
    _, worker = harness.process_tree(server.process.pid)
    return worker


def _warmed(server: Server) -> int:
    """Let the worker load what it needs. :return: its memory then, in bytes."""
    for _ in range(3):
        server.get("/small.bin")
    return harness.memory(_worker(server), "VmRSS")


def _must_be_cached(server: Server) -> None:
    status = server.get(f"/{NAME}", "HEAD").headers["Cache-Status"]
    if status != "cachemw; hit":
        raise server.failed(f"the image was not stored: {status}")


def _rise(server: Server, idle: int) -> float:
    worker = _worker(server)
    harness.forget_peak(worker)
    harness.download(server.url(f"/{NAME}"))
    return (harness.memory(worker, "VmHWM") - idle) / MIB


if __name__ == "__main__":
    harness.run(main)
