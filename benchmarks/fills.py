"""Cold images that many want at once, beside nginx and Varnish.

a: many clients ask for one cold image. b: one of two clients is slow. c: the
end of a cold image is asked for. d: hits whose bytes are all verified. e: many
wait for an origin that sends nothing. The origin is the same for all, and paced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import _caches as caches
import _harness as harness
from _caches import Cache
from _harness import GIB, HERE, MIB, BenchmarkError, Row

#: What a case gives in one round: figures by name.
Round = dict[str, float]

#: Less than this cannot be told from nothing; a ratio needs something to divide by.
LEAST = 1e-4


@dataclasses.dataclass(frozen=True)
class Goal:
    """What one figure of a case is, and what it should be.

    :param limit: for our own figure, not for its ratio to others'; ``None``: there is none.
    :param compared: whether it is compared with the others'.
    """

    unit: str
    limit: float | None = None
    at_least: bool = False
    compared: bool = True


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is: less with ``--quick``."""

    clients: int = 100
    waiting: int = 200
    image: int = 48 * MIB
    large: int = 64 * MIB
    verified: tuple[int, ...] = (64 * MIB, GIB)
    rate: int = 16 * MIB
    rounds: int = 3


QUICK = Scale(20, 20, 8 * MIB, 32 * MIB, (64 * MIB,), 16 * MIB, 1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__ or "", rounds=Scale.rounds)
    parser.add_argument("--only", metavar="A,B", default=",".join(CASES), help="which cases")
    args = parser.parse_args(argv)
    chosen = args.only.split(",")
    if not set(chosen) <= set(CASES):
        parser.error(f"--only: expected some of {','.join(CASES)}")
    scale = QUICK if args.quick else dataclasses.replace(Scale(), rounds=args.rounds)
    rows, failed = [], []
    for name in chosen:
        with harness.workplace(args.dir, 8 * GIB) as place:
            try:
                rows += CASES[name](place, scale)
            except BenchmarkError as exc:
                print(f"case {name}: {exc}", file=sys.stderr)
                failed.append(name)
    reference = "the cache behind the stroke; rows 'itself' have none"
    harness.report("fills", reference, rows, args)
    if failed:
        raise BenchmarkError(f"without figures: {', '.join(failed)}")


# The cases


def many_clients(place: Path, scale: Scale) -> list[Row]:
    """All ask at once; the origin takes a while to send the image."""
    goals = {
        "origin requests": Goal("requests", 1),
        "slowest first byte after the origin's": Goal("s", 0.15),
        "all done / origin's time": Goal("ratio", 1.1),
    }

    def measure(cache: Cache, origin: Origin) -> Round:
        path = origin.image(scale.image, scale.rate)
        clients = crowd(cache.urls(path), scale.clients)
        told = origin.told(path)
        began = told["first"]
        return {
            "origin requests": told["requests"],
            "slowest first byte after the origin's": max(c["first"] for c in clients) - began,
            "all done / origin's time": (max(c["done"] for c in clients) - began)
            / (scale.image / scale.rate),
        }

    systems = [
        caches.ours("one process"),
        caches.ours("four processes", workers=4),
        *others(),
    ]
    what = f"a: {scale.clients} clients, {harness.human(scale.image)}"
    return compare(what, goals, systems, measure, place, scale)


def slow_leader(place: Path, scale: Scale) -> list[Row]:
    """The first client reads slowly; the second one should not notice."""
    goals = {
        "origin requests": Goal("requests", 1, compared=False),
        "fast client / origin's time": Goal("ratio", 1.1),
    }
    rate = 2 * scale.rate

    def measure(cache: Cache, origin: Origin) -> Round:
        path = origin.image(scale.large, rate)
        first, last = cache.urls(path)[0], cache.urls(path)[-1]
        with started_crowd([first], 1, "--rate", str(2 * MIB)) as leader:
            wait_until(lambda: bool(origin.told(path)["first"]), "the origin sends")
            (fast,) = crowd([last], 1)
            if leader.poll() is not None:
                raise BenchmarkError("the slow client has ended before the fast one")
        told = origin.told(path)
        return {
            "origin requests": told["requests"],
            "fast client / origin's time": (fast["done"] - told["first"]) / (scale.large / rate),
        }

    systems = [
        caches.ours("same process"),
        caches.ours("another process", servers=2),
        *others(),
    ]
    what = f"b: slow leader, {harness.human(scale.large)}"
    return compare(what, goals, systems, measure, place, scale)


