"""A file descriptor that several threads use, and one of them closes.

Closed while another thread reads, its number might be that of another file
before the read begins. So the last who uses it closes it.

Imports: concurrency, drivers._forks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from .. import concurrency
from . import _forks


class SharedDescriptor:
    """A descriptor; ``with`` gives it, and keeps it open inside.

    :param fd: closed by :meth:`close`, or by the last ``with`` after that.
    :param on_close: called when it is closed.
    """

    def __init__(self, fd: int, on_close: Callable[[], None] | None = None) -> None:
        self._fd = fd
        self._users = 0
        self._closing = False
        self._on_close = on_close
        self._lock = concurrency.Lock()
        _forks.register(self)

    def forget_parent(self) -> None:
        """Be usable in a child of fork, where no thread uses it any more."""
        self._lock = concurrency.Lock()
        self._users = 0

    def __enter__(self) -> int:
        """:raises OSError: it is closed."""
        with self._lock:
            if self._closing:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
            return self._fd

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            self._close()

    def close(self) -> None:
        """Close it as soon as nobody uses it; again: does nothing."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            last = not self._users
        if last:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
        except OSError:
            pass  # EIO of a write that nobody waited for
        finally:
            if self._on_close is not None:
                self._on_close()
