"""One fill: an image on its way from the app to its readers and into the cache.

Whoever has read all there is pumps the next chunk, one reader at a time, so
that a fill runs at the speed of its fastest reader and a slow client slows
nobody. The supervisor pumps for readers in other processes, and for nobody
where an image is worth finishing.

The last bytes are held back. Until length and checksum were found right and
the image was stored, no reader gets the end of it, so that a client never
holds a complete wrong image, and one that asks again at once gets a hit.
Trouble with the cache ends the storing, never the response; a wrong image
ends both.

Imports: concurrency, core.arrived, core.body, core.capacity, core.checksum, core.growing,
core.intake, core.reader, drivers.base, errors, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable

from .. import concurrency
from ..drivers.base import Part, Record, Sink
from ..errors import ChecksumMismatch, DriverError, FillError, LengthMismatch
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import APP_BYTES, DRIVER_SECONDS, FOLLOWERS
from .arrived import Arrived
from .body import Body, Chunk
from .capacity import Room
from .checksum import Checksum
from .growing import MOST, CutShort, FillFailed, FillLost, FillStalled, described, is_wrong
from .intake import Intake, not_cached
from .reader import Reader

log = concurrency.get_logger(__name__)

#: Share of an image to receive before its fill goes on for nobody: more than there is.
NEVER = 2.0

#: Bytes of an image whose end is not held back until the device has all of it, since that takes
#: long. What is shorter is an entry by then, in every process.
_LARGE = 256 * 2**20

#: Seconds for which a fill that is not worth finishing goes on after readers in other processes
#: were last seen to wait.
_GRACE = 0.8


class Fill:
    """One image on its way, from the moment that the app is asked for it.

    Then :meth:`begin` has the app's answer, or :meth:`decline` ends it without.
    Threads may share it.

    :param sink: where the image grows; ``None``: it is only verified.
    :param room: keeps the sink within the cache's bounds.
    :param finish_from: share of the image, 0 to 1, that must have been received for the fill to
        go on without readers.
    :param is_movable: whether any thread may pump it, or only that of the leading reader.
    :param ended: called once, when the fill is over.
    :param counters: count the app's bytes, and who reads along.
    """

    def __init__(
        self,
        image_id: str,
        sink: Sink | None,
        room: Room,
        *,
        finish_from: float = NEVER,
        is_movable: bool = False,
        ended: Callable[[Fill], object] = lambda fill: None,
        counters: Counters = NOBODY,
    ) -> None:
        self.image_id = image_id
        self.record: Record | None = None
        self.length: int | None = None
        self.declined = ""
        #: Whether nothing of the image was stored when it was claimed, nor since.
        self.is_first = False
        #: Whether the image was stored in the end.
        self.stored = False
        #: Whether all of it was found right, so that it is as good as an entry.
        self.is_verified = False
        self.is_movable = is_movable
        self.sink = sink
        self.room = room
        self._finish_from = finish_from
        self._on_end = ended
        self.counters = counters
        #: When the app answered, seconds since the epoch.
        self.since = 0.0
        # The app's side: whoever has set ``_pumping`` has it to himself.
        self._body = Body()
        self._is_resumable = False
        self._make_record: Callable[[int, str], Record]
        self._intake = Intake(image_id, None, room, ())
        self._pumping = False
        self._abandoned = False
        self._is_given_up = False
        #: When readers of other processes last waited.
        self._wanted = time.monotonic()
        # What readers see, under a lock that is held for moments.
        self._lock = concurrency.Lock()
        self._waiters: list[concurrency.Waiter] = []
        self._readers: set[Reader] = set()
        self._received = 0
        self._available = 0
        self._arrived = Arrived()
        self._over = False
        #: Hits of what is no entry yet.
        self._hits: list[Callable[[], object]] = []
        self._error: BaseException | None = None
        #: The one reader that has the app to itself after the storing ended, and what others
        #: can still have.
        self._last_reader: Reader | None = None
        #: Whether what was written in vain is gone, or is just going.
        self._is_freed = False
        self._freeing = concurrency.Lock()
        self._left_for_others = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._over

    @property
    def available(self) -> int:
        """See :class:`~cachemw.core.growing.Growing`."""
        return self._available

    @property
    def received(self) -> int:
        """Bytes that came, and those that were kept before them."""
        return self._received

    @property
    def followers(self) -> int:
        """Readers besides the one that asked the app."""
        with self._lock:
            return sum(not reader.is_leader for reader in self._readers)

    def why_not_stored(self) -> str:
        """Say in a word of :data:`~cachemw.metrics.declared.ROLLED_BACK` why a fill that is over
        did not become an entry; empty: it did."""
        error = self._error
        if self.stored:
            return ""
        if self._intake.failure is not None or error is None:
            return "cache"
        if isinstance(error, FillLost):
            return "client"
        if isinstance(error, ChecksumMismatch):
            return "checksum"
        return "length" if isinstance(error, LengthMismatch) else "app"

    @property
    def is_ending(self) -> bool:
        """Whether it is given up, and will be over in a moment."""
        return self._abandoned and not self._over

    def is_current(self) -> bool:
        """Say whether somebody who asks now may follow it."""
        if self._over or self._abandoned or self._is_freed:
            return False
        sink = self.sink
        return self.record is None or (sink is not None and sink.is_current())

    def is_overtaken(self) -> bool:
        """See :class:`~cachemw.core.growing.Growing`."""
        sink = self.sink
        return sink is not None and not sink.is_current()

    # The leader's side

    def begin(
        self,
        source: Iterable[Chunk],
        record: Record,
        *,
        length: int | None,
        expected: tuple[Checksum, ...],
        make_record: Callable[[int, str], Record],
        is_resumable: bool = False,
    ) -> Reader:
        """Begin to take in what the app answered.

        :param source: its chunks; its ``close`` is called exactly once.
        :param record: as other processes were told.
        :param length: bytes promised, or ``None``.
        :param expected: checksums promised, the strongest first.
        :param make_record: gives the final record for a size (bytes) and a checksum.
        :param is_resumable: whether the app can be asked for the rest of this version.
        :return: the leading reader.
        """
        self._body.begin(source)
        self._make_record = make_record
        self._is_resumable = is_resumable
        self._intake = Intake(self.image_id, self.sink, self.room, expected)
        leader = Reader(self, is_leader=True)
        self.since = time.time()
        with self._lock:
            self._readers.add(leader)
            if self.sink is None:
                self._last_reader = leader
            self.length = length
            self.record = record
        self._wake_all()
        return leader

    def decline(self, word: str, keeps: bool = False) -> None:
        """End a fill that has not begun: everybody asks the app for himself.

        :param word: why; empty: somebody else may lead.
        :param keeps: whether what is kept of the image stays all the same.
        """
        if self.record is not None or self._over:
            return
        self.declined = word
        sink, self.sink = self.sink, None
        try:
            if sink is not None:
                concurrency.run_blocking(sink.leave, "" if keeps else word)
                sink.close()
        finally:
            self._end()

    def hand_over(self) -> Sink | None:
        """End a fill that has not begun, and keep what was there to read for oneself.

        :return: to be closed by the caller.
        """
        sink, self.sink = self.sink, None
        try:
            if sink is not None:
                concurrency.run_blocking(sink.leave)
        finally:
            self._end()
        return sink

    # The readers' side

    def reader(self) -> Reader:
        """Give one more reader."""
        reader = Reader(self, is_leader=False)
        with self._lock:
            self._readers.add(reader)
        self.counters.add(FOLLOWERS)
        return reader

    def wait_for_record(self, seconds: float) -> bool:
        """See :class:`~cachemw.core.growing.Growing`."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if self.record is not None or self._over:
                    return self.record is not None
                waiter = self._new_waiter()
            if not waiter.wait(max(deadline - time.monotonic(), 0.0)):
                return self.record is not None

    def read(self, reader: Reader, position: int, most: int, patience: float) -> bytes:
        """Give bytes from ``position``; see :class:`~cachemw.core.growing.GrowingReader`."""
        deadline = time.monotonic() + patience
        while True:
            waiter = None
            with self._lock:
                found = self._find(reader, position, most)
                if found is None and self.is_verified:
                    found = self._end_of(position)
                if found is None and not self._over:
                    if self._may_pump(reader):
                        self._pumping = True
                    else:
                        waiter = self._new_waiter()
            if isinstance(found, bytes):
                return found
            if found is not None:
                return self._from_file(found)
            if waiter is not None:
                if not waiter.wait(max(deadline - time.monotonic(), 0.0)):
                    raise FillStalled(self.image_id, f"nothing came for {patience:g} seconds")
            elif self._over:
                return self._at_end(reader, position)
            else:
                self._pump(reader)

    def leave(self, reader: Reader) -> None:
        """Count a reader out; without readers the fill goes on only if it is worth it."""
        if not reader.is_leader:
            self.counters.add(FOLLOWERS, -1)
        with self._lock:
            self._readers.discard(reader)
            has_begun = self.record is not None and not self.is_verified
            is_left = has_begun and not self._readers and not self._over
            if is_left and not self.is_worth_finishing():
                self._abandoned = not (self._can_go_on() and self._has_readers_elsewhere())
            elif has_begun and reader.is_leader and not self.is_movable:
                self._abandoned = True  # nobody else may have the app's answer
            is_mine = self._abandoned and not self._pumping and not self._over
            if is_mine:
                self._pumping = True
        if is_mine:
            self._pump(None)
        self._let_go_of_file()

    def stop(self) -> bool:
        """Go on for nobody: the cache is being closed. What came is kept.

        :return: whether it will be over as soon as the app gives another chunk, or it is stored.
        """
        with self._lock:
            if self._over or self.record is None:
                return False
            if self.is_verified:
                return True
            if self._readers:
                return False
            self._abandoned = True
            is_mine = not self._pumping
            self._pumping = True
        if is_mine:
            self._pump(None)
        return True

    def wait_until_over(self, seconds: float) -> None:
        """Wait until nothing is written any more."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                if self._over:
                    return
                waiter = self._new_waiter()
            if not waiter.wait(max(deadline - time.monotonic(), 0.0)):
                return

    def count_hit(self, count: Callable[[], object]) -> None:
        """Have a hit counted as soon as the image is an entry."""
        with self._lock:
            is_over = self._over
            if not is_over:
                self._hits.append(count)
        if is_over:
            count()

    def give_up(self) -> None:
        """Let it go on only for readers there are already, and keep nothing without them."""
        self._is_given_up = True

    def _new_waiter(self) -> concurrency.Waiter:
        waiter = concurrency.Waiter()
        self._waiters.append(waiter)
        return waiter

    def _may_pump(self, reader: Reader) -> bool:
        return not self._pumping and (self.is_movable or reader.is_leader)

    def _find(self, reader: Reader, position: int, most: int) -> bytes | Part | None:
        """Find bytes in memory, or where they are in the file; lock held.

        :return: ``None``: there are none yet.
        :raises FillLost: they are the last reader's alone.
        """
        available = self._available
        if self._last_reader is not None and self._last_reader is not reader:
            if position >= self._left_for_others:
                raise FillLost(self.image_id, "it is not stored any more")
            available = self._left_for_others
        if position >= available:
            return None
        stop = min(available, position + most)
        found = self._arrived.find(position, stop, self._intake.written)
        if found is None:
            raise FillLost(self.image_id, "it is not stored any more")
        return found

    def _from_file(self, part: Part) -> bytes:
        assert self.sink is not None
        size = min(MOST, part.stop - part.start)
        data = concurrency.run_blocking(self.sink.pread, size, part.start)
        if not data:
            raise FillLost(self.image_id, f"its file ends at byte {part.start}")
        return data

    def _at_end(self, reader: Reader, position: int) -> bytes:
        error = self._error
        if error is None:
            return self._end_of(position)
        if reader.is_leader and isinstance(error, Exception):
            raise error  # what is not one was meant for the thread or greenlet that met it
        if is_wrong(error):
            raise FillFailed(self.image_id, described(error)) from None
        raise FillLost(self.image_id, described(error)) from None

    def _end_of(self, position: int) -> bytes:
        """Give the end of the image to a reader there.

        :raises FillLost: it is beyond it: what it read elsewhere was longer.
        """
        if position > self._received:
            raise FillLost(self.image_id, f"it has {self._received} bytes")
        return b""

    # The app's side

    def is_worth_finishing(self) -> bool:
        """Say whether the fill goes on when nobody reads it."""
        if not self._can_go_on():
            return False
        share = self._received / self.length if self.length else 1.0
        return share >= self._finish_from

    def _can_go_on(self) -> bool:
        """Say whether it can go on without a reader here."""
        return (
            self.is_movable
            and not self._is_given_up
            and self.sink is not None
            and self._intake.failure is None
        )

    def is_wanted_elsewhere(self) -> bool:
        """Say whether a reader in another process waits for more than it was shown."""
        return self._wanted_elsewhere() > self._intake.published

    def _has_readers_elsewhere(self) -> bool:
        """Say whether readers in other processes ever waited; they may have left since."""
        return self._wanted_elsewhere() > 0

    def _wanted_elsewhere(self) -> int:
        """Give the furthest position at which a reader in another process waits, as far as
        anybody can say: the fill may be ending just now."""
        sink = self.sink
        try:
            return 0 if sink is None else sink.wanted()
        except DriverError:
            return 0

    def attend(self) -> bool:
        """Do what other processes need soon. :return: whether somebody must pump for them, or
        for nobody."""
        if self._over or self.is_verified or self.record is None:
            return False
        now = time.monotonic()
        wanted = self.is_wanted_elsewhere()
        if wanted:
            self._wanted = now
            self._intake.flush()
        if not self.is_movable or self._pumping:
            return False
        if self._readers:
            # What is not stored any more cannot be shown to others, and would only gather here.
            return wanted and self._intake.failure is None
        if not self.is_worth_finishing() and now - self._wanted > _GRACE:
            with self._lock:
                self._abandoned = not self._readers
            return self._abandoned
        return wanted or self.is_worth_finishing()

    def pump_on(self) -> None:
        """Pump for as long as :meth:`attend` would have it."""
        while self.attend():
            with self._lock:
                if self._pumping or self._over:
                    return
                self._pumping = True
            self._pump(None)

    def _pump(self, reader: Reader | None) -> None:
        """Take the app's next chunk; ``_pumping`` is set already.

        :param reader: for whom, if for anybody here.
        """
        try:
            if self._abandoned:
                self._give_up()
            else:
                chunk = self._body.next_chunk()
                if chunk is None:
                    self._finish()
                else:
                    self._take(chunk, reader)
        except BaseException as exc:
            self._fail(exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            with self._lock:
                # Whoever abandoned it meanwhile left the rest to us.
                is_mine = self._abandoned and not self._over and not self.is_verified
                self._pumping = is_mine
            self._wake_all()
        if is_mine:
            self._pump(None)

    def _take(self, chunk: Chunk, reader: Reader | None) -> None:
        """Take a chunk in, and let readers have what may go out for it."""
        start = self._received
        stop = chunk.stop if isinstance(chunk, Part) else start + len(chunk)
        if self.length is not None and stop > self.length:
            raise LengthMismatch(self.image_id, f"longer than the {self.length} bytes promised")
        # Without a length any chunk may be the last.
        is_last = self.length is None or stop == self.length
        if isinstance(chunk, Part):
            self._intake.take_kept(chunk)
            if is_last:
                # Somebody may have read it already, before it was left: no use in holding it.
                self._intake.work_off()
        else:
            self._intake.take(chunk)
            self.counters.add(APP_BYTES, len(chunk))
        with self._lock:
            self._received = stop
            self._available = self._intake.limit = start if is_last else stop
            self._arrived.forget_written(self._intake.written)
            self._arrived.add(start, chunk)
            if self._intake.failure is not None or self._last_reader is not None:
                self._go_on_for_one(reader)
        self._free_bytes()

    def _go_on_for_one(self, reader: Reader | None) -> None:
        """Nothing more is stored: one reader has the app for itself from here; lock held."""
        if self._last_reader is None:
            # Nobody but the leader cannot go on elsewhere.
            leader = next((other for other in self._readers if other.is_leader), None)
            reader = leader or reader
            if reader is None:
                reader = max(self._readers, key=lambda other: other.position, default=None)
            self._last_reader = reader
            self._left_for_others = self._received
            self.declined = self.declined or "not-stored"  # for those who come now
        last = self._last_reader
        if last is None or last not in self._readers:
            self._abandoned = True
            return
        # What only the last reader could have, and has.
        self._arrived.forget_between(self._left_for_others, last.position)

    def _free_bytes(self) -> None:
        """Free what was written in vain, as soon as nobody needs it any more."""
        last = self._last_reader
        if last is None or self._intake.failure is None or self.sink is None or self._is_freed:
            return
        if self.sink.kept is not None:
            return  # further parts are still to be read from the file
        if len(self._readers) == 1 and last.position >= self._intake.written:
            self._free()

    def _free(self) -> None:
        """Free what was written in vain, once; it is gone when this returns."""
        with self._freeing:
            sink = self.sink
            if sink is None or self._is_freed:
                return
            self._is_freed = True
            reason = f"could not be written: {self._intake.failure}"
            concurrency.run_blocking(functools.partial(sink.rollback, reason, keep=False))

    def _finish(self) -> None:
        """Verify and store; the app has given all it has."""
        self._intake.end()
        if self.length is not None and self._received != self.length:
            raise CutShort(
                self.image_id,
                f"ended after {self._received} of the {self.length} bytes promised",
            )
        checksum = self._intake.verify()
        self._close_body()
        if self.is_movable and self._received >= _LARGE and self.sink is not None:
            self._commit_later(checksum)
        else:
            self._commit(checksum)

    def _commit_later(self, checksum: str) -> None:
        """Let readers have the end before the bytes are on the device.

        They are right, and whoever asks again follows this fill until it is an entry.
        """
        self._release()
        self._wake_all()
        try:
            concurrency.start_request_thread(lambda: self._commit(checksum), "cachemw-commit")
        except RuntimeError:
            self._commit(checksum)

    def _release(self) -> None:
        with self._lock:
            self.is_verified = True
            self._available = self._received
        concurrency.run_blocking(self._intake.release, self._received)

    def _commit(self, checksum: str) -> None:
        try:
            self._store(checksum)
        finally:
            with self._lock:
                self._available = self._received
                if self.stored:
                    # The last chunk is what everybody waits for now.
                    self._arrived.forget_but_last()
            self._end()
            for count in self._hits:
                count()

    def _store(self, checksum: str) -> None:
        sink = self.sink
        if sink is None:
            return
        if self._intake.failure is not None:
            if sink.kept is not None:
                # Its last part may be one that was kept: still to be read, so it is not freed.
                concurrency.run_blocking(sink.leave, "not-stored")
            elif not self._is_needed():
                # Else it goes when its readers have passed.
                self._free()
            return
        try:
            record = self._make_record(self._received, checksum)
            self.is_first = False  # whoever comes now may find an entry
            began = time.perf_counter()
            concurrency.run_blocking(sink.commit, record)
            self.counters.observe(DRIVER_SECONDS, time.perf_counter() - began, "commit")
            self.stored = True
        except Exception as exc:
            not_cached(self.image_id, exc)

    def _is_needed(self) -> bool:
        """Say whether readers are behind what is in the file."""
        with self._lock:
            return any(reader.position < self._intake.written for reader in self._readers)

    def _fail(self, exc: BaseException) -> None:
        """End for all readers: the app failed, or what it sent is wrong."""
        if isinstance(exc, FillError):
            log.warning("%s; the response is cut short", exc)
            reason = exc.reason
        else:
            reason = f"the app failed after {self._received} bytes: {described(exc)}"
        self._error = exc
        self._drop(reason, self._is_resumable and not is_wrong(exc), is_wrong=is_wrong(exc))

    def _give_up(self) -> None:
        """End since nobody reads it any more."""
        whole = "" if self.length is None else f" of {self.length}"
        reason = f"the client left after {self._received}{whole} bytes"
        self._error = FillLost(self.image_id, reason)
        is_of_use = self._finish_from < NEVER or self._has_readers_elsewhere()
        keeps = bool(self._readers) or (is_of_use and not self._is_given_up)
        self._drop(reason, self._is_resumable and keeps, keep=False)

    def _drop(
        self, reason: str, is_resumable: bool, *, keep: bool = True, is_wrong: bool = False
    ) -> None:
        """End without storing it; what can be gone on with is kept.

        :param keep: whether what cannot is kept for the operator.
        """
        sink = self.sink
        try:
            if sink is not None:
                is_whole = self._settle()
                if is_resumable and is_whole:
                    concurrency.run_blocking(sink.leave)
                elif self._intake.failure is not None:
                    self._free()
                else:
                    roll_back = functools.partial(sink.rollback, keep=keep, is_wrong=is_wrong)
                    concurrency.run_blocking(roll_back, reason)
        finally:
            try:
                self._close_body()
            finally:
                self._end()

    def _settle(self) -> bool:
        """Have what came written. :return: whether all of it is."""
        try:
            self._intake.end()
        except Exception as exc:
            log.warning("%s: %s", self.image_id, described(exc))
            return False
        return self._intake.failure is None

    def _close_body(self) -> None:
        try:
            self._body.close()
        except Exception:
            log.exception("%s: closing the app's answer failed", self.image_id)

    def _end(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._wake_all()
        self._let_go_of_file()
        self._on_end(self)

    def _let_go_of_file(self) -> None:
        """Close the file once it is over and nobody reads it any more."""
        sink = self.sink
        failure = None if sink is None or not self._over else self._intake.failure
        if sink is not None and failure is not None and sink.kept is None:
            if self._is_needed():
                return
            self._free()
        with self._lock:
            if not self._over or self._readers:
                return
            sink, self.sink = self.sink, None
            self._arrived.clear()
        if sink is not None:
            concurrency.run_blocking(sink.close)

    def _wake_all(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()
