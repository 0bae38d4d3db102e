"""The fills that are under way: those of this process, and those of others that it follows.

Imports: concurrency, core.asked, core.capacity, core.fill, core.followed, core.growing, core.live,
core.supervisor, drivers._forks, drivers.base, errors, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import time

from .. import concurrency
from ..drivers import _forks
from ..drivers.base import Driver, Sink
from ..errors import DriverError, FillUnderWay
from ..metrics.counters import Counters
from ..metrics.declared import FILLS, FILLS_COMMITTED, FILLS_ROLLED_BACK, FILLS_STARTED
from .asked import Asked
from .capacity import Capacity, Room
from .fill import NEVER, Fill
from .followed import Followed
from .growing import Growing
from .live import Row
from .supervisor import supervisor

log = concurrency.get_logger(__name__)

#: Seconds that closing waits at most for what is just being written.
_LINGER = 5.0


class Fills:
    """What one process knows of fills in one cache directory. Threads may share it."""

    def __init__(self, driver: Driver, capacity: Capacity, counters: Counters) -> None:
        self._driver = driver
        self._counters = counters
        self._capacity = capacity
        self.forget_parent()
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child of fork has none of its parent's fills."""
        self._lock = concurrency.Lock()
        self._own: dict[str, list[Fill]] = {}
        #: Images whose fill is just being begun here.
        self._claiming: set[str] = set()
        self._followed: dict[str, Followed] = {}
        self._asked: dict[str, Asked] = {}

    def own(self, image_id: str) -> list[Fill]:
        """Give this process's fills of an image."""
        if image_id not in self._own:
            return []
        with self._lock:
            return list(self._own.get(image_id, ()))

    def under_way(self, image_id: str) -> list[Growing]:
        """Give the fills of an image: this process's, else the one that another shows."""
        with self._lock:
            own = self._own.get(image_id)
            is_busy = image_id in self._claiming or any(fill.is_ending for fill in own or ())
            followed = self._followed.get(image_id)
        current: list[Growing] = [fill for fill in own or () if fill.is_current()]
        if current or is_busy:
            return current
        if followed is not None and followed.is_current():
            return [followed]
        other = self._followed_fill(image_id) if self._driver.has_fill(image_id) else None
        return [] if other is None else [other]

    def _followed_fill(self, image_id: str) -> Followed | None:
        """Give the fill that another process shows."""
        try:
            tail = self._driver.tail(image_id)
        except DriverError as exc:
            log.warning("cannot look at the fill of %s", exc)
            return None
        if tail is None:
            return None
        followed = Followed(image_id, tail, self._forget_followed, self._counters)
        if followed.is_over:
            followed.drop()
            return None
        with self._lock:
            other = self._followed.get(image_id)
            if other is None or not other.is_current():
                other = self._followed[image_id] = followed
        if other is not followed:
            followed.drop()
        else:
            supervisor.follow(followed)
        return other

    def claim(
        self, image_id: str, *, finish_from: float = NEVER, is_movable: bool = False
    ) -> Fill | Asked | None:
        """Become the one who asks the app for an image.

        :return: a fill to lead; or who asks already, in another process; ``None``: somebody
            here does, or has the answer already anywhere.
        :raises DriverError: it cannot be found out who does.
        """
        with self._lock:
            own = self._own.get(image_id, ())
            if image_id in self._claiming or any(f.is_current() or f.is_ending for f in own):
                return None
            self._claiming.add(image_id)
        try:
            if not self._begin_asking(image_id):
                return self._asked_elsewhere(image_id)
            try:
                sink = self._kept(image_id)
                fill = self._new_fill(image_id, sink, finish_from, is_movable)
            except FillUnderWay:
                self._driver.end_asking(image_id)
                return None
            except BaseException:
                self._driver.end_asking(image_id)
                raise
        finally:
            self._claiming.discard(image_id)
        return fill

    def _begin_asking(self, image_id: str) -> bool:
        def undo(is_asking: bool) -> None:
            if is_asking:
                self._driver.end_asking(image_id)

        return concurrency.run_blocking(self._driver.begin_asking, image_id, undo=undo)

    def _kept(self, image_id: str) -> Sink | None:
        """Take hold of what may be kept of an image, before anybody asks for the rest.

        :raises FillUnderWay: it is somebody's.
        """
        if not self._driver.has_fill(image_id):
            return None
        return concurrency.run_blocking(self._driver.start_fill, image_id, undo=_let_go)

    def _asked_elsewhere(self, image_id: str) -> Asked | None:
        """Give the question of another process."""
        with self._lock:
            asked = self._asked.get(image_id)
            if asked is None or asked.is_over:
                asked = self._asked[image_id] = Asked(image_id, self._driver, self._forget_asked)
        supervisor.follow(asked)
        return asked

    def _new_fill(
        self, image_id: str, sink: Sink | None, finish_from: float, is_movable: bool
    ) -> Fill:
        fill = Fill(
            image_id,
            sink,
            Room(self._capacity, image_id, None),
            finish_from=finish_from,
            is_movable=is_movable,
            ended=self._forget_own,
            counters=self._counters,
        )
        with self._lock:
            self._own.setdefault(image_id, []).append(fill)
        return fill

    def begun(self, fill: Fill) -> None:
        """Note that a fill has its answer, and that others see it by its files from now on."""
        self._counters.add(FILLS_STARTED)
        self._counters.add(FILLS)
        self._driver.end_asking(fill.image_id)
        supervisor.add(fill)
        if fill.is_over:
            supervisor.drop(fill)  # a follower was quicker

    def _count_end(self, fill: Fill) -> None:
        reason = fill.why_not_stored()
        self._counters.add(FILLS, -1)
        if reason:
            self._counters.add(FILLS_ROLLED_BACK, value=reason)
        else:
            self._counters.add(FILLS_COMMITTED)

    def rows(self) -> list[Row]:
        """Give the fills that are led here, or followed, once the app has answered."""
        with self._lock:
            led: list[Fill | Followed] = [f for fills in self._own.values() for f in fills]
            followed = list(self._followed.values())
        return [
            Row(
                image_id=fill.image_id,
                received=fill.received if isinstance(fill, Fill) else fill.available,
                length=fill.length,
                followers=fill.followers,
                since=fill.since if isinstance(fill, Fill) else 0.0,
            )
            for fill in (*led, *followed)
            if fill.record is not None
        ]

    def stop(self) -> None:
        """End the fills that nobody here reads, since the cache is being closed."""
        with self._lock:
            fills = [fill for fills in self._own.values() for fill in fills]
        ending = [fill for fill in fills if fill.stop()]
        deadline = time.monotonic() + _LINGER
        for fill in ending:
            fill.wait_until_over(max(deadline - time.monotonic(), 0.0))

    def _forget_asked(self, asked: Asked) -> None:
        supervisor.drop(asked)
        with self._lock:
            if self._asked.get(asked.image_id) is asked:
                del self._asked[asked.image_id]

    def _forget_own(self, fill: Fill) -> None:
        if fill.record is None:
            self._driver.end_asking(fill.image_id)
        else:
            self._count_end(fill)
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
