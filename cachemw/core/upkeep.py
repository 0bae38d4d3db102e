"""What servers do beside the requests: one thread a process, and one process a directory.

Each process tells which fills it has under way. The one that holds the lock
``<dir>/.upkeep`` does the rest for all: it keeps the directory within its
bounds, removes what failed and was left, notes what was counted, and reads
entries again to see whether they are still intact. When it ends, another
takes its place within a second.

Imports: concurrency, core.cache, core.history, core.live, drivers._forks, metrics.totals.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import concurrency
from ..drivers import _forks
from ..metrics.totals import totals
from . import history, live
from .cache import ImageCache

log = concurrency.get_logger(__name__)

#: The file that the elected process locks.
NAME = ".upkeep"

#: Seconds between two looks.
STEP = 1.0

#: Seconds between two times that what failed and was left is removed.
_CLEAN_EVERY = 600.0

#: Seconds for which ``invalid/`` keeps its reasons for whoever wants to read them.
KEEP_INVALID = 86400.0

#: Bytes read again in a second at most, however short ``scrub_interval`` is.
_MOST_SCRUBBED = 64 * 2**20


class Upkeep:
    """Attends to one cache directory, in one process; see ``web.background``.

    One thread calls :meth:`step`.
    """

    name = "cachemw-upkeep"
    threads = 1
    calls_app = False

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._election: Election | None = None
        self.forget_parent()
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork is not elected because its parent is."""
        if self._election is not None:
            self._election.close()
        self._election = Election(self._cache.driver.directory)
        self._attendant = Attendant(time.time())
        self._is_ended = False

    def begin(self, environ: Mapping[str, Any]) -> None:
        """Get ready."""

    def step(self) -> float:
        """Do what is due. :return: seconds after which to call again."""
        cache = self._cache
        _safely(_tell, cache)
        assert self._election is not None
        if not self._is_ended and self._election.is_won():
            self._attendant.attend(cache, time.time())
        return STEP

    def end(self) -> None:
        """Let another process be elected."""
        self._is_ended = True
        if self._election is not None:
            self._election.close()


def _tell(cache: ImageCache) -> None:
    live.tell(cache.driver.directory, cache.fills.rows(), time.time())


class Election:
    """Who attends to a directory: whoever holds the lock.

    :param directory: the cache directory.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, NAME)
        self._fd = -1

    def is_won(self) -> bool:
        """Say whether this process is the one; it is from then on. Never raises."""
        if self._fd != -1:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self._path, flags, 0o600)
        except OSError as exc:
            log.info("cannot attend to the cache directory: %s", exc)
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def close(self) -> None:
        """Let another be elected."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


class Attendant:
    """What the elected process has done, and what is due."""

    def __init__(self, now: float) -> None:
        self._sampled = 0.0
        self._cleaned = 0.0
        self._scrubbed = now
        #: Bytes that are to be read again by now; below 0 after an image that was larger.
        self._owed = 0.0

    def attend(self, cache: ImageCache, now: float) -> None:
        """Do what is due. Never raises.

        :param now: seconds since the epoch.
        """
        if now // history.STEP != self._sampled // history.STEP:
            self._sampled = now
            _safely(lambda cache: _sample(cache, now), cache)
            _safely(_keep_within_bounds, cache)
        if not 0 <= now - self._cleaned < _CLEAN_EVERY:
            self._cleaned = now
            _safely(_clean, cache)
            live.forget_dead(cache.driver.directory, now)
        interval = cache.settings.scrub_interval
        passed, self._scrubbed = now - self._scrubbed, now
        if interval and passed > 0:
            _safely(lambda cache: self._scrub(cache, passed / interval), cache)

    def _scrub(self, cache: ImageCache, share: float) -> None:
        """Read a share of the entries again, one image at least once it is its turn."""
        self._owed += min(share * cache.get_cache_size(), _MOST_SCRUBBED)
        if self._owed <= 0:
            return
        found = cache.scrub(int(self._owed))
        self._owed -= found.bytes
        if found.damaged:
            log.warning("%d entries were damaged, and are in invalid/", found.damaged)


def _sample(cache: ImageCache, now: float) -> None:
    driver = cache.driver
    used, images = driver.get_usage(), driver.count_images()
    history.put(driver.directory, history.sample_of(now, totals(driver.directory), used, images))


def _keep_within_bounds(cache: ImageCache) -> None:
    images, size = cache.prune()
    if images:
        log.info("pruned %d images of %d bytes", images, size)


def _clean(cache: ImageCache) -> None:
    removed = cache.driver.reap_invalid(KEEP_INVALID)
    removed += cache.driver.reap_stalled(cache.settings.stall_time)
    if removed:
        log.info("removed %d files that failed or were left", removed)


def _safely(duty: Callable[[ImageCache], None], cache: ImageCache) -> None:
    try:
        duty(cache)
    except Exception as exc:
        log.warning("attending to %s: %s", cache.driver.directory, exc)
