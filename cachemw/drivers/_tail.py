"""A fill as others see it: its two files, open.

They stay open while the fill is committed, rolled back or deleted, so what
its writer said last can always be read.

Imports: errors, drivers._boot, drivers._claims, drivers._descriptors, drivers._statefile,
drivers._states, drivers.base.
"""

from __future__ import annotations

import errno
import os

from ..errors import DriverError
from . import _claims, _statefile
from ._boot import boot_id
from ._descriptors import SharedDescriptor
from ._statefile import StateFile
from ._states import Header
from .base import FillState, Tail

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FileTail(Tail):
    """``incomplete/<entry>`` and its state file, open.

    :param fd: the file with the bytes, closed with the tail.
    :param state: its state file, closed with the tail.
    """

    def __init__(self, image_id: str, fd: int, state: StateFile) -> None:
        self._image_id = image_id
        self._state = state
        self._bytes = SharedDescriptor(fd, state.close)

    def state(self) -> FillState:
        try:
            with self._bytes:
                header = self._header()
                announced = self._state.announced(header)
        except OSError as exc:
            raise self._translated(exc) from exc
        if announced is None:
            if header.head.size:
                raise DriverError(self._image_id, "the record of its fill is damaged")
            return FillState(None, None, 0, header.outcome)
        record, length = announced
        readable = _readable(header, length)
        return FillState(record, length, readable, header.outcome, header.reserved)

    def pread(self, size: int, position: int) -> bytes:
        try:
            with self._bytes as fd:
                wanted = min(size, max(0, self._readable() - position))
                data = os.pread(fd, wanted, position) if wanted else b""
                # Whoever cuts the file says first that it is not to be read.
                if self._readable() < position + wanted:
                    data = b""
        except OSError as exc:
            raise self._translated(exc) from exc
        if len(data) != wanted:
            raise DriverError(self._image_id, "bytes of its fill are missing")
        return data

    def _readable(self) -> int:
        header = self._header()
        announced = self._state.announced(header)
        return _readable(header, None if announced is None else announced[1])

    def want(self, position: int) -> None:
        try:
            with self._bytes:
                self._state.want(position)
        except (OSError, DriverError):
            pass  # it may not be written; the writer goes on by itself

    def is_alive(self) -> bool:
        try:
            with self._bytes as fd:
                return _claims.look_whether_locked(fd)
        except OSError:
            return False

    def is_current(self) -> bool:
        try:
            with self._bytes as fd:
                return os.fstat(fd).st_nlink > 0
        except OSError:
            return False

    def close(self) -> None:
        self._bytes.close()

    def _header(self) -> Header:
        header = self._state.header()
        if header is None:
            raise DriverError(self._image_id, "the state of its fill cannot be read")
        return header

    def _translated(self, exc: OSError) -> DriverError:
        return DriverError(self._image_id, (exc.strerror or str(exc)).lower())


def _readable(header: Header, length: int | None) -> int:
    if header.boot != boot_id():
        return 0  # a power cut may have taken bytes
    return header.readable if length is None else min(header.readable, length)


def open_tail(image_id: str, name: str, directory: int) -> FileTail | None:
    """Open a fill's files to look at them; ``None`` if there is no fill.

    :param directory: descriptor of ``incomplete/``.
    :raises OSError: they cannot be opened.
    """
    try:
        fd = os.open(name, _READ, dir_fd=directory)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        status = os.fstat(fd)
        found = None
        if _claims.is_only_name(name, directory, status):
            found = _statefile.find(name, status.st_ino, directory)
        if found is None:
            os.close(fd)
            return None
    except BaseException:
        os.close(fd)
        raise
    state, header = found
    tail = FileTail(image_id, fd, state)
    if header.outcome and not tail.is_alive():
        # Whoever died left it; it is nothing to wait for.
        tail.close()
        return None
    return tail
