"""The fills that are under way: those of this process, and those of others that it follows.

Imports: concurrency, core.capacity, core.fill, core.followed, core.growing, core.supervisor,
drivers.base, errors.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from .. import concurrency
from ..drivers.base import Driver, Sink
from ..errors import DriverError, FillUnderWay
from .capacity import Capacity, Room
from .fill import NEVER, Fill
from .followed import Followed
from .growing import Growing
from .supervisor import supervisor

log = concurrency.get_logger(__name__)

#: Seconds for which an answer that was not stored lets requests for its image go on side by side.
DECLINED_FOR = 60.0

#: Images remembered for that, at most.
_MOST_DECLINED = 10_000


class Fills:
    """What one process knows of fills in one cache directory. Threads may share it."""

    def __init__(self, driver: Driver, capacity: Capacity) -> None:
        self._driver = driver
        self._capacity = capacity
        self._lock = concurrency.Lock()
        self._own: dict[str, list[Fill]] = {}
        #: Images whose fill is just being begun here.
        self._claiming: set[str] = set()
        self._followed: dict[str, Followed] = {}
        self._declined: OrderedDict[str, float] = OrderedDict()

    def under_way(self, image_id: str) -> list[Growing]:
        """Give the fills of an image: this process's, else the one that another shows."""
        with self._lock:
            own = self._own.get(image_id)
            is_claiming = image_id in self._claiming
            followed = self._followed.get(image_id)
        current: list[Growing] = [fill for fill in own or () if fill.is_current()]
        if current or is_claiming:
            return current
        if followed is not None and followed.is_current():
            return [followed]
        try:
            tail = self._driver.tail(image_id)
        except DriverError as exc:
            log.warning("cannot look at the fill of %s", exc)
            return []
        if tail is None:
            return []
        followed = Followed(image_id, tail, self._forget_followed)
        if followed.is_over:
            followed.drop()
            return []
        with self._lock:
            other = self._followed.get(image_id)
            if other is None or not other.is_current():
                other = self._followed[image_id] = followed
        if other is not followed:
            followed.drop()
        else:
            supervisor.follow(followed)
        return [other]

    def claim(
        self, image_id: str, *, finish_from: float = NEVER, is_movable: bool = False
    ) -> Fill | None:
        """Become the one who asks the app for an image; ``None``: somebody else is.

        :raises DriverError: its file cannot be made.
        """
        with self._lock:
            if image_id in self._claiming or any(
                fill.is_current() for fill in self._own.get(image_id, ())
            ):
                return None
            self._claiming.add(image_id)
        try:
            sink = concurrency.run_blocking(self._driver.start_fill, image_id, undo=_let_go)
            return self.add(image_id, sink, finish_from=finish_from, is_movable=is_movable)
        except FillUnderWay:
            return None
        finally:
            self._claiming.discard(image_id)

    def add(
        self,
        image_id: str,
        sink: Sink | None,
        *,
        finish_from: float = NEVER,
        is_movable: bool = False,
    ) -> Fill:
        """Begin a fill, seen by other requests from now on."""
        fill = Fill(
            image_id,
            sink,
            Room(self._capacity, image_id, None),
            finish_from=finish_from,
            is_movable=is_movable,
            ended=self._forget_own,
        )
        with self._lock:
            self._own.setdefault(image_id, []).append(fill)
        supervisor.add(fill)
        return fill

    def remember_declined(self, image_id: str) -> None:
        """Note that an image's answer was not stored, so that nobody waits for it in vain."""
        with self._lock:
            self._declined[image_id] = time.monotonic()
            self._declined.move_to_end(image_id)
            if len(self._declined) > _MOST_DECLINED:
                self._declined.popitem(last=False)

    def was_declined(self, image_id: str) -> bool:
        """Say whether an image's answer was not stored a short while ago."""
        noted = self._declined.get(image_id)
        return noted is not None and time.monotonic() - noted < DECLINED_FOR

    def forget_declined(self, image_id: str) -> None:
        """Note that an image's answer was stored after all."""
        if image_id in self._declined:
            with self._lock:
                self._declined.pop(image_id, None)

    def _forget_own(self, fill: Fill) -> None:
        supervisor.drop(fill)
        with self._lock:
            fills = self._own.get(fill.image_id, [])
            if fill in fills:
                fills.remove(fill)
            if not fills:
                self._own.pop(fill.image_id, None)

    def _forget_followed(self, followed: Followed) -> None:
        supervisor.drop(followed)
        with self._lock:
            if self._followed.get(followed.image_id) is followed:
                del self._followed[followed.image_id]


def _let_go(sink: Sink) -> None:
    sink.leave()
    sink.close()
