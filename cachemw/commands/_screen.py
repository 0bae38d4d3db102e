"""What ``top`` shows, as lines: a pure function of a snapshot and the screen's size.

Imports: commands._shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import _shown

#: Windows of the rates, as the snapshot calls them, and their headings.
_WINDOWS = (("10s", "10 s"), ("1m", "1 min"), ("10m", "10 min"))

#: Fewest columns that anything is laid out for.
NARROWEST = 40

#: Rows of each list where nothing says how high the screen is.
_MOST_ROWS = 10


def layout(snapshot: dict[str, Any], width: int, height: int | None = None) -> list[str]:
    """Lay a snapshot out.

    A line that begins a section begins with a letter, every other with a blank, so that the
    caller may tell them apart.

    :param snapshot: as :func:`cachemw.core.statistics.snapshot` gives it.
    :param width: columns.
    :param height: lines, of which none too many are given; ``None``: any number.
    """
    width = max(width, NARROWEST)
    lines = [
        _header(snapshot, width),
        "",
        *_bounds(snapshot, width),
        "",
        *_rates(snapshot),
        "",
        *_outcomes(snapshot),
    ]
    now = snapshot["time"]
    lists = [
        (f"Fills under way: {len(snapshot['fills'])}", snapshot["fills"], _fill),
        ("Hottest images", snapshot["hottest"], _hot),
    ]
    room = math.inf if height is None else height - len(lines) - 2 * len(lists)
    for (title, rows, show), count in zip(
        lists, _shares([len(rows) for _, rows, _ in lists], room), strict=True
    ):
        lines += ["", _title(title, len(rows), count)]
        lines += [show(row, now, width) for row in rows[:count]]
    return [_shown.clipped(line, width) for line in lines[:height]]


def _shares(wanted: Sequence[int], room: float) -> list[int]:
    """Share lines out among lists: each its part, and what one leaves to the next."""
    shares = []
    for place, count in enumerate(wanted):
        part = max(room, 0) / (len(wanted) - place)
        others = sum(wanted[place + 1 :])
        share = min(count, _MOST_ROWS, max(math.floor(min(part, 99)), min(room - others, 99)))
        shares.append(max(int(share), 0))
        room -= shares[-1]
    return shares


def _title(title: str, count: int, shown: int) -> str:
    return f"{title} ({shown} shown)" if 0 < shown < count else title


def _header(snapshot: dict[str, Any], width: int) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot["time"]))
    name = f"cachemw {snapshot['version']}  {_shown.text(snapshot['dir'])}  {snapshot['driver']}"
    room = width - len(clock) - 2
    return f"{_shown.clipped(name, room).ljust(room)}  {clock}"


def _bounds(snapshot: dict[str, Any], width: int) -> list[str]:
    size = snapshot["size"]
    share = size["used"] / size["max"] if size["max"] else 1.0
    free = "" if size["free"] is None else f"  free {_shown.size(size['free'])}"
    waiting = [row for row in snapshot["queue"] if not row.get("set_aside")]
    aside = len(snapshot["queue"]) - len(waiting)
    return [
        "Disk",
        f" {_shown.bar(share, min(width - 40, 42))} {_shown.percent(share)}"
        f" of {_shown.size(size['max'])}{free} (keeps {_shown.size(size['min_free'])})",
        f" images {_shown.number(snapshot['images'])} ({_shown.size(size['entries'])})"
        f"  in parts {_shown.number(snapshot['partial_images'])}"
        f"  queued {len(waiting)}"
        + (f" (set aside {aside})" if aside else "")
        + f"  invalid {len(snapshot['invalid'])}",
    ]


def _rates(snapshot: dict[str, Any]) -> list[str]:
    def row(name: str, key: str, show: Callable[[Any], str]) -> str:
        values = (show(snapshot["rates"][window][key]) for window, _ in _WINDOWS)
        return f" {name:<18}" + "".join(f"{value:>14}" for value in values)

    headings = "".join(f"{heading:>14}" for _, heading in _WINDOWS)
    return [
        f"{'Over the last':<19}{headings}",
        row("requests/s", "requests", _shown.per_second),
        row("hits", "hit_ratio", _shown.percent),
        row("bytes/s", "bytes", _shown.size),
        row("  from the cache", "bytes_cache", _shown.size),
        row("  from the app", "bytes_app", _shown.size),
        row("bytes from cache", "byte_hit_ratio", _shown.percent),
    ]


def _outcomes(snapshot: dict[str, Any]) -> list[str]:
    totals = snapshot["totals"]
    fills, evicted = totals["fills"], totals["evictions"]
    failed = sum(fills["rolled_back"].values())
    return [
        "In all",
        " " + _counts(totals["requests"]),
        f" fills {_shown.number(fills['committed'])}  failed {_shown.number(failed)}"
        f"  evicted {_shown.number(evicted['images'])} ({_shown.size(evicted['bytes'])})"
        f"  damaged {_shown.number(totals['verification_failures'])}",
    ]


def _counts(counts: dict[str, int]) -> str:
    """Give what there is any of; hits and misses always."""
    named = [(name, n) for name, n in counts.items() if n or name in ("hit", "miss")]
    return "  ".join(f"{name} {_shown.number(n)}" for name, n in named)


def _fill(fill: dict[str, Any], now: float, width: int) -> str:
    length, received = fill["length"], fill["received"]
    share = None if length is None else received / length if length else 1.0
    left = None
    if length is not None and fill["rate"]:
        left = max(length - received, 0) / fill["rate"]
    done = f"{_shown.percent(share):>5} of {_shown.size(length):>10}"
    if length is None:
        done = f"{_shown.size(received):>19}"
    facts = (
        f"{_shown.bar(share, 12)} {done} {_shown.size(fill['rate']) + '/s':>12}"
        f" {_shown.duration(left):>11} {'+' + str(fill['followers']):>4}"
    )
    return _with_id(fill["image_id"], facts, width)


def _hot(image: dict[str, Any], now: float, width: int) -> str:
    ago = _shown.duration(max(now - image["last_accessed"], 0.0))
    facts = f"{_shown.number(image['hits']):>9} hits {_shown.size(image['size']):>10} {ago:>11} ago"
    return _with_id(image["image_id"], facts, width)


def _with_id(image_id: str, facts: str, width: int) -> str:
    """Put an id before what is said of it, as long as there is room for."""
    room = max(width - len(facts) - 2, 8)
    return f" {_shown.clipped(_shown.text(image_id), room).ljust(room)} {facts}"
