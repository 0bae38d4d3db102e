"""Start writing a file's pages to the device before anybody waits for them.

The final fsync of a large image then finds little left to do. Linux only,
through libc, since the interpreter has no call for it; elsewhere it does
nothing, and the fsync does all.

Imports: nothing of ours.

Source: sync_file_range(2).
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_SYNC_FILE_RANGE_WRITE = 2

_sync_file_range: Any = None
try:
    _sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
except (OSError, AttributeError):  # pragma: no cover - not Linux
    pass


def start(fd: int, offset: int, length: int) -> None:
    """Start writing ``length`` bytes from ``offset`` to the device, without waiting.

    Best effort: an error here comes again from fsync, which is checked.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def sync(fd: int) -> None:
    """Wait until a file's bytes, length and attributes are on the device.

    :raises OSError: they could not be written.
    """
    os.fsync(fd)
