"""Hits gathered in memory and written together.

A hit costs an append to a queue. A daemon thread, begun at the first hit in
each process (a thread begun before a fork is dead after it), writes what was
gathered about once a second; whoever needs exact counts flushes first. A
process that is killed loses at most the last second.

Imports: concurrency, drivers._forks.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from .. import concurrency
from . import _forks

log = concurrency.get_logger(__name__)

#: Seconds between two writes.
INTERVAL = 1.0

#: Seconds after which a hit writes by itself: some servers keep threads from running.
_OVERDUE = 5.0

#: What a write gets: entry name -> (hits, time of the last one).
Gathered = Mapping[str, tuple[int, float]]


class HitCounter:
    """Gathers the hits of one cache directory in one process. Safe for threads.

    :param write: stores what was gathered; called by one thread at a time. If
        it raises, the counts are kept for the next time.
    """

    def __init__(self, write: Callable[[Gathered], None]) -> None:
        self._write = write
        self._counted: deque[tuple[str, float]] = deque()
        self._gathered: dict[str, tuple[int, float]] = {}
        self._lock = concurrency.RLock()
        self._write_lock = concurrency.Lock()
        self._adding = False
        self._pid = 0
        self._wake = concurrency.Alarm()
        self._last_flush = 0.0
        _every_counter.add(self)
        _forks.register(self)

    def count(self, name: str, when: float) -> None:
        """Count a hit of an entry, at ``when`` (seconds since the epoch)."""
        # One step without a lock: the garbage collector may close a forgotten entry,
        # and count its hit, at any point of any method here.
        self._counted.append((name, when))
        if self._pid != os.getpid():
            self._start()
        elif time.monotonic() - self._last_flush > _OVERDUE and not self._adding:
            self.flush(wait=False)

    def forget(self, name: str) -> None:
        """Drop what was gathered for an entry that is gone."""
        with self._lock:
            self._gather()
            self._gathered.pop(name, None)

    def flush(self, wait: bool = True) -> None:
        """Write what was gathered. Never raises.

        :param wait: whether to wait for another thread's flush to end; without it,
            nothing is done while there is one.
        """
        if not self._write_lock.acquire(blocking=wait):
            return
        try:
            self._last_flush = time.monotonic()
            with self._lock:
                self._gather()
                gathered, self._gathered = self._gathered, {}
            if not gathered:
                return
            try:
                self._write(gathered)
            except Exception as exc:
                log.warning("hit counts could not be written, will try again: %s", exc)
                self._put_back(gathered)
        finally:
            self._write_lock.release()

    def _gather(self) -> None:
        """Add up what was counted; lock held."""
        self._add(self._take_counted())

    def _take_counted(self) -> Iterator[tuple[str, int, float]]:
        for _ in range(len(self._counted)):
            name, when = self._counted.popleft()
            yield name, 1, when

    def _put_back(self, gathered: Gathered) -> None:
        with self._lock:
            self._add((name, hits, last) for name, (hits, last) in gathered.items())

    def _add(self, hits: Iterable[tuple[str, int, float]]) -> None:
        self._adding = True  # a hit that interrupts this must not flush
        try:
            for name, more, when in hits:
                before, last = self._gathered.get(name, (0, 0.0))
                self._gathered[name] = (before + more, max(last, when))
        finally:
            self._adding = False

    def stop(self) -> None:
        """Flush and end the thread. A later hit starts it again."""
        self._pid = 0
        self._wake.set()
        self.flush()

    def forget_parent(self) -> None:
        """Begin with nothing: the parent writes what it gathered."""
        self._counted = deque()
        self._gathered = {}
        self._lock = concurrency.RLock()
        self._write_lock = concurrency.Lock()
        self._adding = False
        self._pid = 0

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._last_flush = time.monotonic()
            wake = self._wake = concurrency.Alarm()
        try:
            concurrency.start_thread(
                _flush_now_and_then, weakref.ref(self), wake, name="cachemw-hits"
            )
        except RuntimeError as exc:  # no more threads, or the interpreter is ending
            log.warning("hits are written by requests: %s", exc)


def _flush_now_and_then(counter: weakref.ref[HitCounter], wake: concurrency.Alarm) -> None:
    # A weak reference lets a cache that nobody uses any more be collected.
    while not wake.wait(INTERVAL):
        alive = counter()
        if alive is None:
            return
        alive.flush()
        del alive


#: The counters of this process, for its end.
_every_counter: weakref.WeakSet[HitCounter] = weakref.WeakSet()


@atexit.register
def flush_every_counter() -> None:
    """Write what every counter of this process gathered. Never raises."""
    for counter in list(_every_counter):
        counter.flush()
