"""An image that another process is asking the app for, as those wait here who want it too.

Imports: concurrency, drivers.base.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import concurrency
from ..drivers.base import Driver


class Asked:
    """A question of another process. Threads may share it.

    :param ended: called once, when there is an answer, or nobody to wait for it any more.
    """

    #: Bytes that can be read.
    available = 0

    def __init__(self, image_id: str, driver: Driver, ended: Callable[[Asked], object]) -> None:
        self.image_id = image_id
        self.is_over = False
        self._driver = driver
        self._on_end = ended
        self._lock = concurrency.Lock()
        self._waiters: list[concurrency.Waiter] = []

    def attend(self) -> bool:
        """See whether there is an answer. :return: whether anybody waits for it."""
        if self._driver.is_asked_elsewhere(self.image_id):
            return bool(self._waiters)
        with self._lock:
            self.is_over = True
            waiters, self._waiters = self._waiters, []
        self._on_end(self)
        for waiter in waiters:
            waiter.wake()
        return False

    def wait(self, seconds: float) -> bool:
        """Wait for the answer. :return: whether there is one."""
        deadline = time.monotonic() + seconds
        waiter = concurrency.Waiter()
        with self._lock:
            if self.is_over:
                return True
            self._waiters.append(waiter)
        return waiter.wait(max(deadline - time.monotonic(), 0.0))
