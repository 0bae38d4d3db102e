"""One fill: an image on its way from the app to a client and into the cache.

The last bytes are held back. Until length and checksum were found right and
the image was stored, no reader gets the end of it, so that a client never
holds a complete wrong image, and one that asks again at once gets a hit.
Trouble with the cache ends the storing, never the response; a wrong image
ends both.

Imports: concurrency, errors, core.checksum, core.capacity, core.pipeline, drivers.base.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from .. import concurrency
from ..drivers.base import Record, Sink
from ..errors import ChecksumMismatch, DriverError, LengthMismatch
from .capacity import Room
from .checksum import Checksum, Digests
from .pipeline import Pipeline

log = concurrency.get_logger(__name__)

#: Bytes gathered before they are hashed and written (an app's chunk may be larger).
BLOCK = 512 * 1024

#: What is computed where the app promises no checksum.
DEFAULT_ALGORITHM = "sha256"


class Fill:
    """An iterator over the image's chunks that stores what passes.

    Raises :class:`~cachemw.errors.ChecksumMismatch` or
    :class:`~cachemw.errors.LengthMismatch` in place of the last chunk, and
    whatever the app's own iterator raises. Closing it before its end gives the
    fill up. Calls may come from any thread, one at a time or not.

    :param image_id: what is filled.
    :param source: the app's iterable; its ``close`` is called exactly once.
    :param sink: where the image grows; ``None``: it is only verified.
    :param room: keeps the sink within the cache's bounds.
    :param length: bytes promised, or ``None``.
    :param expected: checksums promised, the strongest first.
    :param make_record: gives the record for a size (bytes) and a checksum.
    """

    def __init__(
        self,
        image_id: str,
        source: Iterable[bytes],
        sink: Sink | None,
        room: Room,
        *,
        length: int | None,
        expected: tuple[Checksum, ...],
        make_record: Callable[[int, str], Record],
    ) -> None:
        self.image_id = image_id
        #: Whether the image was stored in the end.
        self.stored = False
        self._source = source
        self._chunks: Iterator[bytes] | None = None
        self._sink = sink
        self._room = room
        self._length = length
        self._expected = expected
        self._make_record = make_record
        algorithms = [checksum.algorithm for checksum in expected] or [DEFAULT_ALGORITHM]
        self._digests = Digests(algorithms)
        self._received = 0
        self._held = b""
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._pipeline: Pipeline | None = None
        self._ended = self._closed = False
        self._lock = threading.RLock()

    # The reader's side

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._lock:
            while not self._ended:
                chunk = self._pull()
                if chunk is None:
                    self._finish()
                    if self._held:
                        return self._held
                else:
                    released = self._pass_on(chunk)
                    if released:
                        return released
        raise StopIteration

    def close(self) -> None:
        """Give the fill up if it is not at its end, and close the app's iterable."""
        with self._lock:
            if not self._ended:
                whole = "" if self._length is None else f" of {self._length}"
                self._give_up(f"the client left after {self._received}{whole} bytes")
            if not self._closed:
                self._closed = True
                close = getattr(self._source, "close", None)
                if close is not None:
                    close()

    def _pull(self) -> bytes | None:
        """Get the app's next chunk that is not empty, or ``None`` at its end."""
        try:
            if self._chunks is None:
                self._chunks = iter(self._source)
            # Not by ``for``: it would call the iterator's own ``__iter__`` for each chunk.
            while (chunk := next(self._chunks, None)) is not None:
                if chunk:
                    return chunk
        except BaseException as exc:
            self._give_up(f"the app failed after {self._received} bytes: {_described(exc)}")
            raise
        return None

    def _pass_on(self, chunk: bytes) -> bytes:
        """Take a chunk in. :return: what may go out for it; the last one waits."""
        self._received += len(chunk)
        self._take(chunk)
        if self._length is None:
            released, self._held = self._held, chunk
            return released
        if self._received > self._length:
            self._refuse(
                LengthMismatch(self.image_id, f"longer than the {self._length} bytes promised")
            )
        if self._received < self._length:
            return chunk
        self._held = chunk
        return b""

    # The cache's side

    def _take(self, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._gathered_size += len(chunk)
        if self._gathered_size >= BLOCK:
            self._hand_over()

    def _hand_over(self) -> None:
        """Have the gathered block hashed and written by other threads."""
        block = self._take_gathered()
        if self._pipeline is None:
            self._pipeline = Pipeline([self._digests.update, self._write])
        self._pipeline.put(block)

    def _take_gathered(self) -> bytes:
        block = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_size = 0
        return block

    def _write(self, block: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            self._room.extend(sink, len(block))
            sink.write(block)
        except Exception as exc:
            reason = self._not_cached(exc)
            self._sink = None
            sink.rollback(f"could not be written: {reason}", keep=False)

    def _work_off(self) -> None:
        """Have everything that was received hashed and written."""
        if self._pipeline is not None:
            self._pipeline.drain()
            for error in self._pipeline.errors:
                if error is not None:
                    raise error
        if self._gathered:
            concurrency.run_blocking(self._work_on, self._take_gathered())

    def _work_on(self, block: bytes) -> None:
        self._digests.update(block)
        self._write(block)

    def _finish(self) -> None:
        """Verify and store; the app has given all it has."""
        try:
            self._work_off()
            if self._length is not None and self._received != self._length:
                self._refuse(
                    LengthMismatch(
                        self.image_id,
                        f"ended after {self._received} of the {self._length} bytes promised",
                    )
                )
            wrong = self._digests.mismatch(self._expected)
            if wrong is not None:
                actual = self._digests.hexdigests()[wrong.algorithm]
                self._refuse(
                    ChecksumMismatch(
                        self.image_id, f"{wrong.algorithm} is {actual}, not {wrong.hexdigest}"
                    )
                )
        except BaseException as exc:
            self._give_up(_described(exc))
            raise
        self._ended = True
        self._commit()

    def _commit(self) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        algorithm, hexdigest = next(iter(self._digests.hexdigests().items()))
        try:
            record = self._make_record(self._received, f"{algorithm}:{hexdigest}")
            concurrency.run_blocking(sink.commit, record)
            self.stored = True
        except Exception as exc:
            self._not_cached(exc)

    def _not_cached(self, exc: Exception) -> str:
        """Log why the image is not stored; the response goes on. :return: the reason."""
        if isinstance(exc, DriverError):
            log.warning("%s: not cached: %s", self.image_id, exc.reason)
            return exc.reason
        log.error("%s: not cached", self.image_id, exc_info=exc)
        return _described(exc)

    def _refuse(self, error: LengthMismatch | ChecksumMismatch) -> None:
        log.warning("%s; the response is cut short", error)
        self._give_up(error.reason)
        raise error

    def _give_up(self, reason: str) -> None:
        self._ended = True
        self._held = b""
        if self._pipeline is not None:
            self._pipeline.drain()
        sink, self._sink = self._sink, None
        if sink is not None:
            concurrency.run_blocking(sink.rollback, reason)


def _described(exc: BaseException) -> str:
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
