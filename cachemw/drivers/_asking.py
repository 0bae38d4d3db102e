"""Who is asking the app for an image, told to all processes that share a directory.

Between the question and the answer there is no file yet, and for most
questions there never will be: not every answer is an image. So nothing is
written. A lock on one byte of ``.asking``, chosen by the image's id, says it;
the kernel lets go of it with the process.

``docs/formats/cache-directory.rst`` is the authority for the bytes.

Imports: concurrency, drivers._forks.

Source: fcntl(2), open file description locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Callable

from .. import concurrency
from . import _forks

#: The file, in the cache directory; it stays empty.
NAME = ".asking"

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

#: ``struct flock``: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")


class Asking:
    """The questions of one process. Threads may share it, but not ask the same twice.

    :param open_directory: gives the cache directory's descriptor.
    """

    def __init__(self, open_directory: Callable[[], int]) -> None:
        self._open_directory = open_directory
        self._lock = concurrency.Lock()
        self._fd = -1
        _forks.register(self)

    def forget_parent(self) -> None:
        """Leave the parent's questions to the parent."""
        self._lock = concurrency.Lock()
        self.close()

    def begin(self, image_id: str) -> bool:
        """Say that this process asks. :return: whether no other does already.

        :raises OSError: the file cannot be opened.
        """
        request = _request(fcntl.F_WRLCK, image_id)
        try:
            fcntl.fcntl(self._file(), fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        return True

    def end(self, image_id: str) -> None:
        """Say that this process has its answer. Never raises."""
        try:
            fcntl.fcntl(self._file(), fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, image_id))
        except OSError:
            pass  # the file is gone, and the lock with it

    def is_asked_elsewhere(self, image_id: str) -> bool:
        """Say whether another process asks.

        :raises OSError: the file cannot be opened.
        """
        request = _request(fcntl.F_WRLCK, image_id)
        found = fcntl.fcntl(self._file(), fcntl.F_OFD_GETLK, request)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go of all; used again, it is opened again."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)

    def _file(self) -> int:
        if self._fd == -1:
            with self._lock:
                if self._fd == -1:
                    self._fd = os.open(NAME, _FLAGS, 0o600, dir_fd=self._open_directory())
        return self._fd


def _request(kind: int, image_id: str) -> bytes:
    name = image_id.encode("utf-8", "surrogatepass")
    # 62 bits: two images that share one would only wait for each other.
    position = int.from_bytes(hashlib.sha256(name, usedforsecurity=False).digest()[:8], "big") >> 2
    return _FLOCK.pack(kind, os.SEEK_SET, position, 1, 0)
