"""Which images were changed lately, so that an answer from before is not stored after.

The app may have opened an image, and take its time until it answers; when the
image is changed meanwhile, nothing is stored yet that could be removed. Seen
within one process only.

Imports: nothing of ours.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

#: Changed images that are remembered.
MOST = 1024


class Changes:
    """Counts changes. Threads may share it.

    :param most: images to remember; of older ones only that they are older is known.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._count = 0
        self._forgotten = 0
        self._last: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many changes there were: the present, as :meth:`since` takes it."""
        return self._count

    def note(self, image_id: str) -> None:
        """Remember that an image was changed."""
        with self._lock:
            self._count += 1
            self._last[image_id] = self._count
            self._last.move_to_end(image_id)
            if len(self._last) > self._most:
                _, self._forgotten = self._last.popitem(last=False)

    def since(self, image_id: str, count: int) -> bool:
        """Say whether an image was, or may have been, changed.

        :param count: as :attr:`count` was at the time.
        """
        with self._lock:
            return self._last.get(image_id, self._forgotten) > count
