"""What all processes of a cache directory counted, the dead ones too.

The files of dead processes are added to ``past`` and removed, under a lock.
Whoever is killed in between does no harm: ``past`` names the files that it has
in it already.

Imports: concurrency, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from collections import Counter
from collections.abc import Iterator

from .. import concurrency
from .counters import FOLDER, MAGIC, SUFFIX
from .declared import GAUGES, NAMES

log = concurrency.get_logger(__name__)

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_GAUGES = frozenset(NAMES[place] for place in GAUGES)

#: Names of the file with what is past, and of the one that is locked meanwhile.
_PAST, _LOCK = "past", "lock"


def totals(directory: str) -> dict[str, int]:
    """Add up what was counted for a cache directory since it was made.

    :param directory: the cache directory.
    :return: by the names of :data:`~cachemw.metrics.declared.NAMES`; those which only other
        versions know, too.
    :raises OSError: the files cannot be read.
    """
    found: Counter[str] = Counter(dict.fromkeys(NAMES, 0))
    try:
        folder = os.open(os.path.join(directory, FOLDER), os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    except FileNotFoundError:
        return dict(found)
    try:
        with _locked(folder) as is_writable:
            past, added = _read_past(folder)
            dead: dict[str, dict[str, int]] = {}
            for name in sorted(os.listdir(folder)):
                if not name.endswith(SUFFIX) or name in added:
                    continue
                counts, is_alive = _read(name, folder)
                if is_alive:
                    found.update(counts)
                else:
                    dead[name] = {k: v for k, v in counts.items() if k not in _GAUGES}
            for counts in dead.values():
                past.update(counts)
            if is_writable and (dead or added):
                _put_away(past, [*added, *dead], folder)
            found.update(past)
    finally:
        os.close(folder)
    return dict(found)


@contextlib.contextmanager
def _locked(folder: int) -> Iterator[bool]:
    """Keep others from adding up. :return: whether files may be changed."""
    try:
        fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=folder)
    except PermissionError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(fd)


def _read_past(folder: int) -> tuple[Counter[str], list[str]]:
    """Read what is past: numbers, and the files that are in it."""
    try:
        with open(os.open(_PAST, os.O_RDONLY | _FLAGS, dir_fd=folder), "rb") as file:
            data = json.loads(file.read())
        counts = {str(name): int(value) for name, value in data["counts"].items()}
        return Counter(counts), [str(name) for name in data["added"]]
    except FileNotFoundError:
        return Counter(), []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("earlier statistics cannot be read, and are begun anew: %s", exc)
        return Counter(), []


def _put_away(past: Counter[str], added: list[str], folder: int) -> None:
    """Write what is past, and remove the files that are in it."""
    data = json.dumps({"counts": dict(past), "added": added}).encode()
    try:
        _write(data, folder)
        for name in added:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        _write(json.dumps({"counts": dict(past), "added": []}).encode(), folder)
    except OSError as exc:
        log.warning("statistics of ended processes stay in their files: %s", exc)


def _write(data: bytes, folder: int) -> None:
    temporary = f".{_PAST}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS
    with open(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
    os.rename(temporary, _PAST, src_dir_fd=folder, dst_dir_fd=folder)


def _read(name: str, folder: int) -> tuple[dict[str, int], bool]:
    """Read one process's numbers. :return: them, and whether the process lives."""
    try:
        fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)
    except OSError:
        return {}, True
    with open(fd, "rb") as file:
        is_alive = True
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_alive = False
        except OSError:
            pass
        return _parse(file.read()), is_alive


def _parse(data: bytes) -> dict[str, int]:
    """Read a file's bytes; nothing if they are not ours."""
    line, _, rest = data.partition(b"\n")
    magic, _, length = line.partition(b" ")
    try:
        if magic != MAGIC:
            return {}
        size = int(length)
        names = json.loads(rest[:size])["names"]
        start = -(-(len(line) + 1 + size) // 8) * 8
        return dict(zip(names, struct.unpack_from(f"={len(names)}q", data, start), strict=True))
    except (ValueError, KeyError, TypeError, struct.error):
        return {}
