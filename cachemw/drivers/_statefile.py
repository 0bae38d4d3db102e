"""The open state file of a fill.

Its writer, and those of other processes who follow the fill, look at it and
change it at the same time, each value in one write. It is never synced: what
a power cut leaves of it is noticed (``_states``).

Imports: drivers._boot, drivers._descriptors, drivers._states, drivers.base.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence

from . import _states
from ._boot import boot_id
from ._descriptors import SharedDescriptor
from ._states import Chunk, Header
from .base import Record

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: How often a value is read again that others may be writing just now.
_TRIES = 50

#: Bytes of checksums read at a time.
_BLOCK = 64 * 1024

_SEEK_DATA = getattr(os, "SEEK_DATA", None)


class StateFile:
    """A state file. Threads may share it.

    :param fd: closed with it.
    :param name: of the file, in ``incomplete/``.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._shared = SharedDescriptor(fd)
        self.name = name
        #: What was announced when it was last read, and its head.
        self._last: tuple[_states.Head, tuple[Record, int | None]] | None = None

    # Reading

    def header(self) -> Header | None:
        """Read the header; ``None`` if it cannot be made out.

        :raises OSError: it cannot be read.
        """
        for _ in range(_TRIES):
            data = self._read(_states.HEADER, 0)
            header = _states.parse_header(data)
            if header is not None or not data.startswith(_states.MAGIC):
                return header
        return None

    def announced(self, header: Header) -> tuple[Record, int | None] | None:
        """Read record and promised length; ``None`` if there are none, or none that is whole.

        :raises OSError: they cannot be read.
        """
        for _ in range(_TRIES):
            last = self._last
            if last is not None and last[0] == header.head:
                return last[1]
            size = _states.record_size(header.head)
            if not size:
                return None
            data = self._read(size, _states.HEADER)
            announced = _states.read_announcement(header.head, data)
            if announced is not None:
                self._last = header.head, announced
                return announced
            again = self.header()
            if again is None:
                return None
            header = again
        return None

    def wanted(self) -> int:
        """Give the furthest position at which somebody waits; 0 if it cannot be made out."""
        for _ in range(_TRIES):
            wanted = _states.read_number(self._read(16, _states.WANTED))
            if wanted is not None:
                return wanted
        return 0

    def sums(self) -> Iterator[Chunk]:
        """Read the checksums of the chunks that something is there of, in order.

        :raises OSError: they cannot be read.
        """
        position = _states.SUMS
        while True:
            # The file has holes where the image has none of its bytes yet.
            with self._shared as fd:
                position = max(position, _next_data(fd, position))
                position -= position % _states.SUM
                block = os.pread(fd, _BLOCK, position)
            yield from _states.read_sums((position - _states.SUMS) // _states.SUM, block)
            if len(block) < _BLOCK:
                return
            position += _BLOCK

    def raw_sums(self, size: int) -> bytes:
        """Read the checksums of all chunks of an image of ``size`` bytes.

        :raises OSError: they cannot be read.
        """
        with self._shared as fd:
            return raw_sums(fd, size)

    # Writing

    def announce(self, record: Record, length: int | None) -> None:
        """Write record and promised length.

        :raises OSError: they cannot be written.
        """
        self._write(_states.encode_announcement(record, length), _states.ANNOUNCED)

    def publish(self, readable: int) -> None:
        """Write how many bytes may be had.

        :raises OSError: it cannot be written.
        """
        self._write(_states.number(readable), _states.READABLE)

    def reserve(self, size: int) -> None:
        """Write how many bytes the fill counts as.

        :raises OSError: it cannot be written.
        """
        self._write(_states.number(size), _states.RESERVED)

    def want(self, position: int) -> None:
        """Write that somebody waits at a position, unless somebody does further on.

        Two that write at once may leave the lesser; who waits says so again.

        :raises OSError: it cannot be written.
        """
        if position > self.wanted():
            self._write(_states.number(position), _states.WANTED)

    def put_sums(self, chunks: Sequence[Chunk]) -> None:
        """Write checksums of chunks, which are in order.

        :raises OSError: they cannot be written.
        """
        for position, data in _states.encode_sums(chunks):
            self._write(data, position)

    def go_on(self, readable: int) -> None:
        """Make it that of a fill that another writer goes on with.

        :raises OSError: it cannot be written.
        """
        self.publish(readable)
        self._write(_states.encode_boot(boot_id()), _states.BOOT)

    def tie(self, size: int, checksum: str) -> None:
        """Say which image the checksums are of.

        :raises OSError: it cannot be written.
        """
        self._write(_states.encode_tie(size, checksum, self.raw_sums(size)), _states.TIE)

    def end(self, outcome: str, readable: int | None = None) -> None:
        """Write the outcome. Never raises: without one, the fill looks like a dead writer's.

        :param readable: bytes that may be had from now on.
        """
        data = _states.encode_outcome(outcome)
        position = _states.OUTCOME
        if readable is not None:
            data, position = _states.number(readable) + data, _states.READABLE
        try:
            self._write(data, position)
        except OSError:
            pass

    def _read(self, size: int, position: int) -> bytes:
        with self._shared as fd:
            return os.pread(fd, size, position)

    def _write(self, data: bytes, position: int) -> None:
        with self._shared as fd:
            if os.pwrite(fd, data, position) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def forget_parent(self) -> None:
        """Close it in a child of fork."""
        self._shared.forget_parent()
        self._shared.close()

    def close(self) -> None:
        """Close it; again: does nothing."""
        self._shared.close()


def make(name: str, inode: int, directory: int) -> StateFile:
    """Make the state file of a fill that nothing was announced of.

    :param name: of the entry.
    :param inode: number of the fill's file.
    :param directory: descriptor of ``incomplete/``.
    :raises FileExistsError: there is one.
    :raises OSError: it cannot be made.
    """
    own = _states.state_name(name, inode)
    fd = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=directory)
    state = StateFile(fd, own)
    try:
        state._write(_states.fresh_header(inode, boot_id()), 0)
    except BaseException:
        state.close()
        remove(own, directory)
        raise
    return state


