"""Who may read and change the files and directories of the cache.

Imports: nothing of ours.
"""

from __future__ import annotations

import errno
import os
import stat

#: Nobody but the owner.
FILE, DIRECTORY = 0o600, 0o700

_PATH = getattr(os, "O_PATH", 0)


def problem(status: os.stat_result) -> str:
    """Say what is wrong with the mode of a file or directory; empty: nothing."""
    mode = stat.S_IMODE(status.st_mode)
    right = right_mode(status)
    if mode & ~right:
        return f"has the mode {mode:04o}: others than its owner may use it"
    if right & ~mode:
        return f"has the mode {mode:04o}: its owner may not use it"
    return ""


def right_mode(status: os.stat_result) -> int:
    """Give the mode that a file or directory of ours has."""
    return DIRECTORY if stat.S_ISDIR(status.st_mode) else FILE


def change(name: str, directory: int, mode: int) -> None:
    """Give a file or directory another mode; a symbolic link stays.

    :param directory: descriptor of the directory that it is in.
    :raises OSError: it cannot be changed.
    """
    if not _PATH:  # pragma: no cover - not Linux
        os.chmod(name, mode, dir_fd=directory, follow_symlinks=False)
        return
    # Not opened to be read: closing a database's file would let go of this process's locks.
    fd = os.open(name, _PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
