"""What becomes of a fill's bytes: they are hashed, and written, beside the response.

Trouble with the cache ends the storing, never the response.

Imports: concurrency, errors, core.capacity, core.checksum, core.growing, core.pipeline,
drivers.base.
"""

from __future__ import annotations

from .. import concurrency
from ..drivers.base import Part, Sink
from ..errors import CacheFull, ChecksumMismatch, DriverError
from .capacity import Room
from .checksum import Checksum, Digests
from .growing import described
from .pipeline import Pipeline

log = concurrency.get_logger(__name__)

#: Bytes gathered before they are hashed and written (an app's chunk may be larger).
BLOCK = 512 * 1024

#: What is computed where the app promises no checksum.
DEFAULT_ALGORITHM = "sha256"

#: New bytes with their position, or a part that is in the file already.
_Work = tuple[int, bytes | Part]


class Intake:
    """Takes in the bytes of one image, in order.

    Calls come from one thread at a time, but for :meth:`flush` and the attributes.

    :param sink: where they are written; ``None``: they are only hashed.
    :param room: keeps the sink within the cache's bounds.
    :param expected: checksums promised, the strongest first.
    """

    def __init__(
        self, image_id: str, sink: Sink | None, room: Room, expected: tuple[Checksum, ...]
    ) -> None:
        self.image_id = image_id
        #: Bytes that are in the file, from the first.
        self.written = 0
        #: Bytes that readers may have once they are written.
        self.limit = 0
        #: Bytes that readers in other processes were told of.
        self.published = 0
        #: Why the bytes are not stored any more; the file still has those that were written.
        self.failure: str | None = None
        self._sink = sink
        self._room = room
        self._expected = expected
        algorithms = [checksum.algorithm for checksum in expected] or [DEFAULT_ALGORITHM]
        self._digests = Digests(algorithms)
        self._received = 0
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        self._pipeline: Pipeline[_Work] | None = None
        self._is_ended = False
        # Held while blocks are handed over; who only flushes does not wait for it.
        self._lock = concurrency.Lock()

    def take(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        with self._lock:
            self._received += len(chunk)
            self._gathered.append(chunk)
            self._gathered_size += len(chunk)
        if self._gathered_size >= BLOCK:
            if self._pipeline is not None:
                self._pipeline.wait_for_room()
            with self._lock:
                self._hand_over()

    def take_kept(self, part: Part) -> None:
        """Take in bytes that are in the file already."""
        with self._lock:
            self._hand_over()
            self._received = part.stop
            self._start_pipeline().put((part.start, part))

    def flush(self) -> None:
        """Have what is gathered written soon, since other processes wait for it."""
        if self._lock.acquire(blocking=False):
            try:
                if self._is_ended:
                    return
                if self._gathered:
                    self._hand_over()
                elif self._is_idle():
                    self._publish()
            finally:
                self._lock.release()

    def work_off(self) -> None:
        """Have everything that was taken in hashed and written.

        :raises Exception: it could not be hashed.
        """
        work = None
        with self._lock:
            # In one step: who flushes may begin a pipeline at any time.
            pipeline = self._pipeline
            if pipeline is not None:
                self._hand_over()
            elif self._gathered:
                work = self._take_gathered()
        if pipeline is not None:
            pipeline.drain()
            for error in pipeline.errors:
                if error is not None:
                    raise error
        elif work is not None:
            concurrency.run_blocking(self._work_on, *work)

    def end(self) -> None:
        """Have everything that was taken in hashed and written; then who flushes does nothing,
        since it would tell of fewer bytes than whoever ends the sink.

        :raises Exception: it could not be hashed.
        """
        with self._lock:
            self._is_ended = True
        self.work_off()

    def verify(self) -> str:
        """Compare all that came with the checksums promised.

        :return: the strongest checksum of the bytes.
        :raises ChecksumMismatch: they are others.
        """
        wrong = self._digests.mismatch(self._expected)
        actual = self._digests.hexdigests()
        if wrong is not None:
            raise ChecksumMismatch(
                self.image_id,
                f"{wrong.algorithm} is {actual[wrong.algorithm]}, not {wrong.hexdigest}",
            )
        algorithm, hexdigest = next(iter(actual.items()))
        return f"{algorithm}:{hexdigest}"

    def _hand_over(self) -> None:
        """Have the gathered block hashed and written by other threads; lock held."""
        if self._gathered:
            self._start_pipeline().put(self._take_gathered())

    def _start_pipeline(self) -> Pipeline[_Work]:
        if self._pipeline is None:
            self._pipeline = Pipeline([self._hash, self._write], _size)
        return self._pipeline

    def _is_idle(self) -> bool:
        return self._pipeline is None or self._pipeline.is_idle()

    def _take_gathered(self) -> tuple[int, bytes]:
        block = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_size = 0
        return self._received - len(block), block

    def _work_on(self, start: int, block: bytes) -> None:
        self._digests.update(block)
        self._write((start, block))

    def _hash(self, work: _Work) -> None:
        start, block = work
        if isinstance(block, bytes):
            self._digests.update(block)
            return
        assert self._sink is not None
        while start < block.stop:
            piece = self._sink.pread(min(BLOCK, block.stop - start), start)
            if not piece:
                raise DriverError(self.image_id, f"kept bytes end at {start}")
            self._digests.update(piece)
            start += len(piece)

    def _write(self, work: _Work) -> None:
        start, block = work
        if self._sink is None or self.failure is not None:
            return
        if isinstance(block, Part):
            self.written = block.stop
        else:
            try:
                self._write_block(self._sink, start, block)
            except Exception as exc:
                self.failure = not_cached(self.image_id, exc)
                return
            self.written = start + len(block)
        self._publish()

    def _write_block(self, sink: Sink, start: int, block: bytes) -> None:
        self._room.extend(sink, start + len(block))
        try:
            sink.write(block, start)
        except CacheFull as exc:
            # The device is full before our own bounds are: others fill it too.
            try:
                self._room.relieve(len(block))
            except CacheFull:
                raise exc from None
            sink.write(block, start)

    def _publish(self) -> None:
        readable = min(self.written, self.limit)
        if self._sink is None or self.failure is not None or readable <= self.published:
            return
        try:
            self._sink.publish(readable)
        except Exception as exc:
            self.failure = not_cached(self.image_id, exc)
            return
        self.published = readable

    def release(self, size: int) -> None:
        """Let readers in other processes have all of an image that was found right."""
        self.limit = size
        self._publish()


def not_cached(image_id: str, exc: Exception) -> str:
    """Log why an image is not stored; the response goes on. :return: the reason."""
    if isinstance(exc, DriverError):
        log.warning("%s: not cached: %s", image_id, exc.reason)
        return exc.reason
    log.error("%s: not cached", image_id, exc_info=exc)
    return described(exc)


def _size(work: _Work) -> int:
    block = work[1]
    # A part in the file takes no memory while it waits.
    return len(block) if isinstance(block, bytes) else 0
