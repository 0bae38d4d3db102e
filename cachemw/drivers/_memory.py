"""Records that were read before, so that a hit need not ask for them again.

A file that changed in any way, its attributes too, has another change time.
Two files may have the same one if they were made within a tick of the clock;
so nothing is remembered of a file that changed less than a second ago, and
a file that takes over its inode later has a later time.

Imports: drivers.base.
"""

from __future__ import annotations

import os
import time

from .base import Record

#: Records remembered; then all are forgotten.
MOST = 4096

#: Nanoseconds within which two changes may have the same time.
_TICK = 10**9


#: A file as it was at one moment: inode, change time in nanoseconds, bytes.
Identity = tuple[int, int, int]


def identity(status: os.stat_result) -> Identity:
    """Give what changes when a file is changed or replaced."""
    return status.st_ino, status.st_ctime_ns, status.st_size


class RecordMemory:
    """Records by file. Threads may share it: each step on the dictionary is one."""

    def __init__(self) -> None:
        self._records: dict[Identity, Record] = {}

    def get(self, status: os.stat_result) -> Record | None:
        """Give the record of a file, if it is remembered."""
        return self._records.get(identity(status))

    def put(self, status: os.stat_result, record: Record) -> None:
        """Remember the record of a file whose status was taken before it was read."""
        if time.time_ns() - status.st_ctime_ns < _TICK:
            return
        if len(self._records) >= MOST:
            self._records.clear()
        self._records[identity(status)] = record
