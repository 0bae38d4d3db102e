"""``incomplete/``: fills under way, and what dead writers left of theirs.

Each fill has two files: its bytes, whose lock says that the writer lives, and
its state (``_statefile``). A file is gone on with only by whoever finds the
bytes that its state names; else the fill begins in new files, so that nobody
who still reads the old ones meets bytes of another version.

Imports: names, drivers._claims, drivers._parts, drivers._statefile,
drivers._states, drivers._tree, drivers.base.
"""

from __future__ import annotations

import errno
import os
import zlib
from typing import Any, NamedTuple

from .. import names
from . import _claims, _statefile, _states
from ._parts import Parts
from ._statefile import StateFile
from ._states import Chunk, Header
from ._tree import scan
from .base import CHUNK, Kept, Record

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: How the name of a file ends that is about to take a fill's place.
NEW = ".new"

#: How often files may change under us.
_TRIES = 20


class Begun(NamedTuple):
    """A fill whose files are ours.

    :param fd: of the bytes, their lock held.
    :param size: how long that file is.
    :param state: its state file.
    :param kept: what an earlier writer left.
    :param chunks: what is there by the checksums.
    """

    fd: int
    size: int
    state: StateFile
    kept: Kept | None
    chunks: list[Chunk]


def begin(image_id: str, name: str, variant: int, directory: int) -> Begun:
    """Take the files of an image's fill, new or as somebody left them. Reads what is kept.

    :param directory: descriptor of ``incomplete/``.
    :raises BlockingIOError: a living writer holds it.
    :raises OSError: they cannot be made or read.
    """
    for _ in range(_TRIES):
        fd = _claims.claim(name, directory)
        try:
            begun = _begin_in(fd, image_id, name, variant, directory)
            if begun is not None:
                return begun
            remove_files(name, os.fstat(fd).st_ino, directory)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EBUSY, "changes too quickly", name)


def _begin_in(fd: int, image_id: str, name: str, variant: int, directory: int) -> Begun | None:
    """Take a claimed file; ``None`` if another is to be made in its place."""
    status = os.fstat(fd)
    if not status.st_size:
        try:
            return Begun(fd, 0, _statefile.make(name, status.st_ino, directory), None, [])
        except FileExistsError:
            pass
    found = _statefile.find(name, status.st_ino, directory)
    if found is None:
        return None
    state, header = found
    try:
        begun = _go_on(fd, status.st_size, state, header, Whose(image_id, variant))
    except BaseException:
        state.close()
        raise
    if begun is None:
        state.close()
    return begun


class Whose(NamedTuple):
    """An image and the number of its variant."""

    image_id: str
    variant: int

    def has(self, record: Record) -> bool:
        """Say whether a record is of it."""
        return (record.image_id, record.variant) == (self.image_id, self.variant)


def _go_on(fd: int, size: int, state: StateFile, header: Header, whose: Whose) -> Begun | None:
    if header.outcome:
        return None
    if not header.head.size:
        if header.readable or next(state.sums(), None) is not None:
            return None
        # Nobody can have had anything of it.
        os.ftruncate(fd, 0)
        state.reserve(0)
        return Begun(fd, 0, state, None, [])
    announced = state.announced(header)
    if announced is None or not whose.has(announced[0]):
        return None
    record, length = announced
    if length is None:
        return None  # nobody could say what is missing
    chunks = _intact(fd, min(length, size), state)
    if not chunks:
        return None
    parts = Parts()
    for chunk in chunks:
        parts.add(chunk.number * CHUNK, chunk.number * CHUNK + chunk.length)
    state.go_on(min(header.readable, parts.stop_from(0)))
    state.reserve(0)
    return Begun(fd, size, state, Kept(record, length, parts.all()), chunks)


def _intact(fd: int, end: int, state: StateFile) -> list[Chunk]:
    """Read what is there before ``end``; what does not match its checksum is struck out."""
    intact, damaged = [], []
    for chunk in state.sums():
        start = chunk.number * CHUNK
        data = os.pread(fd, chunk.length, start) if start + chunk.length <= end else b""
        if len(data) == chunk.length and zlib.crc32(data) == chunk.crc:
            intact.append(chunk)
        else:
            damaged.append(Chunk(chunk.number, 0, 0))
    state.put_sums(damaged)
    return intact


def remove_files(name: str, inode: int, directory: int) -> None:
    """Remove a fill's files. Whoever calls this holds the lock of the first, or the directory's.

    :raises OSError: they cannot be removed.
    """
    for file in (name, _states.state_name(name, inode)):
        _statefile.remove(file, directory)


