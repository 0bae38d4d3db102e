"""``.sums/``: the checksums of stored images' chunks.

A state file that has done its work as such: it is renamed here when its fill
is committed. Nothing rests on it: what does not fit its image counts as none.

Imports: drivers._statefile, drivers._states, drivers._tree, drivers.base.
"""

from __future__ import annotations

import os

from . import _statefile, _states
from ._statefile import StateFile
from ._tree import scan
from .base import CHUNK, Entry, Sums

#: The directory, under the cache directory.
DIRECTORY = ".sums"


def are_of_use(size: int) -> bool:
    """Say whether checksums of an image's chunks are kept: one of a single chunk has its own."""
    return size > CHUNK


def keep(state: StateFile, name: str, incomplete: int, sums: int) -> None:
    """Keep the checksums of an image that was just stored; the directory's lock held.

    :param incomplete: descriptor of the directory that they are in now.
    :param sums: descriptor of the directory that they go to.
    :raises OSError: they cannot be renamed.
    """
    os.rename(state.name, name, src_dir_fd=incomplete, dst_dir_fd=sums)


def remove(name: str, size: int, sums: int) -> None:
    """Remove the checksums that an image of ``size`` bytes may have.

    :raises OSError: they cannot be removed.
    """
    if are_of_use(size):
        try:
            os.unlink(name, dir_fd=sums)
        except (FileNotFoundError, IsADirectoryError):
            pass


def load(name: str, entry: Entry, sums: int) -> Sums | None:
    """Read the checksums of an entry's chunks; ``None`` if there are none that fit it.

    :raises OSError: they cannot be read.
    """
    record = entry.record
    if record is None or not are_of_use(entry.size):
        return None
    try:
        fd = _statefile.open_own(name, sums)
    except (FileNotFoundError, IsADirectoryError):
        return None
    if fd == -1:
        return None
    try:
        header = _states.parse_header(os.pread(fd, _states.HEADER, 0))
        data = _statefile.raw_sums(fd, entry.size)
    finally:
        os.close(fd)
    if header is None or header.tie != _states.tie_of(entry.size, record.checksum, data):
        return None
    values = _states.values_of(entry.size, data)
    return None if values is None else Sums(entry.size, values)


def reap(sums: int, base: int) -> None:
    """Remove the checksums of images that are gone; the directory's lock held.

    :param base: descriptor of the cache directory.
    :raises OSError: they cannot be looked at or removed.
    """
    for name, _ in list(scan(sums)):
        if not os.access(name, os.F_OK, dir_fd=base, follow_symlinks=False):
            _statefile.remove(name, sums)
