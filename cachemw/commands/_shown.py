"""Values as people read them on a terminal.

Pure: the time, the zone apart, and the width come in as arguments.

Imports: nothing of ours.
"""

from __future__ import annotations

import time
from typing import Any

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")

#: Stands for what is not known, or not there.
NOTHING = "-"


def text(value: Any, encoding: str = "utf-8") -> str:
    r"""Give a text with everything escaped that is no visible character: ``\x1b``, ``\u202e``.

    An id is whatever a client made of it, and a terminal obeys what it is sent. The escapes
    are those of Python; a backslash is written twice, so that no two ids look the same.
    """
    string = NOTHING if value is None else str(value)
    return line(string.replace("\\", "\\\\"), encoding)


def line(string: str, encoding: str = "utf-8") -> str:
    """Give a text of ours as one line, with what an id brought into it escaped."""
    if not string.isprintable():
        string = "".join(map(_escaped, string))
    return string.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def size(value: float | None) -> str:
    """Give bytes in the largest unit that leaves one or more: ``1.5 GiB``."""
    if value is None:
        return NOTHING
    if abs(value) < 1024:
        return f"{value:.0f} B"
    unit = ""
    for unit in _UNITS:  # noqa: B007 (the one it ends with is needed)
        value /= 1024
        if abs(value) < 1023.95:
            break
    return f"{value:.1f} {unit}"


def number(value: float | None) -> str:
    """Give a count with its thousands set apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def per_second(value: float | None) -> str:
    """Give how often something happens, with one digit after the point where that says much."""
    if value is None:
        return NOTHING
    return f"{value:.1f}" if value < 100 else number(value)


def percent(share: float | None) -> str:
    """Give a share of one; rounded down, so that nothing is called whole that is not."""
    return NOTHING if share is None else f"{int(share * 100)} %"


def moment(seconds: float | None) -> str:
    """Give a time of day, with its day, where this machine is."""
    if seconds is None:
        return NOTHING
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return NOTHING


def duration(seconds: float | None) -> str:
    """Give seconds in the two largest units: ``2 h 05 min``."""
    if seconds is None:
        return NOTHING
    whole = int(max(seconds, 0.0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def bar(share: float | None, width: int) -> str:
    """Draw a share of one, ``width`` characters wide; ``None``: nobody knows."""
    inside = max(width - 2, 0)
    if share is None:
        return f"[{'?' * inside}]"
    full = int(min(max(share, 0.0), 1.0) * inside)
    return f"[{'#' * full}{'.' * (inside - full)}]"


def clipped(string: str, width: int) -> str:
    """Shorten a text to ``width`` characters, in its middle: ids often differ at their ends."""
    if len(string) <= width:
        return string
    if width < 5:
        return string[:width]
    head = (width - 2) // 2
    return f"{string[:head]}..{string[len(string) - (width - 2 - head) :]}"
