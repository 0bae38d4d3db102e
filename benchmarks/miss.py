"""The first download of a large image through the filter against the app alone.

The app hands over its file, which the server sends by sendfile; a second row
compares with the same app read in blocks, as most origins are. In the same
rounds, as measures of the machine: reading and hashing as many bytes in one
thread, writing them with fsync, and a cache that syncs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import _harness as harness
from _harness import GIB, MIB, Row, Server

#: Empties a cache directory, in a process of its own.
_EMPTY = """
import sys
from cachemw import ImageCache
cache = ImageCache(dir=sys.argv[1], driver="sqlite")
cache.delete_all_cached_images()
cache.close()
"""

NAME = "image.bin"


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=5)
    parser.add_argument("--size", type=harness.positive, default=GIB // MIB, help="MiB")
    args = parser.parse_args(argv)
    rounds, size = (2, 64 * MIB) if args.quick else (args.rounds, args.size * MIB)
    with harness.workplace(args.dir, 3 * size + GIB) as place, contextlib.ExitStack() as stack:
        (place / "images").mkdir()
        source = harness.make_file(place / "images" / NAME, size)
        # What was just made goes to the disk now, and not during the first round.
        os.sync()

        def start(app: str, durability: str) -> Server:
            settings = {
                "BENCH_IMAGES": str(place / "images"),
                "BENCH_CACHE": str(place / f"cache-{durability}"),
                "BENCH_DURABILITY": durability,
            }
            log = place / f"{app}-{durability}.log"
            return stack.enter_context(harness.gunicorn(app, settings, log))

        app, slower = start("images", "-"), start("iterated", "-")
        data, none = start("cached", "data"), start("cached", "none")
        for server in (app, slower, data, none):
            server.get("/")
        app.get(f"/{NAME}")
        figures = harness.in_turns(
            rounds,
            {
                name: _with_memory(size, measure)
                for name, measure in {
                    "app": lambda: harness.download(app.url(f"/{NAME}")),
                    "slower": lambda: harness.download(slower.url(f"/{NAME}")),
                    "data": _first_download(data, place / "cache-data"),
                    "none": _first_download(none, place / "cache-none"),
                    "hash": harness.timed(lambda: _hash(source)),
                    "write": harness.timed(lambda: _copy(source, place / "copy")),
                }.items()
            },
        )
    rows = [
        Row("first download", "s", figures["app"], figures["data"], goal=1.5),
        Row("first download, app without sendfile", "s", figures["slower"], figures["data"]),
        Row("first download, durability=none", "s", figures["app"], figures["none"]),
        Row("read and sha256, one thread", "s", figures["app"], figures["hash"]),
        Row("read, write and fsync", "s", figures["app"], figures["write"]),
    ]
    reference = f"{harness.human(size)} from the app without the filter, by sendfile"
    harness.report("miss", reference, rows, args)


def _with_memory(size: int, measure: Callable[[], float]) -> Callable[[], float]:
    def warmed() -> float:
        # Or at most half of what is free: other programs use this machine too.
        harness.warm_memory(min(3 * size, harness.free_memory() // 2))
        return measure()

    return warmed


def _first_download(server: Server, cache: Path) -> Callable[[], float]:
    def measure() -> float:
        seconds = harness.download(server.url(f"/{NAME}"))
        status = server.get(f"/{NAME}").headers["Cache-Status"]
        if status != "cachemw; hit":
            raise server.failed(f"the image was not stored: {status}")
        subprocess.run([sys.executable, "-c", _EMPTY, str(cache)], check=True)
        return seconds

    return measure


def _hash(path: Path) -> None:
    digest = hashlib.sha256(usedforsecurity=False)
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])


def _copy(source: Path, target: Path) -> None:
    buffer = bytearray(MIB)
    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as copy:
        while count := file.readinto(buffer):
            copy.write(memoryview(buffer)[:count])
        os.fsync(copy.fileno())
    target.unlink()


if __name__ == "__main__":
    harness.run(main)