def last_part(place: Path, scale: Scale) -> list[Row]:
    """A range at the end of a cold image, and the same once more."""
    latency = 0.1
    goals = {
        "time beyond the latency": Goal("s", 0.2),
        "bytes from the origin": Goal("MiB", 2),
        "origin requests for the second": Goal("requests", 0, compared=False),
    }

    def measure(cache: Cache, origin: Origin) -> Round:
        path = origin.image(scale.image, scale.rate, latency)
        part = f"{scale.image - MIB}-{scale.image - 1}"
        (first,) = crowd(cache.urls(path), 1, "--range", part)
        told = origin.told(path)
        crowd(cache.urls(path), 1, "--range", part)
        return {
            "time beyond the latency": first["done"] - first["began"] - latency,
            "bytes from the origin": told["bytes"] / MIB,
            "origin requests for the second": origin.told(path)["requests"] - told["requests"],
        }

    systems = [caches.ours("range_miss=slice", range_miss="slice"), *others(slices=True)]
    what = f"c: last MiB of {harness.human(scale.image)}"
    return compare(what, goals, systems, measure, place, scale)


def verified_hits(place: Path, scale: Scale) -> list[Row]:
    """Hits of which every byte is looked at, against those that are sent as they are."""
    rows = []
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin.running())
        started = {
            kind: stack.enter_context(
                caches.ours(kind, verify_reads=kind)(directory(place, kind), origin.port)
            )
            for kind in ("size", "always")
        }
        for size in scale.verified:
            path = origin.image(size, 0)
            for cache in started.values():
                # Twice: the second is the first hit.
                crowd(cache.urls(path), 1)
                crowd(cache.urls(path), 1)
            figures = harness.in_turns(
                scale.rounds,
                {kind: _speed(cache, path, size) for kind, cache in started.items()},
            )
            if origin.told(path)["requests"] != len(started):
                raise BenchmarkError("some of the hits were none")
            what = f"d: hits of {harness.human(size)}, verify_reads=always against size"
            rows.append(
                Row(what, "MiB/s", figures["size"], figures["always"], goal=0.5, at_least=True)
            )
    return rows


def _speed(cache: Cache, path: str, size: int) -> Callable[[], float]:
    return lambda: size / MIB / harness.download(cache.urls(path)[0], times=3)


def waiting(place: Path, scale: Scale) -> list[Row]:
    """Followers of an origin that has sent a head and sends nothing more."""
    goals = {"processor while they wait": Goal("% of one", 2)}
    seconds = 5.0

    def measure(cache: Cache, origin: Origin) -> Round:
        path = origin.image(scale.image, "silent")
        with started_crowd(cache.urls(path), scale.waiting), origin.releasing(path):
            wait_until(lambda: origin.told(path)["requests"] > 0, "the origin is asked")
            time.sleep(2)  # until all are there, and what begins lazily has begun
            before = cache.cpu_seconds()
            time.sleep(seconds)
            used = cache.cpu_seconds() - before
            if (asked := origin.told(path)["requests"]) != 1:
                # Nothing was shared, so nobody waits for anybody: the figure means nothing.
                raise BenchmarkError(f"{cache.name}: the origin was asked {asked} times")
        return {"processor while they wait": max(used / seconds * 100, LEAST)}

    systems = [caches.ours("one process"), *others()]
    what = f"e: {scale.waiting} followers, silent origin"
    return compare(what, goals, systems, measure, place, scale)


CASES: dict[str, Callable[[Path, Scale], list[Row]]] = {
    "a": many_clients,
    "b": slow_leader,
    "c": last_part,
    "d": verified_hits,
    "e": waiting,
}


# How they are compared


def others(slices: bool = False) -> list[caches.Start]:
    """Give nginx and Varnish, as far as they are installed; the rest is named on stderr."""
    found = []
    for program, name, start in (
        ("nginx", "nginx", caches.nginx(slices)),
        ("varnishd", "Varnish", caches.varnish()),
    ):
        why = caches.missing(program, name)
        if why:
            print(why, file=sys.stderr)
        else:
            found.append(start)
    return found


