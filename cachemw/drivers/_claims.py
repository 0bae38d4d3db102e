"""``incomplete/``: which fills are somebody's, and which nobody's.

A writer holds an exclusive flock on its file for as long as it lives, so a
file whose lock is free was left by a dead one and can be used again at once.

Imports: drivers._forks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from . import _forks

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FILL = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: How often a lock is asked for that other processes only look at, for some microseconds.
_TRIES = 100

#: Threads of this process look by turns: one that waits for the interpreter meanwhile
#: would hold the file's lock for much longer.
_looking = _forks.Lock()


def claim(name: str, directory: int) -> int:
    """Open a fill's file with its lock held, as whoever had it before left it.

    :param directory: descriptor of ``incomplete/``.
    :raises BlockingIOError: a living writer holds it.
    :raises OSError: it cannot be made.
    """
    for _ in range(20):
        try:
            fd = os.open(name, _FILL, 0o600, dir_fd=directory)
        except OSError as exc:
            if exc.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            os.unlink(name, dir_fd=directory)
            continue
        try:
            lock_at_once(fd)
            status = os.fstat(fd)
            if is_only_name(name, directory, status):
                return fd
            if status.st_nlink > 1 or not stat.S_ISREG(status.st_mode):
                # A hard link to a file elsewhere (writing here would write there), or a pipe.
                os.unlink(name, dir_fd=directory)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError(errno.EBUSY, "changes too quickly", name)


def is_claimed(name: str, directory: int) -> bool:
    """Say whether a living writer holds a fill's file."""
    with _looking:
        try:
            fd = os.open(name, _READ, dir_fd=directory)
        except OSError:
            return False
        try:
            return is_locked(fd)
        finally:
            os.close(fd)


def claim_abandoned(name: str, directory: int) -> int | None:
    """Open a fill's file that nobody holds, with its lock held; ``None`` if there is none."""
    try:
        fd = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        lock_at_once(fd)
        if is_only_name(name, directory, os.fstat(fd)):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def is_abandoned(name: str, directory: int) -> bool:
    """Say whether there is a fill's file that nobody holds."""
    fd = claim_abandoned(name, directory)
    if fd is None:
        return False
    release(fd)
    os.close(fd)
    return True


def lock_at_once(fd: int) -> None:
    """Take a fill's lock.

    :raises BlockingIOError: a living writer has it.
    """
    for _ in range(_TRIES):
        with _looking:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                # Others who only look (is_claimed) share the lock for a moment. Where it
                # cannot be shared, a writer has it, and this raises.
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(fd, fcntl.LOCK_UN)
        os.sched_yield()
    raise BlockingIOError(errno.EWOULDBLOCK, "too many look at it")


def is_locked(fd: int) -> bool:
    """Say whether somebody else has a fill's lock; if not, takes a share of it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def look_whether_locked(fd: int) -> bool:
    """Say whether somebody else has a fill's lock; takes no share of it."""
    with _looking:
        if is_locked(fd):
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False


def release(fd: int) -> None:
    """Let go of a fill's lock."""
    # Closing is not enough: a child that was just forked has the descriptor too.
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_only_name(name: str, directory: int, status: os.stat_result) -> bool:
    """Say whether an open regular file is still, and only, the one under that name."""
    try:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, status) and stat.S_ISREG(status.st_mode) and status.st_nlink == 1
