"""What ``top`` shows, as lines: a pure function of a snapshot and the screen's size.

Imports: commands._shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import _shown

#: Windows of the rates, as the snapshot calls them, and their headings.
_WINDOWS = (("10s", "10 s"), ("1m", "1 min"), ("10m", "10 min"))

#: Fewest columns that anything is laid out for.
NARROWEST = 40

#: Rows of a list, on average, where nothing says how high the screen is.
_MOST_ROWS = 10


def layout(snapshot: dict[str, Any], width: int, height: int | None = None) -> list[str]:
    """Lay a snapshot out.

    A line that begins a section begins with a letter, every other with a blank; nothing else
    tells them apart.

    :param snapshot: as :func:`cachemw.core.statistics.snapshot` gives it.
    :param width: columns.
    :param height: lines, of which none too many are given; ``None``: any number.
    """
    width = max(width, NARROWEST)
    lines = [
        _header(snapshot, width),
        *_bounds(snapshot, width),
        *_rates(snapshot, width),
        *_outcomes(snapshot),
    ]
    fills, hottest, now = snapshot["fills"], snapshot["hottest"], snapshot["time"]
    room = 2 * _MOST_ROWS if height is None else max(height - len(lines) - 2, 0)
    few, most = shares(len(fills), len(hottest), room)
    lines.append(f"Fills under way: {len(fills)}" + (f", {few} shown" if few < len(fills) else ""))
    lines += [_fill(fill, width) for fill in fills[:few]]
    lines.append("Hottest images")
    lines += [_hot(image, now, width) for image in hottest[:most]]
    return [line[:width] for line in lines[:height]]


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """Share lines out to two lists: a half each, and what one leaves to the other."""
    to_first = min(first, max(room // 2, room - second))
    return to_first, min(second, room - to_first)


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
    bounds = (
        f" {_shown.percent(share)} of {_shown.size(size['max'])}{free}"
        f" (keeps {_shown.size(size['min_free'])})"
    )
    return [
        "Disk",
        f" {_shown.bar(share, max(width - len(bounds) - 1, 6))}{bounds}",
        f" images {_shown.number(snapshot['images'])} ({_shown.size(size['entries'])})"
        f"  in parts {_shown.number(snapshot['partial_images'])}"
        f"  queued {len(waiting)}"
        + (f" (set aside {aside})" if aside else "")
        + f"  invalid {len(snapshot['invalid'])}",
    ]


def _rates(snapshot: dict[str, Any], width: int) -> list[str]:
    each = min((width - 18) // len(_WINDOWS), 14)

    def row(name: str, key: str, show: Callable[[Any], str]) -> str:
        values = (show(snapshot["rates"][window][key]) for window, _ in _WINDOWS)
        return f" {name:<17}" + "".join(f"{value:>{each}}" for value in values)

    headings = "".join(f"{heading:>{each}}" for _, heading in _WINDOWS)
    return [
        f"{'Over the last':<18}{headings}",
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


def _fill(fill: dict[str, Any], width: int) -> str:
    length, received = fill["length"], fill["received"]
    share = None if length is None else received / length if length else 1.0
    left = None
    if length is not None and fill["rate"]:
        left = max(length - received, 0) / fill["rate"]
    done = f"{_shown.percent(share):>5} of {_shown.size(length):>10}"
    if length is None:
        done = f"{_shown.size(received):>19}"
    bar = _shown.bar(share, 8 if width < 100 else 22)
    facts = (
        f"{bar} {done} {_shown.size(fill['rate']) + '/s':>12}"
        f" {_shown.duration(left):>11} {'+' + str(fill['followers']):>3}"
    )
    return _with_id(fill["image_id"], facts, width)


def _hot(image: dict[str, Any], now: float, width: int) -> str:
    ago = _shown.duration(max(now - image["last_accessed"], 0.0))
    facts = f"{_shown.number(image['hits']):>9} hits {_shown.size(image['size']):>10} {ago:>11} ago"
    return _with_id(image["image_id"], facts, width)


def _with_id(image_id: str, facts: str, width: int) -> str:
    """Put an id before what is said of it, as long as there is room for."""
    room = max(width - len(facts) - 2, 8)
    # In ASCII: some other characters are two columns wide, and some none.
    shown = _shown.text(image_id, "ascii")
    return f" {_shown.clipped(shown, room).ljust(room)} {facts}"
