"""A fill that another process has under way, as the readers of this one see it.

All of them share one look at it: the supervisor looks how far it is, as long as somebody
waits, and wakes them. Nobody holds a lock of the fill, so a reader may be as slow as it likes.

Imports: concurrency, core.growing, drivers.base, errors, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import concurrency
from ..drivers.base import FillState, Record, Tail
from ..errors import DriverError
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import FOLLOWERS
from .growing import FillFailed, FillLost, FillStalled

log = concurrency.get_logger(__name__)

#: Seconds between two looks whether the writer lives.
_PULSE = 0.1

#: All of it was found right, and can be read to its end.
_WHOLE = frozenset({"committed", "verified"})
_FAILED = "failed: "
_DECLINED = "declined: "


class Followed:
    """One fill of another process. Threads may share it.

    :param tail: looks at it; closed with the last reader.
    :param ended: called once, when it is over or lost.
    :param counters: count who reads along.
    """

    def __init__(
        self,
        image_id: str,
        tail: Tail,
        ended: Callable[[Followed], object] = lambda fill: None,
        counters: Counters = NOBODY,
    ) -> None:
        self.image_id = image_id
        self._counters = counters
        self._tail = tail
        self._on_end = ended
        self._lock = concurrency.Lock()
        self._waiters: list[concurrency.Waiter] = []
        self._users = 0
        self._closed = False
        self._felt = 0.0
        self._lost = ""
        self._state = FillState(None, None, 0, "")
        self.look()

    @property
    def record(self) -> Record | None:
        """See :class:`~cachemw.core.growing.Growing`; none while only a part is on its way."""
        return _record_of(self._state)

    @property
    def length(self) -> int | None:
        """See :class:`~cachemw.core.growing.Growing`."""
        return self._state.length

    @property
    def available(self) -> int:
        """See :class:`~cachemw.core.growing.Growing`."""
        return self._state.readable

    @property
    def declined(self) -> str:
        """See :class:`~cachemw.core.growing.Growing`."""
        outcome = self._state.outcome
        return outcome.removeprefix(_DECLINED) if outcome.startswith(_DECLINED) else ""

    @property
    def is_verified(self) -> bool:
        """See :class:`~cachemw.core.growing.Growing`; here it is an entry by then."""
        return False

    def count_hit(self, count: Callable[[], object]) -> None:
        """See :class:`~cachemw.core.growing.Growing`."""
        count()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self._lost or self._state.outcome)

    def is_overtaken(self) -> bool:
        """See :class:`~cachemw.core.growing.Growing`."""
        return not self._tail.is_current()

    def is_current(self) -> bool:
        """Say whether somebody who asks now may follow it."""
        return not self.is_over and self._tail.is_current()

    def attend(self) -> bool:
        """Look at it if somebody waits. :return: whether anybody does."""
        if not self._waiters:
            return False
        self.look()
        return True

    def look(self) -> None:
        """See how far it is, and wake who waits if there is any change."""
        before = self._state
        try:
            # In this order: a writer that ends leaves the outcome before the lock.
            is_alive = self._is_alive()
            self._state = self._tail.state()
        except DriverError as exc:
            self._lost = exc.reason
        else:
            if not is_alive and not self._state.outcome:
                self._lost = "its writer is gone"
        if self.is_over:
            self._on_end(self)
        elif _shown(self._state) == _shown(before):
            return
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    def _is_alive(self) -> bool:
        now = time.monotonic()
        if now - self._felt < _PULSE:
            return True
        self._felt = now
        return self._tail.is_alive()

    def wait_for_record(self, seconds: float) -> bool:
        """See :class:`~cachemw.core.growing.Growing`."""
        deadline = time.monotonic() + seconds
        while True:
            state = self._state
            if _record_of(state) or self.is_over or not self._wait(state, deadline):
                return self.record is not None

    def _wait(self, before: FillState, deadline: float) -> bool:
        """Wait for any change since ``before`` was seen. :return: whether there was one."""
        waiter = concurrency.Waiter()
        with self._lock:
            self._waiters.append(waiter)
        if self._state is not before or self.is_over:
            return True
        return waiter.wait(max(deadline - time.monotonic(), 0.0))

    def reader(self) -> FollowedReader:
        """Give one more reader."""
        with self._lock:
            self._users += 1
        self._counters.add(FOLLOWERS)
        return FollowedReader(self)

    @property
    def followers(self) -> int:
        """Readers in this process."""
        return self._users

    def read(self, position: int, most: int, patience: float) -> bytes:
        """Give bytes from ``position``; see :class:`~cachemw.core.growing.GrowingReader`."""
        deadline = time.monotonic() + patience
        while True:
            state = self._state
            outcome = state.outcome
            if outcome in _WHOLE:
                if position > state.readable:
                    raise FillLost(self.image_id, f"it has {state.readable} bytes")
                return self._pread(most, position)
            if position < state.readable:
                data = self._pread(min(most, state.readable - position), position)
                if data:
                    return data
                raise FillLost(self.image_id, "its bytes are gone")
            if outcome.startswith(_FAILED):
                raise FillFailed(self.image_id, outcome.removeprefix(_FAILED))
            if outcome or self._lost:
                raise FillLost(self.image_id, self._lost or outcome)
            self._tail.want(position + 1)
            if not self._wait(state, deadline):
                raise FillStalled(self.image_id, f"nothing came for {patience:g} seconds")

    def _pread(self, most: int, position: int) -> bytes:
        try:
            return concurrency.run_blocking(self._tail.pread, most, position)
        except DriverError as exc:
            self.look()  # whoever goes on elsewhere should not come back to what is over
            raise FillLost(self.image_id, exc.reason) from exc

    def drop(self) -> None:
        """Let go of it unless it has readers, who do it later."""
        self._leave(0)

    def leave(self) -> None:
        """Count a reader out."""
        self._counters.add(FOLLOWERS, -1)
        self._leave(1)

    def _leave(self, count: int) -> None:
        with self._lock:
            self._users -= count
            if self._users or self._closed:
                return
            self._closed = True
            self._lost = self._lost or "nobody reads it any more"
        self._on_end(self)
        concurrency.run_blocking(self._tail.close)


class FollowedReader:
    """One reader of another process's fill."""

    def __init__(self, fill: Followed) -> None:
        self._fill = fill
        self._closed = False

    def read(self, position: int, most: int, patience: float) -> bytes:
        """See :class:`~cachemw.core.growing.GrowingReader`."""
        return self._fill.read(position, most, patience)

    def close(self) -> None:
        """Read no more; a second close does nothing."""
        if not self._closed:
            self._closed = True
            self._fill.leave()


def _record_of(state: FillState) -> Record | None:
    is_part = state.length is not None and state.reserved < state.length
    return None if is_part else state.record


def _shown(state: FillState) -> tuple[bool, int, int]:
    return state.record is not None, state.readable, state.reserved
