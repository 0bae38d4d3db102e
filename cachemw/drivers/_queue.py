"""``queue/``: ids that wait to be fetched, one file each.

The file's name is the entry's; an id that is not its own name stands in the
file. The order is that of the files' modification times.

Imports: names, drivers._tree.
"""

from __future__ import annotations

import os
import time

from .. import names
from ._tree import scan

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put(image_id: str, queue: int) -> bool:
    """Add an id. :return: whether it was not there yet.

    :param queue: descriptor of ``queue/``, here and below.
    :raises OSError: it cannot be added.
    """
    name = names.entry_name(image_id)
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
        raise
    finally:
        os.close(fd)
    return True


def has(image_id: str, queue: int) -> bool:
    """Say whether an id waits."""
    try:
        os.stat(names.entry_name(image_id), dir_fd=queue, follow_symlinks=False)
    except OSError:
        return False
    return True


def listing(queue: int) -> list[str]:
    """List the ids, the longest waiting first.

    :raises OSError: the directory cannot be read.
    """
    waiting = sorted((status.st_mtime_ns, name) for name, status in scan(queue))
    ids = [id_of(name, queue) for _, name in waiting]
    return [image_id for image_id in ids if image_id is not None]


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


def remove(image_id: str, queue: int) -> bool:
    """Take an id out. :return: whether it was there.

    :raises OSError: it cannot be removed.
    """
    try:
        os.unlink(names.entry_name(image_id), dir_fd=queue)
    except FileNotFoundError:
        return False
    return True


def clear(queue: int) -> int:
    """Take every id out. :return: how many there were.

    :raises OSError: one cannot be removed.
    """
    cleared = 0
    for name in [name for name, _ in scan(queue)]:
        try:
            os.unlink(name, dir_fd=queue)
            cleared += 1
        except FileNotFoundError:
            pass  # fetched or taken out meanwhile
    return cleared
