"""The growing file of one fill.

Steps of a commit, each with a test in ``tests/crash``: the bytes are written,
the length is made right, the record is written, the file is synced, it is
renamed into place under the directory's lock, the directory is synced (with
``durability = full``), the driver's index is told.

Imports: concurrency, errors, drivers.base, drivers._boot, drivers._claims, drivers._forks,
drivers._invalid, drivers._records, drivers._writeback.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from .. import concurrency
from ..errors import CacheFull, DriverError
from . import _claims, _forks, _invalid, _records, _writeback
from ._boot import boot_id
from .base import Record, Sink

if TYPE_CHECKING:
    from ._files import FileDriver

log = concurrency.get_logger(__name__)

#: Bytes after which written pages are sent on their way to the device.
_WRITEBACK_STEP = 16 * 2**20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileSink(Sink):
    """``incomplete/<entry>``, open and locked; the lock goes when it is closed.

    :param fd: the file, empty, its lock held; closed by commit or rollback.
    """

    def __init__(self, driver: FileDriver, image_id: str, name: str, fd: int) -> None:
        self.image_id = image_id
        self.name = name
        self.fd = fd
        self.written = 0
        #: Whether the record is kept in ``.records/``.
        self.aside = False
        self._driver = driver
        self._length = 0
        self._sent = 0
        _forks.register(self)

    def forget_parent(self) -> None:
        """Leave the fill to the parent: in a child of fork the sink does nothing any more."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def fileno(self) -> int:
        return self.fd

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def is_named(self) -> bool:
        """Say whether the file is still the one in ``incomplete/``; the directory's lock held."""
        return _claims.is_only_name(self.name, self._driver.tree.incomplete, os.fstat(self.fd))

    def reserve(self, size: int) -> None:
        if size > self._length:
            try:
                os.ftruncate(self.fd, size)
            except OSError as exc:
                raise self._translated(exc) from exc
            self._length = size

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self.fd, view, self.written)
                self.written += count
                view = view[count:]
            if self.written - self._sent >= _WRITEBACK_STEP and self._driver.durability != "none":
                _writeback.start(self.fd, self._sent, self.written - self._sent)
                self._sent = self.written
        except OSError as exc:
            raise self._translated(exc) from exc
        self._length = max(self._length, self.written)
        return len(data)

    def commit(self, record: Record) -> None:
        if self.fd == -1:
            return
        try:
            if not self.is_named():
                raise DriverError(self.image_id, "deleted or changed while it was filled")
            if record.size != self.written:
                raise DriverError(
                    self.image_id, f"{self.written} bytes were written, not {record.size}"
                )
            self._make_durable(record)
            self._driver.publish(self, record)
        except OSError as exc:
            error = self._translated(exc)
            self.rollback(error.reason)
            raise error from exc
        except BaseException as exc:
            self.rollback(str(exc) or type(exc).__name__)
            raise
        self._close()

    def _make_durable(self, record: Record) -> None:
        sync = self._driver.durability != "none"
        if not sync:
            # After a power cut the length may be right and the bytes may not.
            record = dataclasses.replace(record, boot=boot_id())
        if self._length != self.written:
            os.ftruncate(self.fd, self.written)
        self._driver._before_commit(self.fd, self.name)
        self.aside = _records.write(self.fd, self.name, record, self._driver.tree.records, sync)
        if sync:
            _writeback.sync(self.fd)

    def rollback(self, reason: str, keep: bool = True) -> None:
        if self.fd == -1:
            return
        tree = self._driver.tree
        try:
            status = os.fstat(self.fd)
            named = self.is_named()  # else it was deleted, or it is an entry already
            if self.aside and (named or not status.st_nlink):
                _records.discard(self.name, status, tree.records)
            if named:
                os.ftruncate(self.fd, self.written if keep else 0)
                with self._driver.lock.hold():
                    if self.is_named():
                        _invalid.put(
                            self.fd, self.name, self.image_id, reason, tree.incomplete, tree.invalid
                        )
        except (OSError, DriverError) as exc:
            # It stays in incomplete/, held by nobody: used again, or removed by clean.
            log.warning("%s: failed (%s); its file stays: %s", self.image_id, reason, exc)
        finally:
            self._close()

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        try:
            # A child that was just forked has the descriptor too, and with it the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
        except OSError:
            pass  # EIO of a write that nobody waited for; the bytes were synced or dropped

    def _translated(self, exc: OSError) -> DriverError:
        reason = (exc.strerror or str(exc)).lower()
        if exc.errno in _FULL:
            return CacheFull(self.image_id, reason)
        return DriverError(self.image_id, reason)
