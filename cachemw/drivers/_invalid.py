"""``invalid/``: fills that failed and entries found damaged, each with its reason.

The reason is in the file's extended attribute ``user.error``, where Glance
puts it, and the id in ``user.cachemw.id``; without attributes both are in
``invalid/.<entry>.reason``.

Imports: drivers._tree, drivers._xattrs.
"""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any

from . import _xattrs
from ._tree import scan

_REASON = "user.error"
_ID = "user.cachemw.id"

#: Longest reason kept, bytes: attributes of one file share 4 KiB on ext4.
_LONGEST = 500


def put(fd: int, name: str, image_id: str, reason: str, source: int, invalid: int) -> None:
    """Move a file into ``invalid/`` with its reason.

    :param fd: the open file.
    :param source: descriptor of the directory that it is in now.
    :param invalid: descriptor of ``invalid/``.
    :raises OSError: it could not be moved; a reason that cannot be written is left out.
    """
    text = reason.encode("utf-8", "replace")[:_LONGEST]
    aside = f".{name}.reason"
    try:
        if os.fstat(fd).st_nlink > 1:
            raise OSError(errno.EMLINK, "also a file elsewhere, whose attributes are not ours")
        # The reason last: where it is, the id is.
        _xattrs.set(fd, _ID, image_id.encode("utf-8", "surrogatepass"))
        _xattrs.set(fd, _REASON, text)
        unlink(aside, invalid)
    except OSError:
        _write_aside(aside, {"id": image_id, "reason": _shown(text)}, invalid)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=invalid)


def _write_aside(aside: str, content: dict[str, str], invalid: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(aside, flags, 0o600, dir_fd=invalid)
        with open(fd, "w", encoding="utf-8", errors="surrogatepass") as file:
            json.dump(content, file, ensure_ascii=False)
    except OSError:
        pass


def unlink(name: str, directory: int) -> None:
    """Remove one file, if it is there.

    :raises OSError: it could not be removed.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def listing(invalid: int) -> list[dict[str, Any]]:
    """List the files by id, with size (bytes), reason and last_modified (seconds).

    :raises OSError: the directory cannot be read.
    """
    found = []
    for name, status in scan(invalid):
        if name.startswith("."):
            continue
        image_id, reason = read(name, invalid)
        found.append(
            {
                "image_id": image_id,
                "size": status.st_size,
                "reason": reason,
                "last_modified": status.st_mtime,
            }
        )
    return sorted(found, key=lambda image: image["image_id"])


def read(name: str, invalid: int) -> tuple[str, str]:
    """Give id and reason of a file, as far as they are known."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=invalid)
        try:
            reason, image_id = _xattrs.get(fd, _REASON), _xattrs.get(fd, _ID)
        finally:
            os.close(fd)
        if reason is not None:
            return (image_id or name.encode()).decode("utf-8", "surrogatepass"), _shown(reason)
        fd = os.open(f".{name}.reason", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=invalid)
        with open(fd, encoding="utf-8", errors="surrogatepass") as file:
            values = json.load(file)
        return str(values["id"]), str(values["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return name, "unknown"


def _shown(reason: bytes) -> str:
    # It may have been cut in the middle of a character.
    return reason.decode("utf-8", "ignore")


def image_of(name: str, invalid: int) -> str:
    """Give the id of a file's image; the file's name where nothing tells."""
    return read(name, invalid)[0]


def older(invalid: int, grace: float | None) -> list[tuple[str, os.stat_result]]:
    """Look for the files older than ``grace`` seconds (``None`` or 0: all).

    Reasons kept aside, which begin with a dot, come last, so that each file can be
    removed before what tells of it.

    :raises OSError: the directory cannot be read.
    """
    now = time.time()
    old = [
        (name, status)
        for name, status in scan(invalid)
        if not grace or now - status.st_mtime > grace
    ]
    return sorted(old, key=lambda file: file[0].startswith("."))


def oldest(invalid: int) -> list[tuple[str, int]]:
    """Give names and sizes (bytes, with the reason kept aside) of the files that hold bytes,
    oldest first.

    :raises OSError: the directory cannot be read.
    """
    statuses = dict(scan(invalid))
    files = []
    for name, status in statuses.items():
        aside = statuses.get(f".{name}.reason")
        size = status.st_size + (aside.st_size if aside else 0)
        is_beside = name.endswith(".reason") and name[1:].removesuffix(".reason") in statuses
        if size and not is_beside:
            files.append((status.st_mtime, name, size))
    return [(name, size) for _, name, size in sorted(files)]


def drop(name: str, invalid: int) -> None:
    """Remove one file and the reason kept aside.

    :raises OSError: it could not be removed.
    """
    unlink(name, invalid)
    unlink(f".{name}.reason", invalid)
