"""``.jobs/``: what is kept of background jobs, and who runs one.

A job is one file, replaced as a whole at each change. Who runs a kind of job
holds a lock on ``.<kind>``, which has the job's id; the kernel lets go of it
with the process, so a job that nobody runs any more is known to be lost.

``docs/formats/cache-directory.rst`` is the authority for the files.

Imports: drivers._forks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import time
from typing import Any

from ..drivers import _forks

#: The folder, in the cache directory.
FOLDER = ".jobs"

#: Jobs of which the files are kept.
_MOST_KEPT = 100

#: Bytes of a job's file, at the most.
_LONGEST = 16 * 2**20

_ID = re.compile(r"[a-z]+-[0-9a-f]{16}-[0-9a-f]{8}")
_SUFFIX = ".json"

#: What every job's file has.
_KEPT = {"kind", "state", "started"}

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def new_id(kind: str) -> str:
    """Give an id that nothing else has; those of a kind sort by their time."""
    return f"{kind}-{time.time_ns():016x}-{secrets.token_hex(4)}"


class JobFiles:
    """The jobs' files of one cache directory. Threads and processes may share it.

    :param directory: the cache directory.
    """

    def __init__(self, directory: str) -> None:
        self._folder = os.path.join(directory, FOLDER)

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Read a job; ``None``: there is none with that id."""
        if _ID.fullmatch(job_id) is None:
            return None
        try:
            fd = os.open(self._path(job_id), _READ)
        except OSError:
            return None
        with open(fd, "rb") as file:
            try:
                job = json.loads(file.read(_LONGEST))
            except (OSError, ValueError):
                return None  # not ours
        is_ours = isinstance(job, dict) and job.get("id") == job_id and job.keys() >= _KEPT
        return job if is_ours else None

    def write(self, job: dict[str, Any]) -> None:
        """Write a job, in place of what was known of it.

        :raises OSError: it cannot be written.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = self._path(job["id"])
        new = f"{path}.new"
        with open(os.open(new, _WRITE, 0o600), "w", encoding="ascii") as file:
            json.dump(job, file)
        os.replace(new, path)

    def ids(self) -> list[str]:
        """List the jobs, the newest first."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        ids = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
        return sorted(filter(_ID.fullmatch, ids), key=_stamp, reverse=True)

    def forget_old(self) -> None:
        """Remove the oldest where there are many. Never raises."""
        for job_id in self.ids()[_MOST_KEPT:]:
            with contextlib.suppress(OSError):
                os.unlink(self._path(job_id))

    def claim(self, kind: str, job_id: str) -> Claim | None:
        """Become the one who runs a kind of job.

        :return: ``None``: somebody runs it.
        :raises OSError: it cannot be found out.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        fd = os.open(self._lock_path(kind), _LOCK, 0o600)
        try:
            # Those who only look share it for a moment; where it cannot be shared, somebody
            # has it.
            while not _lock(fd, fcntl.LOCK_EX):
                if not _lock(fd, fcntl.LOCK_SH):
                    os.close(fd)
                    return None
                fcntl.flock(fd, fcntl.LOCK_UN)
                time.sleep(0.001)
            os.truncate(fd, 0)
            os.pwrite(fd, job_id.encode("ascii"), 0)
        except BaseException:
            os.close(fd)
            raise
        return Claim(fd)

    def running(self, kind: str) -> str | None:
        """Give the id of the job of a kind that somebody runs; ``None``: nobody does."""
        try:
            fd = os.open(self._lock_path(kind), _READ)
        except OSError:
            return None
        try:
            if _lock(fd, fcntl.LOCK_SH):
                fcntl.flock(fd, fcntl.LOCK_UN)
                return None
            return os.pread(fd, 256, 0).decode("ascii", "replace")
        finally:
            os.close(fd)

    def _path(self, job_id: str) -> str:
        return os.path.join(self._folder, f"{job_id}{_SUFFIX}")

    def _lock_path(self, kind: str) -> str:
        return os.path.join(self._folder, f".{kind}")


class Claim:
    """That this process runs a kind of job, until it lets go or ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _forks.register(self)

    def forget_parent(self) -> None:
        """A child would hold the parent's lock for as long as it lives."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)

    def release(self) -> None:
        """Let others run it; once more does nothing."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            # Closing is not enough: a child that was just forked has the descriptor too.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stamp(job_id: str) -> str:
    return job_id.partition("-")[2]
