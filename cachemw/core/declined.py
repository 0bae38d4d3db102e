"""Images whose answers were not stored a short while ago, so that nobody waits for one in vain.

Imports: concurrency, drivers._forks.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from .. import concurrency
from ..drivers import _forks

#: Seconds for which an answer that was not stored lets requests for its image go on side by side.
DECLINED_FOR = 60.0

#: Images remembered for that, at most.
_MOST_DECLINED = 10_000


class Declined:
    """What one process remembers of them, by id. Threads may share it."""

    def __init__(self) -> None:
        self.forget_parent()
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork finds out for itself."""
        self._lock = concurrency.Lock()
        self._noted: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, image_id: str) -> bool:
        noted = self._noted.get(image_id)
        return noted is not None and time.monotonic() - noted < DECLINED_FOR

    def add(self, image_id: str) -> None:
        """Note that an image's answer was not stored."""
        with self._lock:
            self._noted[image_id] = time.monotonic()
            self._noted.move_to_end(image_id)
            if len(self._noted) > _MOST_DECLINED:
                self._noted.popitem(last=False)

    def forget(self, image_id: str) -> None:
        """Note that an image's answer was stored after all."""
        if image_id in self._noted:
            with self._lock:
                self._noted.pop(image_id, None)
