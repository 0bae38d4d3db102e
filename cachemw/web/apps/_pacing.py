"""A response body sent no faster than so many bytes per second.

The thread that sends it sleeps, so one response under way costs one thread.

Imports: nothing of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

#: One piece, and what may be made up for at once after a late piece, in
#: seconds: together a burst is never longer than a tenth of a second's worth.
STEP = 0.05


class PacedBody:
    """Another body's bytes, in small pieces, each sent when it is due.

    Not for several threads at once. Closing it closes the other body; a second
    close does nothing.

    :param body: the WSGI body to slow down.
    :param rate: bytes per second.
    :param clock: seconds that never go back.
    :param sleep: waits so many seconds.
    """

    def __init__(
        self,
        body: Iterable[bytes],
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._body = body
        self._blocks = iter(body)
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._piece = max(1, int(rate * STEP))
        self._block = b""
        self._position = 0
        self._due = clock()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self._position >= len(self._block):
            self._block = next(self._blocks)
            self._position = 0
        piece = self._block[self._position : self._position + self._piece]
        self._position += len(piece)
        self._wait()
        self._due += len(piece) / self._rate
        return piece

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._block = b""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()

    def _wait(self) -> None:
        now = self._clock()
        if now < self._due:
            self._sleep(self._due - now)
        else:
            # A client that read slowly for a while does not get it all back at once.
            self._due = max(self._due, now - STEP)
