"""One thread of each process that attends to its fills, as long as there are any.

It shows bytes to other processes that wait for them, looks at their fills for
the readers here, and has a few threads pump what no reader here pumps.

Threads begin with the first fill, since those that begin before a server
forks are dead after it.

Imports: concurrency, core.asked, core.fill, core.followed.
"""

from __future__ import annotations

import os
import time

from .. import concurrency
from .asked import Asked
from .fill import Fill
from .followed import Followed

log = concurrency.get_logger(__name__)

#: Seconds between two looks at what is under way.
STEP = 0.01

#: The same while nothing comes, and after how many seconds without.
IDLE_STEP = 0.03
_IDLE_AFTER = 0.5

#: Threads that pump for nobody here: as many apps may be waited for at a time.
PUMPS = 8


class Supervisor:
    """Attends to fills. Threads may share it."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A child of fork has none of its parent's threads and fills."""
        self._lock = concurrency.Lock()
        self._fills: set[Fill] = set()
        self._followed: set[Followed | Asked] = set()
        self._pumped: set[Fill] = set()
        self._is_running = False

    def add(self, fill: Fill) -> None:
        """Attend to a fill of this process until it is over."""
        with self._lock:
            self._fills.add(fill)
        self._start()

    def follow(self, fill: Followed | Asked) -> None:
        """Look at what another process does until it is dropped."""
        with self._lock:
            self._followed.add(fill)
        self._start()

    def drop(self, fill: Fill | Followed | Asked) -> None:
        """Attend to it no more."""
        with self._lock:
            self._fills.discard(fill)
            self._followed.discard(fill)

    def _start(self) -> None:
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
        try:
            concurrency.start_request_thread(self._run, "cachemw-fills")
        except RuntimeError as exc:
            self._is_running = False
            log.warning("fills are not attended to: %s", exc)

    def _run(self) -> None:
        sleeper = concurrency.Waiter()
        seen, changed = -1, time.monotonic()
        while True:
            with self._lock:
                fills, followed = list(self._fills), list(self._followed)
                if not fills and not followed:
                    self._is_running = False
                    return
            for other in followed:
                self._attend(other)
            for fill in fills:
                if self._attend(fill):
                    self._pump(fill)
            now = time.monotonic()
            there = sum(one.available for one in (*fills, *followed))
            if there != seen:
                seen, changed = there, now
            sleeper.wait(IDLE_STEP if now - changed > _IDLE_AFTER else STEP)

    def _attend(self, fill: Fill | Followed | Asked) -> bool:
        """Attend to one, which must not keep the others from it."""
        try:
            return fill.attend()
        except Exception:
            log.exception("%s: attending to its fill failed; it is left to itself", fill.image_id)
            self.drop(fill)
            return False

    def _pump(self, fill: Fill) -> None:
        with self._lock:
            if fill in self._pumped or len(self._pumped) >= PUMPS:
                return
            self._pumped.add(fill)

        def pump() -> None:
            try:
                fill.pump_on()
            except Exception:
                log.exception("%s: going on with its fill failed", fill.image_id)
            finally:
                with self._lock:
                    self._pumped.discard(fill)

        try:
            concurrency.start_request_thread(pump, "cachemw-pump")
        except RuntimeError as exc:
            log.warning("%s: no thread to go on with its fill: %s", fill.image_id, exc)
            with self._lock:
                self._pumped.discard(fill)


#: That of this process.
supervisor = Supervisor()