def replace(name: str, inode: int, directory: int) -> Begun:
    """Put new files in the place of a fill's own; the lock of these and the directory's held.

    :param inode: number of the fill's present file.
    :raises OSError: they cannot be made; the present ones stay.
    """
    new = f".{name}{NEW}"
    _statefile.remove(new, directory)
    fd = os.open(new, _CREATE, 0o600, dir_fd=directory)
    state = None
    try:
        # Before it has its name, so that nobody else can take it.
        _claims.lock_at_once(fd)
        own = os.fstat(fd).st_ino
        _statefile.remove(_states.state_name(name, own), directory)
        state = _statefile.make(name, own, directory)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.close(fd)
        if state is not None:
            state.close()
        raise
    _statefile.remove(_states.state_name(name, inode), directory)
    return Begun(fd, 0, state, None, [])


def void(name: str, directory: int) -> None:
    """Take a fill's files from its writer, which then cannot commit; the directory's lock held.

    :raises OSError: they cannot be removed.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    remove_files(name, status.st_ino, directory)


def image_of(name: str, status: os.stat_result, directory: int) -> str:
    """Give the id of a fill's image; the file's name where nothing tells."""
    try:
        found = _statefile.find(name, status.st_ino, directory)
        if found is None:
            return name
        state, header = found
        try:
            announced = state.announced(header)
        finally:
            state.close()
    except OSError:
        return name
    return name if announced is None else announced[0].image_id


def reap(name: str, directory: int) -> bool:
    """Remove a fill's files that nobody holds; the directory's lock held, so that nobody else does.

    :return: whether they were removed.
    :raises OSError: they cannot be removed.
    """
    fd = _claims.claim_abandoned(name, directory)
    if fd is None:
        return False
    try:
        remove_files(name, os.fstat(fd).st_ino, directory)
    finally:
        os.close(fd)
    return True


def reap_debris(directory: int) -> None:
    """Remove the files that belong to no fill; the directory's lock held.

    :raises OSError: they cannot be looked at or removed.
    """
    for name, _ in list(scan(directory)):
        if belongs_to_fill(name) and not is_of_a_fill(name, directory):
            _statefile.remove(name, directory)


def is_of_a_fill(name: str, directory: int) -> bool:
    """Say whether a file is the state of a fill that is there."""
    fill = _states.fill_of(name)
    return fill is not None and _is_there(fill, directory)


def _is_there(fill: tuple[str, int], directory: int) -> bool:
    name, inode = fill
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode
    except FileNotFoundError:
        return False


def is_fill(name: str) -> bool:
    """Say whether a file of that name in ``incomplete/`` holds bytes of a fill."""
    return not name.startswith(".")


def belongs_to_fill(name: str) -> bool:
    """Say whether a file of that name goes with a fill, or was to."""
    return _states.fill_of(name) is not None or (name.startswith(".") and name.endswith(NEW))


def occupied(name: str, status: os.stat_result, directory: int) -> int:
    """Give the bytes that a fill counts as: those that are there, or that it reserved.

    State files are not counted: like index and records, they are small against what they
    are about (8 bytes for each 256 KiB, and the record).
    """
    size: int = status.st_size
    # A block is counted whole, also a last one that is not full.
    if size <= status.st_blocks * 512:
        return size
    found = None
    try:
        found = _statefile.find(name, status.st_ino, directory)
    except OSError:
        pass  # then it counts as long as it is
    if found is None:
        return size
    state, header = found
    state.close()
    return min(size, max(status.st_blocks * 512, header.reserved))


def usage(directory: int) -> int:
    """Give the bytes that all fills together count as.

    :raises OSError: the directory cannot be read.
    """
    return sum(
        occupied(name, status, directory) for name, status in scan(directory) if is_fill(name)
    )


def partial_images(directory: int) -> list[dict[str, Any]]:
    """List what could be gone on with, as in :meth:`Driver.get_partial_images`.

    :raises OSError: the directory cannot be read.
    """
    found = [
        partial
        for name, status in scan(directory)
        if is_fill(name) and (partial := _partial(name, status, directory)) is not None
    ]
    return sorted(found, key=lambda image: image["image_id"])


def _partial(name: str, status: os.stat_result, directory: int) -> dict[str, Any] | None:
    if _claims.is_claimed(name, directory):
        return None
    try:
        found = _statefile.find(name, status.st_ino, directory)
    except OSError:
        return None
    if found is None:
        return None
    state, header = found
    try:
        announced = state.announced(header)
        size = sum(chunk.length for chunk in state.sums())
    except OSError:
        return None
    finally:
        state.close()
    if announced is None or header.outcome or not size:
        return None
    record, length = announced
    if length is None:
        return None
    if names.entry_name(record.image_id, record.variant) != name:
        return None
    return {
        "image_id": record.image_id,
        "size": size,
        "length": length,
        "last_modified": status.st_mtime,
    }
