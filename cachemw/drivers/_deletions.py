"""When images were deleted, told to all processes that share a directory.

An app may have opened an image, and take its time until it answers; when the
image is changed meanwhile, through whatever process, nothing is stored yet
that could be removed. So a deletion leaves a mark, and who finds another one
than before the app was asked does not store the answer.

``docs/formats/cache-directory.rst`` is the authority for the bytes. Several
images share a mark, so that the file never grows: a deletion of the other
only looks like one of this. A mark is random, so that two processes may leave
theirs at once without a lock.

Imports: nothing of ours.
"""

from __future__ import annotations

import os
import zlib

#: The file, in the cache directory.
NAME = ".deletions"

#: Marks in the file.
MARKS = 1024

#: Bytes of a mark.
_SIZE = 8

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def mark_of(image_id: str, directory: int) -> bytes:
    """Give the mark that an image's last deletion left; empty if there was none.

    :param directory: descriptor of the cache directory.
    """
    try:
        fd = os.open(NAME, os.O_RDONLY | _FLAGS, dir_fd=directory)
        try:
            return os.pread(fd, _SIZE, _position(image_id))
        finally:
            os.close(fd)
    except OSError:
        return b""


def leave_mark(image_id: str, directory: int) -> None:
    """Tell everybody that an image is being deleted.

    :raises OSError: it cannot be written.
    """
    fd = os.open(NAME, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600, dir_fd=directory)
    try:
        os.pwrite(fd, os.urandom(_SIZE), _position(image_id))
    finally:
        os.close(fd)


def _position(image_id: str) -> int:
    return zlib.crc32(image_id.encode("utf-8", "surrogatepass")) % MARKS * _SIZE
