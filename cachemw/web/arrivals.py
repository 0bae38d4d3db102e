"""A part of an image on its way from the app, into the image's file and to one client.

Imports: concurrency, core.fill, drivers.base, errors, metrics.declared, web.exchange, web.respond.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable, Iterator

from .. import concurrency
from ..core.fill import Fill
from ..drivers.base import Part
from ..errors import DriverError, LengthMismatch
from ..metrics.declared import APP_BYTES
from .exchange import Answer
from .respond import BLOCK

log = logging.getLogger(__name__)

#: Bytes of a part that a client may take at its own speed, though others wait for it.
AHEAD = 2**20

#: Seconds for which a client waits at most that has no reason to give up.
_FOR_EVER = 86400.0


class Slice:
    """The body of an answer that asks the app for a part, keeps it, and gives what is wanted.

    What is wanted of either side of the part was kept before.

    :param arrival: brings the part.
    :param wanted: what the client gets.
    """

    def __init__(self, arrival: Arrival, wanted: Part) -> None:
        self._arrival = arrival
        self._wanted = wanted
        #: The next byte for the client.
        self._given = wanted.start

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        arrival, stop = self._arrival, self._wanted.stop
        while self._given < stop or not arrival.is_whole:
            readable = min(arrival.readable_from(self._given), stop)
            if self._given < readable:
                return self._read(readable)
            if arrival.is_ahead:
                arrival.wait(self._given if self._given < stop else sys.maxsize)
                continue
            start = arrival.position
            chunk = arrival.take()
            piece = chunk[max(self._given - start, 0) : max(stop - start, 0)]
            if piece:
                self._given += len(piece)
                return piece
        raise StopIteration

    def _read(self, stop: int) -> bytes:
        data = self._arrival.read(min(BLOCK, stop - self._given), self._given)
        self._given += len(data)
        return data

    def close(self) -> None:
        """Let go of everything; a second close does nothing."""
        self._arrival.stop()


class Arrival:
    """A part on its way from the app into the image's file.

    The client takes each chunk, so that it has it at once; with a long part another thread
    does, since nobody else gets at the image before the part is there.

    :param answer: of the app, with the bytes of ``part``.
    :param lead: the image's fill, claimed until the part is there; it may be over already.
    :param when_kept: called once all of the part is kept, and others may have the fill.
    """

    def __init__(
        self, answer: Answer, lead: Fill, part: Part, when_kept: Callable[[], None]
    ) -> None:
        self._answer = answer
        self._lead = lead
        self._part = part
        self._when_kept = when_kept
        #: The next byte from the app.
        self.position = part.start
        #: Whether another thread takes the chunks.
        self.is_ahead = False
        self._chunks = iter(answer.body)
        #: Where it is kept; ``None`` once nothing more is.
        self._sink = lead.sink
        #: The same, for what is read when nobody needs to wait any more.
        self._source = lead.sink
        #: Taken already, but not kept.
        self._pending = b""
        self._error: BaseException | None = None
        self._lock = concurrency.Lock()
        self._waiter: concurrency.Waiter | None = None
        self._is_stopped = False
        self._was_ahead = False

    @property
    def is_whole(self) -> bool:
        """Whether all of the part has come, and been let go of."""
        return self.position == self._part.stop and not self.is_ahead

    def readable_from(self, position: int) -> int:
        """Give up to where there are bytes in the file; ``position`` if there are none."""
        if position < self._part.start:
            return self._part.start
        if position >= self._part.stop == self.position:
            return sys.maxsize  # what is wanted beyond the part was kept before
        return max(position, self.position if self._was_ahead else 0)

    def read(self, size: int, position: int) -> bytes:
        """Give bytes of the file."""
        assert self._source is not None
        data = concurrency.run_blocking(self._source.pread, size, position)
        if not data:
            raise OSError(f"{self._lead.image_id}: byte {position} is not kept any more")
        return data

    def take(self) -> bytes:
        """Take the app's next chunk, and keep it."""
        if self._error is not None:
            raise self._error
        chunk, self._pending = self._pending or self._pull(), b""
        self._keep(chunk)
        self._note(chunk)
        return chunk

    def _note(self, chunk: bytes) -> None:
        if self.position + len(chunk) == self._part.stop:
            is_kept = self._sink is not None
            self._let_go()  # before the client knows that it was all
            if is_kept:
                self._when_kept()
        self.position += len(chunk)

    def _pull(self) -> bytes:
        """Get the app's next chunk that is not empty."""
        chunk = self._next()
        self._lead.counters.add(APP_BYTES, len(chunk))
        stop = self.position + len(chunk)
        if not chunk or stop > self._part.stop:
            raise LengthMismatch(self._lead.image_id, f"{stop} is not the end of {self._part}")
        if stop == self._part.stop and self._next():
            raise LengthMismatch(self._lead.image_id, f"longer than {self._part}")
        return chunk

    def _next(self) -> bytes:
        while (chunk := next(self._chunks, None)) is not None:
            if chunk:
                return chunk
        return b""

    def _keep(self, chunk: bytes) -> bool:
        """Write a chunk. :return: whether it is in the file."""
        if self._sink is None:
            return False
        try:
            concurrency.run_blocking(self._sink.write, chunk, self.position)
        except DriverError as exc:
            log.warning("%s: its part is not kept: %s", self._lead.image_id, exc.reason)
            self._hand_over()
            return False
        return True

    # Another thread

    def run_ahead(self) -> None:
        """Have another thread take the chunks, if they are many, and kept."""
        if self._sink is None or self._part.stop - self._part.start <= AHEAD:
            return
        self.is_ahead = self._was_ahead = True
        context = contextvars.copy_context()
        try:
            concurrency.start_request_thread(lambda: context.run(self._run), "cachemw-slice")
        except RuntimeError:
            self.is_ahead = self._was_ahead = False

    def _run(self) -> None:
        try:
            while self.position < self._part.stop and not self._is_stopped:
                chunk = self._pull()
                if not self._keep(chunk):
                    self._pending = chunk  # for the client to go on with
                    break
                self._note(chunk)
                self._wake()
        except BaseException as exc:
            self._error = exc
            self._let_go()
        finally:
            with self._lock:
                self.is_ahead = False
                is_stopped = self._is_stopped
            self._wake()
            if is_stopped:
                self._close()

    def wait(self, position: int) -> None:
        """Wait until the byte at ``position`` has come, or nobody brings it any more; or less."""
        with self._lock:
            if self.position > position or not self.is_ahead:
                return
            waiter = self._waiter = concurrency.Waiter()
        waiter.wait(_FOR_EVER)

    def _wake(self) -> None:
        with self._lock:
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    # The end

    def stop(self) -> None:
        """Let go of everything, as soon as the app has given its chunk."""
        with self._lock:
            self._is_stopped = True
            is_ahead = self.is_ahead
        if not is_ahead:
            self._close()

    def _close(self) -> None:
        try:
            self._let_go()
        finally:
            source, self._source = self._source, None
            if source is not None:
                source.close()

    def _let_go(self) -> None:
        """Close the app's answer, and let others have the image's fill."""
        try:
            self._answer.close()
        except Exception:
            log.exception("%s: closing the app's answer failed", self._lead.image_id)
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._sink is not None:
            self._sink = None
            self._lead.hand_over()
        self._lead.decline("")
