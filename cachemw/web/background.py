"""What a filter keeps doing beside its requests.

Threads begin with the first request in each process, since those that begin
before a server forks are dead after it. They end with the cache, and with the
filter: nothing of them keeps either alive.

Imports: concurrency, core.cache, core.targets, drivers._forks.
"""

from __future__ import annotations

import time
import weakref
from typing import Any, Protocol

from .. import concurrency
from ..core.cache import ImageCache
from ..core.targets import OWN_REQUEST
from ..drivers import _forks

log = concurrency.get_logger(__name__)

#: Seconds between two looks whether the filter is still there.
_PULSE = 1.0

#: Seconds before a task goes on that raised something.
_AFTER_ERROR = 10.0

#: Seconds that closing a cache waits for its tasks.
_PATIENCE = 2.0


class Task(Protocol):
    """Something to be done again and again.

    :ivar name: of its threads.
    :ivar threads: how many call :meth:`step`; 0: none.
    :ivar calls_app: whether it calls the app, so that it runs where requests do, and only
        where the app may be called by several threads.
    """

    name: str
    threads: int
    calls_app: bool

    def begin(self, environ: dict[str, Any]) -> None:
        """Get ready. :param environ: of the first request in this process."""

    def step(self) -> float:
        """Do what there is to do now. :return: seconds after which to call again."""

    def end(self) -> None:
        """Have :meth:`step` return soon, and do nothing any more."""


class Background:
    """The tasks of one filter.

    :ivar is_begun: whether they run in this process, so that nothing is to be done.
    """

    def __init__(self, cache: ImageCache, *tasks: Task) -> None:
        self._tasks = [task for task in tasks if task.threads]
        self.forget_parent()
        cache.workers.add(self)
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork has none of its parent's threads."""
        self._lock = concurrency.Lock()
        self._loops: list[_Loop] = []
        self.is_begun = not self._tasks

    def begin(self, environ: dict[str, Any]) -> None:
        """Begin in this process, unless that was done, or the cache itself is asking.

        :param environ: of a request.
        """
        if OWN_REQUEST in environ:
            return
        with self._lock:
            if self.is_begun:
                return
            self.is_begun = True
        for task in self._tasks:
            if task.calls_app and not environ.get("wsgi.multithread", True):
                continue
            task.begin(environ)
            for _ in range(task.threads):
                loop = _Loop(task)
                if loop.start():
                    self._loops.append(loop)

    def end(self) -> None:
        """End them all, and wait for what they are at."""
        self.is_begun = True
        for task in self._tasks:
            task.end()
        for loop in self._loops:
            loop.is_ended = True
        deadline = time.monotonic() + _PATIENCE
        while any(not loop.is_done for loop in self._loops) and time.monotonic() < deadline:
            for loop in self._loops:
                loop.wake()
            concurrency.Waiter().wait(0.005)


class _Loop:
    """One thread of a task."""

    def __init__(self, task: Task) -> None:
        self._task = weakref.ref(task)
        self._name = task.name
        self._is_request = task.calls_app
        self._sleeper = concurrency.Waiter() if task.calls_app else concurrency.Alarm()
        self.is_ended = self.is_done = self._is_awake = False

    def start(self) -> bool:
        """Start it. :return: whether there could be a thread for it."""
        try:
            if self._is_request:
                concurrency.start_request_thread(self._run, self._name)
            else:
                concurrency.start_thread(self._run, name=self._name)
        except RuntimeError as exc:
            log.warning("%s does not run: %s", self._name, exc)
            return False
        return True

    def wake(self) -> None:
        """Have it look whether it was ended."""
        if not self._is_awake:
            self._is_awake = True
            if isinstance(self._sleeper, concurrency.Alarm):
                self._sleeper.set()
            else:
                self._sleeper.wake()

    def _run(self) -> None:
        try:
            seconds = 0.0
            while self._sleep(seconds):
                task = self._task()
                if task is None:
                    return
                seconds = self._step(task)
                del task
        finally:
            self.is_done = True

    def _step(self, task: Task) -> float:
        try:
            return task.step()
        except Exception as exc:
            if self.is_ended:
                return 0.0
            log.warning("%s: %s: %s", self._name, type(exc).__name__, exc)
            return _AFTER_ERROR

    def _sleep(self, seconds: float) -> bool:
        """Sleep. :return: whether to go on."""
        deadline = time.monotonic() + seconds
        while not self.is_ended and self._task() is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            self._sleeper.wait(min(left, _PULSE))
        return False
