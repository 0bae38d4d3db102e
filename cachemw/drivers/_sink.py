"""The growing file of one fill.

Steps of a commit, each with a test in ``tests/crash``: the bytes are written,
the checksums of the chunks are made whole, the length is made right, the
record is written, the file is synced, it is renamed into place under the
directory's lock, the outcome is written into the state file, the directory is
synced (with ``durability = full``), the driver's index is told, the state
file becomes the checksums of the image or is removed.

Imports: concurrency, drivers._boot, drivers._changes, drivers._claims, drivers._descriptors,
drivers._fills, drivers._forks, drivers._invalid, drivers._parts, drivers._records,
drivers._statefile, drivers._sums, drivers._writeback, drivers.base, errors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from .. import concurrency
from ..errors import CacheFull, DriverError
from . import _claims, _fills, _forks, _invalid, _records, _statefile, _sums, _writeback
from ._boot import boot_id
from ._descriptors import SharedDescriptor
from ._parts import Chunks
from .base import Record, Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._changes import ChangingFiles

log = concurrency.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes after which written pages are sent on their way to the device.
_WRITEBACK_STEP = 16 * 2**20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: Why an image that is right is not there for others: it could not be stored.
_NOT_STORED = "declined: not-stored"

#: It is not an entry either, but all of it can be read.
_VERIFIED = "verified"


def _one_at_a_time(
    method: Callable[Concatenate[FileSink, P], T],
) -> Callable[Concatenate[FileSink, P], T]:
    """Have a method wait for the others that change the fill.

    Whoever ends it may not know that a block is just being written, or that somebody else ends
    it: bytes written after its file was cut would leave a hole before them, of zeros.
    """

    @functools.wraps(method)
    def call(self: FileSink, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._changing:
            return method(self, *args, **kwargs)

    return call


class FileSink(Sink):
    """``incomplete/<entry>``, open and locked, and its state; the lock goes when it is closed.

    :param begun: its files, closed by commit, rollback or leave.
    """

    def __init__(
        self, driver: ChangingFiles, image_id: str, name: str, begun: _fills.Begun
    ) -> None:
        self.image_id = image_id
        self.name = name
        #: Whether the record is kept in ``.records/``.
        self.aside = False
        #: Whether the checksums of the chunks can be kept.
        self.has_sums = False
        self._driver = driver
        self._changing = concurrency.RLock()
        self._reserved = 0
        self._take(begun)
        _forks.register(self)

    def _take(self, begun: _fills.Begun) -> None:
        """Write into these files from now on."""
        self.fd, self._length, self.state, self.kept, _ = begun
        self.written = 0
        self._sent = 0
        self._shared = SharedDescriptor(self.fd)
        # Not a method of this object, which would then outlive its last reference.
        self._chunks = Chunks(functools.partial(_read_back, self._shared))
        for chunk in begun.chunks:
            self._chunks.keep(chunk)
        #: Whether others know what the fill is.
        self._announced = self._goes_on = begun.kept is not None
        self._committed = False

    def forget_parent(self) -> None:
        """Leave the fill to the parent: in a child of fork the sink does nothing any more."""
        self._changing = concurrency.RLock()
        self._shared.forget_parent()
        self.fd = -1
        self._shared.close()
        self.state.forget_parent()

    def fileno(self) -> int:
        return self.fd

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def is_named(self) -> bool:
        """Say whether the file is still the one in ``incomplete/``; the directory's lock held."""
        return _claims.is_only_name(self.name, self._driver.tree.incomplete, os.fstat(self.fd))

    # What others see

    @_one_at_a_time
    def announce(self, record: Record, length: int | None, keep: bool = False) -> None:
        if self.fd == -1:
            return
        with self._translating():
            if self._announced and not keep:
                self._begin_anew()
            self.state.announce(record, length)
        self._announced = True
        self._goes_on = False
        if self.kept is not None:
            self.written = self._chunks.parts.stop_from(0)

    def _begin_anew(self) -> None:
        """Take new files, so that whoever reads the old ones meets nothing of the new."""
        incomplete = self._driver.tree.incomplete
        with self._driver.lock.hold():
            if not self.is_named():
                raise DriverError(self.image_id, "deleted or changed while it was filled")
            begun = _fills.replace(self.name, os.fstat(self.fd).st_ino, incomplete)
        reserved, self._reserved = self._reserved, 0
        self._let_go()
        self.close()
        self._take(begun)
        self.reserve(reserved)

    @_one_at_a_time
    def publish(self, readable: int) -> None:
        if self.fd == -1:
            return
        with self._translating():
            self.state.publish(readable)

    def wanted(self) -> int:
        if self.fd == -1:
            return 0
        with self._translating():
            return self.state.wanted()

    def is_current(self) -> bool:
        try:
            with self._shared as fd:
                return os.fstat(fd).st_nlink > 0
        except OSError:
            return False

    # Bytes

    @_one_at_a_time
    def reserve(self, size: int) -> None:
        if size <= self._reserved or self.fd == -1:
            return
        with self._translating():
            self.state.reserve(size)
            if size > self._length:
                os.ftruncate(self.fd, size)
                self._length = size
        self._reserved = size

    @_one_at_a_time
    def write(self, data: bytes, position: int | None = None) -> int:
        if self.fd == -1:
            return len(data)
        with self._translating():
            if self._goes_on:
                # What was kept belongs to another answer as far as anybody knows.
                self._begin_anew()
            if position is not None and position != self.written:
                self.written = self._sent = position
            self._write_all(memoryview(data))
            if self.written - self._sent >= _WRITEBACK_STEP and self._driver.durability != "none":
                _writeback.start(self.fd, self._sent, self.written - self._sent)
                self._sent = self.written
        return len(data)

    def _write_all(self, view: memoryview) -> None:
        whole = []
        while view:
            count = os.pwrite(self.fd, view, self.written)
            whole += self._chunks.note(self.written, view[:count])
            self.written += count
            self._length = max(self._length, self.written)
            view = view[count:]
        self.state.put_sums(whole)

    def pread(self, size: int, position: int) -> bytes:
        available = self._chunks.parts.stop_from(position) - position
        if available <= 0:
            return b""
        try:
            with self._shared as fd:
                data = os.pread(fd, min(size, available), position)
        except OSError as exc:
            if exc.errno == errno.EBADF:
                return b""  # it is at its end
            raise
        # The file may have been cut meanwhile; then nothing is noted any more.
        return data if self._chunks.parts.stop_from(position) > position else b""

    # The end

    @_one_at_a_time
    def commit(self, record: Record) -> None:
        if self.fd == -1:
            return
        try:
            if not self.is_named():
                raise DriverError(self.image_id, "deleted or changed while it was filled")
            parts = self._chunks.parts
            if not parts.are(record.size):
                raise DriverError(
                    self.image_id, f"{parts.end} bytes were written, not {record.size}"
                )
            self._make_sums(record)
            self._make_durable(record)
            self._driver.enter(self, record)
        except OSError as exc:
            # Its bytes may be gone from the device, and from memory in a while.
            self._fail(self._translated(exc).reason, _NOT_STORED)
            raise self._translated(exc) from exc
        except BaseException as exc:
            is_whole = self._chunks.parts.are(record.size)
            self._fail(str(exc) or type(exc).__name__, _VERIFIED if is_whole else _NOT_STORED)
            raise
        self._let_go()

    def _make_sums(self, record: Record) -> None:
        if not _sums.are_of_use(record.size):
            return
        try:
            self.state.put_sums(self._chunks.settle())
            self.state.tie(record.size, record.checksum)
            self.has_sums = True
        except OSError as exc:
            log.warning("%s: without checksums of its chunks: %s", self.image_id, exc)

    def _make_durable(self, record: Record) -> None:
        sync = self._driver.durability != "none"
        if not sync:
            # After a power cut the length may be right and the bytes may not.
            record = dataclasses.replace(record, boot=boot_id())
        if self._length != record.size:
            os.ftruncate(self.fd, record.size)
        self._driver._before_commit(self.fd, self.name)
        self.aside = _records.write(self.fd, self.name, record, self._driver.tree.records, sync)
        if sync:
            _writeback.sync(self.fd)

    def tell_committed(self, size: int) -> None:
        """Tell others that the image is stored, once it is. Never raises."""
        self._committed = True
        self.state.end("committed", size)

    @_one_at_a_time
    def rollback(self, reason: str, *, keep: bool = True, is_wrong: bool = True) -> None:
        if self.fd != -1:
            outcome = f"{'failed' if is_wrong else 'broken'}: {reason}"
            self._give_up(reason, keep, outcome if keep else _NOT_STORED)

    def _fail(self, reason: str, outcome: str) -> None:
        """End after a commit that failed: the image is right, and yet not there.

        :param outcome: :data:`_VERIFIED` where those who read it can still have all of it.
        """
        if outcome == _VERIFIED:
            self.state.end(outcome, self._chunks.parts.end)
        self._give_up(reason, True, outcome)

    def _give_up(self, reason: str, keep: bool, outcome: str) -> None:
        tree = self._driver.tree
        if outcome and not self._committed:
            self.state.end(outcome)
        try:
            status = os.fstat(self.fd)
            named = self.is_named()  # else it was deleted, or it is an entry already
            if self.aside and (named or not status.st_nlink):
                _records.discard(self.name, status, tree.records)
            if named:
                self._free(keep)
                with self._driver.lock.hold():
                    if self.is_named():
                        _invalid.put(
                            self.fd, self.name, self.image_id, reason, tree.incomplete, tree.invalid
                        )
        except (OSError, DriverError) as exc:
            # It stays in incomplete/, held by nobody: replaced, or removed by clean.
            log.warning("%s: failed (%s); its file stays: %s", self.image_id, reason, exc)
        finally:
            with contextlib.suppress(OSError):
                _statefile.remove(self.state.name, tree.incomplete)
            self._let_go()

    def _free(self, keep: bool) -> None:
        """Make the file as long as what is there of it; nothing is kept of one with holes."""
        end = self._chunks.parts.end
        if keep and self._chunks.parts.are(end):
            os.ftruncate(self.fd, end)
            return
        # In this order: who reads looks again after it.
        self._chunks = Chunks(self.pread)
        self.state.publish(0)
        os.ftruncate(self.fd, 0)

    @_one_at_a_time
    def leave(self, declined: str = "") -> None:
        if self.fd == -1:
            return
        if declined:
            self.state.end(f"declined: {declined}")
        try:
            if declined or not self._announced or not self._settle():
                self._remove()
        except (OSError, DriverError) as exc:
            log.warning("%s: its file stays: %s", self.image_id, exc)
        finally:
            self._let_go()

    def _settle(self) -> bool:
        """Make what is there ready to be gone on with. :return: whether there is anything."""
        self.state.put_sums(self._chunks.settle())
        if next(self.state.sums(), None) is None:
            return False
        os.ftruncate(self.fd, self._chunks.parts.end)
        self.state.reserve(0)
        return True

    def _remove(self) -> None:
        with self._driver.lock.hold():
            if self.is_named():
                status = os.fstat(self.fd)
                _fills.remove_files(self.name, status.st_ino, self._driver.tree.incomplete)
            else:
                _statefile.remove(self.state.name, self._driver.tree.incomplete)

    def _let_go(self) -> None:
        """Let go of the lock and the state; the bytes can still be read."""
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError):
            _claims.release(fd)
        self.state.close()

    @_one_at_a_time
    def close(self) -> None:
        if self.fd != -1:
            self.leave()
        self._shared.close()

    def __del__(self) -> None:
        if hasattr(self, "_shared"):
            self._shared.close()

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: OSError) -> DriverError:
        reason = (exc.strerror or str(exc)).lower()
        if exc.errno in _FULL:
            return CacheFull(self.image_id, reason)
        return DriverError(self.image_id, reason)


def _read_back(shared: SharedDescriptor, size: int, position: int) -> bytes:
    with shared as fd:
        return os.pread(fd, size, position)
