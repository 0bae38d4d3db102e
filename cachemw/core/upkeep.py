"""What servers do beside the requests: one thread a process, and one process a directory.

Each process tells which fills it has under way. The one that holds the lock
``<dir>/.upkeep`` does the rest for all: it keeps the directory within its
bounds, removes what failed and was left, notes what was counted, and reads
entries again to see whether they are still intact. When it ends, another
takes its place within a second.

The thread is begun by the first request, since those that begin before a
server forks are dead after it.

Imports: concurrency, core.cache, core.history, core.live, drivers._forks, metrics.totals.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable

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
    """Attends to one cache directory, in one process. Threads may share it."""

    def __init__(self, cache: ImageCache) -> None:
        # A cache that nobody uses any more can be collected.
        self._cache = weakref.ref(cache)
        self._directory = cache.driver.directory
        self._lock = concurrency.Lock()
        self._is_running = False
        self._alarm = concurrency.Alarm()
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork has a thread of its own."""
        self._lock = concurrency.Lock()
        self._is_running = False
        self._alarm = concurrency.Alarm()

    def start(self) -> None:
        """Begin, unless it has begun in this process. Never raises."""
        if self._is_running:
            return
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
            alarm = self._alarm
        try:
            concurrency.start_thread(_run, self._cache, alarm, name="cachemw-upkeep")
        except RuntimeError as exc:  # no more threads, or the interpreter is ending
            log.warning("the cache directory is not attended to: %s", exc)

    def stop(self) -> None:
        """End the thread; it does not begin again."""
        self._alarm.set()


def _run(reference: weakref.ref[ImageCache], alarm: concurrency.Alarm) -> None:
    election = None
    attendant = None
    try:
        while not alarm.wait(STEP):
            cache = reference()
            if cache is None:
                return
            if attendant is None:
                election = Election(cache.driver.directory)
                attendant = Attendant(time.time())
            _safely(_tell, cache)
            if election is not None and election.is_won():
                attendant.attend(cache, time.time())
            del cache
    finally:
        if election is not None:
            election.close()


def _tell(cache: ImageCache) -> None:
    live.tell(cache.driver.directory, cache.fill_rows(), time.time())


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
            _safely(lambda cache: _scrub(cache, passed / interval), cache)


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


def _scrub(cache: ImageCache, share: float) -> None:
    """Read a share of the entries again."""
    budget = min(int(share * cache.get_cache_size()), _MOST_SCRUBBED)
    if budget > 0:
        _, _, damaged = cache.scrub(budget)
        if damaged:
            log.warning("%d entries were found damaged, and are in invalid/", damaged)


def _safely(duty: Callable[[ImageCache], None], cache: ImageCache) -> None:
    try:
        duty(cache)
    except Exception as exc:
        log.warning("attending to %s: %s", cache.driver.directory, exc)