def compare(
    what: str,
    goals: Mapping[str, Goal],
    systems: Sequence[caches.Start],
    measure: Callable[[Cache, Origin], Round],
    place: Path,
    scale: Scale,
) -> list[Row]:
    """Measure each system in turns.

    :return: our figures with their goals, then their ratios to the others'.
    """
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin.running())
        running = [
            stack.enter_context(start(directory(place, f"system-{number}"), origin.port))
            for number, start in enumerate(systems)
        ]

        for cache in running:
            for server in cache.servers:
                server.get("/")
        time.sleep(2)  # the other workers of a server begin at the same time, and need as long

        def turn(cache: Cache) -> Callable[[], Round]:
            return lambda: measure(cache, origin)

        # The first round does not count: servers start threads when they first need so many.
        turns = harness.in_turns(scale.rounds + 1, {cache.name: turn(cache) for cache in running})
        figures = {name: rounds[1:] for name, rounds in turns.items()}
    return rows_of(what, goals, figures)


def rows_of(
    what: str, goals: Mapping[str, Goal], figures: Mapping[str, Sequence[Round]]
) -> list[Row]:
    """Lay out what was measured.

    :param figures: by system, one a round; nginx's and Varnish's are references only.
    """
    rows = []
    for name, goal in goals.items():
        values = {system: [one[name] for one in rounds] for system, rounds in figures.items()}
        mine = [system for system in values if system not in ("nginx", "Varnish")]
        theirs = [system for system in values if system in ("nginx", "Varnish")]
        for system in mine:
            title = f"{what}: {name}, {system}"
            found = values[system]
            rows.append(Row(title, goal.unit, found, found, "itself", goal.limit, goal.at_least))
            if not goal.compared:
                continue
            for other in theirs:
                reference = [max(value, LEAST) for value in values[other]]
                measured = [max(value, LEAST) for value in found]
                rows.append(Row(f"{title} / {other}", goal.unit, reference, measured))
    return rows


def directory(place: Path, name: str) -> Path:
    made = place / name
    made.mkdir()
    return made


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something outside is so.

    :raises BenchmarkError: it did not happen.
    """
    deadline = time.monotonic() + harness.PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"it did not happen that {what}")
        time.sleep(0.01)


# The origin and the clients


class Origin:
    """The paced origin, in its own process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._images = 0

    @staticmethod
    @contextlib.contextmanager
    def running() -> Iterator[Origin]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "_origin.py")], stdout=subprocess.PIPE, text=True
        )
        with process:
            try:
                assert process.stdout is not None
                yield Origin(int(process.stdout.readline()))
            finally:
                process.terminate()

    def image(self, size: int, rate: int | str, latency: float = 0) -> str:
        """Give the path of an image that nobody has asked for.

        :param rate: bytes per second, 0 for no limit, or ``"silent"``.
        :param latency: seconds before its head.
        """
        self._images += 1
        return f"/{size}-{rate}-{round(latency * 1000)}/{self._images}.img"

    def told(self, path: str) -> dict[str, float]:
        """Ask what happened to a path."""
        found: dict[str, float] = json.loads(self._get(f"/told{path}"))
        return found

    @contextlib.contextmanager
    def releasing(self, path: str) -> Iterator[None]:
        """End the silence when the block ends: the answer breaks off."""
        try:
            yield
        finally:
            self._get(f"/release{path}")

    def _get(self, target: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=harness.PATIENCE)
        try:
            connection.request("GET", target)
            return connection.getresponse().read()
        finally:
            connection.close()


def crowd(urls: Sequence[str], count: int, *options: str) -> list[dict[str, float]]:
    """Have so many clients ask, and wait until all are done.

    :return: of each: ``began``, ``first`` and ``done`` (seconds), ``bytes``.
    :raises BenchmarkError: an answer was not whole.
    """
    done = subprocess.run(
        _command(urls, count, *options), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"clients: {done.stderr.strip()}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def started_crowd(
    urls: Sequence[str], count: int, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Have so many clients ask, and end them afterwards however far they are."""
    process = subprocess.Popen(
        _command(urls, count, *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _command(urls: Sequence[str], count: int, *options: str) -> list[str]:
    script = str(HERE / "_crowd.py")
    return [sys.executable, script, *urls, "--host", harness.HOST, "--count", str(count), *options]


if __name__ == "__main__":
    harness.run(main)
