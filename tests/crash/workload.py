"""What the children that are killed do: fills, replacements, deletes, evictions, without end.

Where the child is stands in a file mapped by both sides: what it writes there
outlives a SIGKILL.
"""

from __future__ import annotations

import functools
import mmap
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachemw import CacheFilter
from cachemw.drivers._files import FileDriver
from cachemw.drivers._sink import FileSink

from . import syncing
from .origin import ROUTES, Origin, download

#: What the child is doing.
IDLE, FILL, EVICT = range(3)

#: Phase, how many fills and evictions were begun, how many responses were complete.
_LAYOUT = struct.Struct("=4Q")

IMAGES = range(12)

#: About half of the images together, so that evictions happen.
OPTIONS: dict[str, Any] = {"max_size": 900_000, "max_image_size": 800_000, "min_free": 0}


class Whereabouts:
    """The mapped file.

    :param path: made if missing.
    """

    def __init__(self, path: Path) -> None:
        with open(path, "a+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._words = memoryview(self._map).cast("Q")

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def enter(self, phase: int) -> int:
        """:return: the phase before."""
        before = self._words[0]
        if phase in (FILL, EVICT) and before != phase:
            self._words[phase] += 1
        self._words[0] = phase
        return before

    def count_response(self) -> None:
        self._words[3] += 1

    def clear(self) -> None:
        for index in range(4):
            self._words[index] = 0

    def close(self) -> None:
        self._words.release()
        self._map.close()


def run(directory: str, driver: str, whereabouts: str, seed: str) -> None:
    """Work until killed; a wrong byte ends the child with a traceback."""
    where = Whereabouts(Path(whereabouts))
    _tell(where)
    syncing.stop()
    app = CacheFilter(Origin(), dir=directory, driver=driver, routes=ROUTES, **OPTIONS)
    choice = random.Random(seed)
    while True:
        number = choice.choice(IMAGES)
        what = choice.random()
        if what < 0.05:
            download(app, number, method="DELETE")
        elif what < 0.15:
            download(app, number, fresh=True, stop_at=choice.random())
        else:
            version = choice.randrange(1000)
            answer = download(app, number, version=version, fresh=what < 0.5)
            answer.assert_right(number)
            where.count_response()


def _tell(where: Whereabouts) -> None:
    """Have fills and evictions say when they begin and end."""

    def around(method: Callable[..., Any], phase: int, after: int | None = None) -> Any:
        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            before = where.enter(phase)
            try:
                return method(*args, **kwargs)
            finally:
                where.enter(before if after is None else after)

        return wrapper

    FileDriver.start_fill = around(FileDriver.start_fill, FILL, FILL)
    FileSink.commit = around(FileSink.commit, FILL, IDLE)
    FileSink.rollback = around(FileSink.rollback, FILL, IDLE)
    FileDriver.evict = around(FileDriver.evict, EVICT)