def find(name: str, inode: int, directory: int) -> tuple[StateFile, Header] | None:
    """Open the state file of a fill; ``None`` if there is none that is right.

    Where it may not be written, it is open for reading only.

    :raises OSError: it cannot be opened.
    """
    own = _states.state_name(name, inode)
    try:
        fd = open_own(own, directory)
    except (FileNotFoundError, IsADirectoryError):
        return None
    if fd == -1:
        return None
    state = StateFile(fd, own)
    try:
        header = state.header()
    except BaseException:
        state.close()
        raise
    if header is None or header.inode != inode:
        state.close()
        return None
    return state, header


def open_own(name: str, directory: int) -> int:
    """Open a file of ours to read and, if that is allowed, to write.

    :return: -1 if it is no file, or perhaps somebody else's too (writing would write there).
    :raises OSError: it cannot be opened.
    """
    try:
        try:
            fd = os.open(name, os.O_RDWR | _FLAGS, dir_fd=directory)
        except PermissionError:
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=directory)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO):
            return -1
        raise
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return fd
    os.close(fd)
    return -1


def raw_sums(fd: int, size: int) -> bytes:
    """Read the checksums of all chunks of an image of ``size`` bytes; fewer if the file ends.

    :raises OSError: they cannot be read.
    """
    wanted = _states.sums_size(size)
    # What cannot be there is not asked for: the size may be anything.
    available = max(0, os.fstat(fd).st_size - _states.SUMS)
    return os.pread(fd, min(wanted, available), _states.SUMS)


def remove(state: str, directory: int) -> None:
    """Remove a state file that may be there.

    :raises OSError: it cannot be removed.
    """
    try:
        os.unlink(state, dir_fd=directory)
    except FileNotFoundError:
        pass


def _next_data(fd: int, position: int) -> int:
    """Give the position of the next bytes that are no hole."""
    if _SEEK_DATA is None:
        return position
    try:
        return os.lseek(fd, position, _SEEK_DATA)
    except OSError:
        return position  # beyond the end, or not known here
