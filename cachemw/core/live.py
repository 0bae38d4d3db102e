"""Which fills are under way, in every process: each tells of its own about once a second.

``docs/formats/cache-directory.rst`` is the authority for the files. What is not
told again in a few seconds is not so any more.

Imports: concurrency, metrics.counters.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any, TypedDict

from .. import concurrency
from ..metrics.counters import FOLDER

log = concurrency.get_logger(__name__)

#: What ends the name of a process's file; before it stands the process's number.
SUFFIX = ".live"

#: Seconds after which a process that told nothing is taken for dead.
_STALE = 5.0

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class Row(TypedDict):
    """One fill under way.

    :ivar received: bytes that came.
    :ivar length: bytes of the image; ``None``: the app did not say.
    :ivar followers: requests that read along, besides the one that asked the app.
    :ivar since: when it began, seconds since the epoch; 0: it is another process's.
    """

    image_id: str
    received: int
    length: int | None
    followers: int
    since: float


def tell(directory: str, rows: Sequence[Row], now: float) -> None:
    """Say which fills this process has under way, in place of what it said before.

    :param directory: the cache directory.
    :raises OSError: it cannot be written.
    """
    folder = os.path.join(directory, FOLDER)
    path = os.path.join(folder, f"{os.getpid()}{SUFFIX}")
    if not rows:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    temporary = os.path.join(folder, f".{os.getpid()}{SUFFIX}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps({"time": now, "fills": list(rows)}).encode())
    os.rename(temporary, path)


def rows(directory: str, now: float) -> list[Row]:
    """Give the fills that all processes have under way, each once, the oldest first.

    :raises OSError: the files cannot be read.
    """
    told = [one for _, one in _files(directory) if now - one["time"] <= _STALE]
    return together([row for one in told for row in one["fills"]])


def together(found: Sequence[Row]) -> list[Row]:
    """Add the followers in other processes to each fill's own; the oldest first."""
    elsewhere = collections.Counter[str]()
    for row in found:
        if not row["since"]:
            elsewhere[row["image_id"]] += row["followers"]
    led = sorted(
        (row for row in found if row["since"]), key=lambda row: (row["since"], row["image_id"])
    )
    for row in led:
        row["followers"] += elsewhere.pop(row["image_id"], 0)
    return led


def forget_dead(directory: str, now: float) -> None:
    """Remove what processes told that are no more. Never raises."""
    with contextlib.suppress(OSError):
        for name, told in _files(directory):
            if now - told["time"] > 60 * _STALE:
                os.unlink(os.path.join(directory, FOLDER, name))


def _files(directory: str) -> list[tuple[str, dict[str, Any]]]:
    """Read every process's file; what is not ours counts as told long ago."""
    folder = os.path.join(directory, FOLDER)
    try:
        names = [name for name in os.listdir(folder) if name.endswith(SUFFIX) and name[0] != "."]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        told: dict[str, Any] = {"time": 0.0, "fills": []}
        try:
            with open(os.open(os.path.join(folder, name), os.O_RDONLY | _FLAGS), "rb") as file:
                data = json.loads(file.read())
            told = {"time": float(data["time"]), "fills": list(map(_row, data["fills"]))}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.info("%s cannot be read: %s", name, exc)
        found.append((name, told))
    return found


def _row(data: dict[str, Any]) -> Row:
    length = data["length"]
    return Row(
        image_id=str(data["image_id"]),
        received=int(data["received"]),
        length=None if length is None else int(length),
        followers=int(data["followers"]),
        since=float(data["since"]),
    )
