"""Work the queue: which image is next, what follows from a failure, and who gives up waiting.

The decisions are pure; :class:`Prefetcher` does what they say. One failure
never stops the others: an app that stops in the middle of an image keeps the
thread that reads it, and the next image gets another.

Imports: concurrency, core.cache, core.outcomes, drivers._forks, drivers.queued, errors.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from .. import concurrency
from ..drivers import _forks
from ..drivers.queued import Claim, Note
from ..errors import DriverError
from . import outcomes
from .cache import ImageCache
from .outcomes import Outcome

log = concurrency.get_logger(__name__)

#: Tries after which an image is set aside.
MOST_TRIES = 5

#: The same, if each is likely to fail like the one before.
MOST_LASTING_TRIES = 2

#: Seconds before the second try, how much longer before each after it, and at most.
FIRST_PAUSE = 10.0
PAUSE_FACTOR = 4.0
LONGEST_PAUSE = 3600.0

#: Threads of a process that may hang in an app; then it fetches nothing until one comes back.
MOST_STUCK = 8

#: Seconds between two looks at the queue, and after which one that is not empty is read though
#: it seems the same.
LOOK = 1.0
READ_AGAIN = 10.0

#: Seconds between two looks at a fetch.
_TICK = 0.1


# Decisions


def after_failure(note: Note, outcome: Outcome, now: float) -> Note:
    """Say when an image is tried next, or that it is not.

    :param note: what was known of it before.
    """
    tries = note.tries + 1
    most = MOST_LASTING_TRIES if outcome.is_lasting else MOST_TRIES
    pause = min(FIRST_PAUSE * PAUSE_FACTOR ** (tries - 1), LONGEST_PAUSE)
    return dataclasses.replace(
        note, tries=tries, after=now + pause, reason=outcome.reason, set_aside=tries >= most
    )


def is_due(note: Note, now: float) -> bool:
    """Say whether an image may be tried; one that waits for longer was noted by a wrong clock."""
    return not note.set_aside and not now < note.after <= now + LONGEST_PAUSE


def due(queue: Iterable[Mapping[str, Any]], now: float) -> list[str]:
    """Give the ids of the images that may be tried, in their order.

    :param queue: as ``ImageCache.get_queue`` gives it.
    """
    return [
        queued["image_id"]
        for queued in queue
        if not queued["fetching"]
        and is_due(Note(after=queued["after"], set_aside=queued["set_aside"]), now)
    ]


def next_due(queue: Iterable[Mapping[str, Any]], now: float) -> float:
    """Give the seconds until the next image may be tried; infinite if none waits for that."""
    waiting = [queued["after"] - now for queued in queue if not queued["set_aside"]]
    return min((seconds for seconds in waiting if seconds > 0), default=math.inf)


# Effects


class Fetch:
    """One image that is being fetched.

    :ivar received: bytes that came.
    :ivar outcome: what became of it, once it is over.
    :ivar judged: what the try came to, which may be given up before that.
    """

    def __init__(self, image_id: str, url: str | None) -> None:
        self.image_id = image_id
        self.url = url
        self.received = 0
        self.moves = 0
        self.began = time.time()
        self.outcome: Outcome | None = None
        self.judged: Outcome | None = None
        self.waiter = concurrency.Waiter()

    def advance(self, count: int) -> None:
        """Note that something came. :param count: bytes of the image."""
        self.received += count
        self.moves += 1


class Prefetcher(abc.ABC):
    """Works the queue of a cache. Threads may share it, each of them calling :meth:`step`.

    :param stall_seconds: a fetch to which nothing comes for so long has failed.
    :param observe: called while an image is fetched, and when that is over, by the thread that
        looks after it.
    """

    def __init__(
        self,
        cache: ImageCache,
        stall_seconds: float,
        observe: Callable[[Fetch], object] = lambda fetch: None,
    ) -> None:
        self.cache = cache
        self._stall_seconds = stall_seconds
        self._observe = observe
        self.forget_parent()
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork has none of its parent's threads."""
        self._lock = concurrency.Lock()
        self._plan: deque[str] = deque()
        #: Not before that time, by the process's own clock, whatever the notes say.
        self._resting: dict[str, float] = {}
        self._stuck: dict[str, Fetch] = {}
        self._state: object = None
        self._read_again = 0.0
        self._is_ended = False
        self._has_complained = False

    @abc.abstractmethod
    def fetch(self, fetch: Fetch) -> Outcome:
        """Fetch one image, telling ``fetch.advance`` what comes. It may raise anything."""

    def end(self) -> None:
        """Have :meth:`step` return soon; what hangs in an app is left to itself."""
        self._is_ended = True

    def step(self) -> float:
        """Try one image, if one is due. :return: seconds after which to call again."""
        if self.hangs:
            if not self._has_complained:
                log.warning("nothing is prefetched: %d fetches hang in the app", MOST_STUCK)
            self._has_complained = True
            return LOOK
        self._has_complained = False
        image_id = self._next()
        if image_id is None:
            return LOOK
        claim = self.cache.claim_queued(image_id)
        if claim is None:
            return 0.0
        try:
            if is_due(claim.note, time.time()):
                self.try_once(claim)
        finally:
            claim.close()
        return 0.0

    def _next(self) -> str | None:
        with self._lock:
            if self._plan:
                return self._plan.popleft()
        # No lock meanwhile: under a hub others would wait for it with all the process.
        now = time.monotonic()
        state = self.cache.queue_state()
        if state == self._state and now < self._read_again:
            return None
        queue = self.cache.get_queue()
        if state != self._state:
            # Once more soon: the state may stay the same if it changes twice in a moment.
            self._read_again = now + LOOK
        elif queue:
            self._read_again = now + min(READ_AGAIN, max(next_due(queue, time.time()), LOOK))
        else:
            self._read_again = math.inf
        self._state = state
        found = self._rested(due(queue, time.time()), now)
        with self._lock:
            self._plan = deque(found)
            return self._plan.popleft() if self._plan else None

    def _rested(self, image_ids: Collection[str], now: float) -> list[str]:
        with self._lock:
            self._resting = {i: until for i, until in self._resting.items() if until > now}
            return [image_id for image_id in image_ids if image_id not in self._resting]

    def try_once(self, claim: Claim) -> Outcome | None:
        """Fetch an image that was claimed, and note what became of it.

        :return: ``None``: this was ended meanwhile.
        """
        with self._lock:
            fetch = self._stuck.pop(claim.image_id, None)
        if fetch is None:
            fetch = Fetch(claim.image_id, claim.note.url)
            self._begin(fetch)
        fetch.judged = None
        outcome = self._watch(fetch)
        if outcome is not None:
            self._settle(claim, outcome)
            fetch.judged = outcome
            self._observe(fetch)
        return outcome

    def _begin(self, fetch: Fetch) -> None:
        def run() -> None:
            try:
                fetch.outcome = self.fetch(fetch)
            except BaseException as exc:
                fetch.outcome = outcomes.of_error(exc)
            finally:
                with self._lock:
                    if self._stuck.get(fetch.image_id) is fetch:
                        del self._stuck[fetch.image_id]
                fetch.waiter.wake()

        try:
            concurrency.start_request_thread(run, "cachemw-fetch")
        except RuntimeError as exc:  # no more threads
            fetch.outcome = Outcome(f"no thread to fetch it: {exc}")

    def _watch(self, fetch: Fetch) -> Outcome | None:
        """Wait for the end of a fetch as long as it goes on."""
        moves, moved = fetch.moves, time.monotonic()
        while fetch.outcome is None:
            if self._is_ended:
                return None
            fetch.waiter.wait(_TICK)
            self._observe(fetch)
            now = time.monotonic()
            if fetch.moves != moves:
                moves, moved = fetch.moves, now
            elif now - moved > self._stall_seconds and self._leave(fetch):
                return outcomes.of_stall(self._stall_seconds, fetch.received)
        return fetch.outcome

    def _leave(self, fetch: Fetch) -> bool:
        """Leave a fetch that hangs to itself. :return: whether it does."""
        with self._lock:
            if fetch.outcome is None:
                self._stuck[fetch.image_id] = fetch
        # Its thread may have come back just before, and would not have found itself there.
        if fetch.outcome is None:
            return True
        with self._lock:
            self._stuck.pop(fetch.image_id, None)
        return False

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        image_id = claim.image_id
        try:
            if outcome.is_done:
                concurrency.run_blocking(claim.remove)
                return
            note = after_failure(claim.note, outcome, time.time())
            if note.set_aside:
                log.warning("%s is not prefetched any more: %s", image_id, outcome.reason)
            else:
                pause = note.after - time.time()
                log.info("%s was not prefetched: %s; next in %d s", image_id, note.reason, pause)
            concurrency.run_blocking(claim.keep, note)
        except DriverError as exc:
            log.warning("the queue cannot be written to: %s", exc)
            with self._lock:
                self._resting[image_id] = time.monotonic() + 60.0

    def work_off(self, workers: int = 1) -> dict[str, Outcome]:
        """Try every image that waits once, whenever it failed before; also those that come
        meanwhile. Images that others fetch are waited for.

        :param workers: how many to fetch at a time.
        :return: what became of each.
        """
        found: dict[str, Outcome] = {}
        threads = [
            threading.Thread(target=self._work_off, args=[found], name="cachemw-work")
            for _ in range(workers)
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()
        return found

    def _work_off(self, found: dict[str, Outcome]) -> None:
        while not self.hangs:
            waiting = [i for i in self.cache.get_queued_images() if i not in found]
            if not waiting:
                return
            tried = [self._try_unless_found(image_id, found) for image_id in waiting]
            if not any(tried):
                time.sleep(_TICK)

    def _try_unless_found(self, image_id: str, found: dict[str, Outcome]) -> bool:
        if self.hangs or image_id in found:
            return False
        claim = self.cache.claim_queued(image_id)
        if claim is None:
            return False
        try:
            if image_id in found:
                return False
            outcome = self.try_once(claim)
            if outcome is not None:
                found[image_id] = outcome
            return True
        finally:
            claim.close()

    @property
    def hangs(self) -> bool:
        """Whether so many fetches hang in the app that no more are begun."""
        return len(self._stuck) >= MOST_STUCK
