"""``queue/``: ids that wait to be fetched, one file each.

The file's name is the entry's; an id that is not its own name stands in the
file. The order is that of the files' modification times. What else is known of
an image stands in its note. Whoever fetches an image holds the file's lock.

Imports: concurrency, names, drivers._forks, drivers._notes,
drivers._translate, drivers._tree, drivers.queued.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

from .. import concurrency, names
from . import _forks, _notes
from ._translate import translating
from ._tree import scan
from .queued import Claim, Note

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put(image_id: str, queue: int, url: str | None = None, anew: bool = True) -> bool:
    """Add an id. :return: whether it did not wait yet.

    :param queue: descriptor of ``queue/``, here and below.
    :param url: how a request fetched it.
    :param anew: whether one that was set aside starts anew.
    :raises OSError: it cannot be added.
    """
    name = names.entry_name(image_id)
    if has_file(name, queue):
        return _put_again(name, queue, url, anew)
    # First, since whoever finds the file fetches the image by what the note says.
    _notes.write(name, Note(url=url), queue)
    try:
        fd = os.open(name, _NEW, 0o600, dir_fd=queue)
    except FileExistsError:
        return False
    try:
        if name != image_id:
            os.write(fd, image_id.encode("utf-8", "surrogatepass"))
        # The system's own stamp is too coarse to tell ids apart that come together.
        now = time.time_ns()
        os.utime(fd, ns=(now, now))
    except BaseException:
        os.unlink(name, dir_fd=queue)
        _notes.remove(name, queue)
        raise
    finally:
        os.close(fd)
    return True


def _put_again(name: str, queue: int, url: str | None, anew: bool) -> bool:
    note = _notes.read(name, queue)
    if not note.set_aside or not anew:
        return False
    now = time.time_ns()
    try:
        os.utime(name, ns=(now, now), dir_fd=queue, follow_symlinks=False)
    except FileNotFoundError:
        return False  # fetched just now
    _notes.write(name, Note(url=url or note.url), queue)
    return True


def has_file(name: str, queue: int) -> bool:
    """Say whether an entry has a file in the queue."""
    try:
        os.stat(name, dir_fd=queue, follow_symlinks=False)
    except OSError:
        return False
    return True


def has(image_id: str, queue: int) -> bool:
    """Say whether an id waits, and was not set aside."""
    name = names.entry_name(image_id)
    return has_file(name, queue) and not _notes.read(name, queue).set_aside


def listing(queue: int) -> list[str]:
    """List the ids that wait, the longest waiting first, without those set aside.

    :raises OSError: the directory cannot be read.
    """
    return [image_id for image_id, _, _, note in _waiting(queue) if not note.set_aside]


def described(queue: int) -> list[dict[str, Any]]:
    """List all that is in the queue, the longest waiting first.

    :return: dicts with ``image_id``, ``queued`` (seconds since the epoch), ``url``, ``tries``,
        ``after``, ``reason``, ``set_aside`` and ``fetching``.
    :raises OSError: the directory cannot be read.
    """
    return [
        {
            "image_id": image_id,
            "queued": queued,
            "url": note.url,
            "tries": note.tries,
            "after": note.after,
            "reason": note.reason,
            "set_aside": note.set_aside,
            "fetching": _is_held(name, queue),
        }
        for image_id, name, queued, note in _waiting(queue)
    ]


def _waiting(queue: int) -> Iterator[tuple[str, str, float, Note]]:
    """Go through ids, names, times and notes, the longest waiting first."""
    statuses = dict(scan(queue))
    order = sorted(
        (status.st_mtime_ns, name) for name, status in statuses.items() if not name.startswith(".")
    )
    for stamp, name in order:
        image_id = id_of(name, queue)
        if image_id is not None:
            has_note = _notes.name_of(name) in statuses
            note = _notes.read(name, queue) if has_note else _notes.BLANK
            yield image_id, name, stamp / 1e9, note


def id_of(name: str, queue: int) -> str | None:
    """Give the id that a file stands for; ``None``: it names no image.

    :raises OSError: it cannot be read.
    """
    if names.is_safe_name(name):
        return name
    try:
        fd = os.open(name, _READ, dir_fd=queue)
    except FileNotFoundError:
        return None
    try:
        image_id = os.read(fd, 16 * names.MAX_ID_LENGTH).decode("utf-8", "surrogatepass")
    except ValueError:
        return None
    finally:
        os.close(fd)
    # A half-written id, or somebody else's file, names no image.
    return image_id if image_id and names.entry_name(image_id) == name else None


def _is_held(name: str, queue: int) -> bool:
    """Say whether somebody fetches an image; for a moment nobody else can begin to."""
    try:
        fd = os.open(name, _READ, dir_fd=queue)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


class FileClaim(Claim):
    """A lock on an image's file in the queue."""

    def __init__(self, image_id: str, name: str, fd: int, queue: int) -> None:
        self.image_id = image_id
        self._name = name
        self._fd = fd
        self._queue = queue
        self._lock = concurrency.Lock()
        self.note = _notes.read(name, queue)
        _forks.register(self)

    def keep(self, note: Note) -> None:
        with translating(self.image_id):
            if self._is_named():
                _notes.write(self._name, note, self._queue)

    def remove(self) -> None:
        with translating(self.image_id):
            if self._is_named():
                drop(self._name, self._queue)

    def _is_named(self) -> bool:
        return _is_named(self._name, self._fd, self._queue)

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)

    def forget_parent(self) -> None:
        self._lock = concurrency.Lock()
        self.close()


def claim(image_id: str, queue: int) -> FileClaim | None:
    """Claim an image. :return: ``None``: it is not there, or somebody else fetches it.

    :raises OSError: its file cannot be opened or locked.
    """
    name = names.entry_name(image_id)
    try:
        fd = os.open(name, _READ, dir_fd=queue)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(name, fd, queue):
            return FileClaim(image_id, name, fd, queue)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _is_named(name: str, fd: int, queue: int) -> bool:
    try:
        named = os.stat(name, dir_fd=queue, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def state(queue: int) -> tuple[int, int]:
    """Give what is mostly another once the queue has changed.

    :raises OSError: the directory is gone.
    """
    status = os.fstat(queue)
    return status.st_mtime_ns, status.st_ino


def drop(name: str, queue: int) -> bool:
    """Take an entry out of the queue. :return: whether it was there.

    :raises OSError: it cannot be removed.
    """
    try:
        os.unlink(name, dir_fd=queue)
    except FileNotFoundError:
        return False
    _notes.remove(name, queue)
    return True


def clear(queue: int) -> int:
    """Take every id out. :return: how many there were.

    :raises OSError: one cannot be removed.
    """
    cleared = 0
    for name in [name for name, _ in scan(queue)]:
        try:
            os.unlink(name, dir_fd=queue)
            cleared += not name.startswith(".")
        except FileNotFoundError:
            pass  # fetched or taken out meanwhile
    return cleared
