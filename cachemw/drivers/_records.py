"""An entry's record: its bytes, and where they are kept.

``docs/formats/cache-directory.rst`` is the authority for the format. A record
lives in the file's extended attribute where that exists and the record fits,
else in ``.records/<entry>``, tied to its image by size and modification time.

Imports: drivers.base, drivers._xattrs.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import zlib

from . import _xattrs
from .base import Record

#: The attribute of an entry's file that holds its record.
ATTRIBUTE = "user.cachemw"

#: Directory, under the cache directory, of records that no attribute could take.
DIRECTORY = ".records"

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: What every record begins with; a change of the format changes it.
MAGIC = b"cachemw1"

#: Longest record that is looked at, bytes.
_LONGEST = 256 * 1024

#: Longest record that is kept in memory once it was parsed, bytes.
_LONGEST_KEPT = 4096

#: An attribute was refused: no such thing here, or not so long.
REFUSED = frozenset(
    {
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EPERM,
        errno.ENOSPC,
        errno.E2BIG,
        errno.ERANGE,
    }
)


def encode(record: Record) -> bytes:
    """Give a record's bytes: magic, CRC-32 of the rest, and a JSON object."""
    text = json.dumps(
        {
            "id": record.image_id,
            "size": record.size,
            "checksum": record.checksum,
            "headers": record.headers,
            "vary": record.vary,
            "stored": record.stored,
            "age": record.age,
            **({"variant": record.variant} if record.variant else {}),
            **({"guarded": True} if record.guarded else {}),
            **({"boot": record.boot} if record.boot else {}),
        },
        separators=(",", ":"),
        # Escapes would make one character of two lone surrogates.
        ensure_ascii=False,
    ).encode("utf-8", "surrogatepass")
    return b"%s %08x %s" % (MAGIC, zlib.crc32(text), text)


def decode(data: bytes) -> Record | None:
    """Read a record; ``None`` if these bytes are not one, or damaged.

    Equal bytes mostly give the same object, so that a hit does not parse them again.
    """
    return _decode_once(data) if len(data) <= _LONGEST_KEPT else _decode(data)


def _decode(data: bytes) -> Record | None:
    magic, _, rest = data.partition(b" ")
    crc, _, text = rest.partition(b" ")
    if magic != MAGIC or b"%08x" % zlib.crc32(text) != crc:
        return None
    try:
        values = json.loads(text.decode("utf-8", "surrogatepass"))
        return Record(
            image_id=str(values["id"]),
            size=int(values["size"]),
            checksum=str(values["checksum"]),
            headers=tuple((str(name), str(value)) for name, value in values["headers"]),
            vary=tuple((str(name), value) for name, value in values["vary"]),
            stored=float(values["stored"]),
            age=float(values["age"]),
            variant=int(values.get("variant", 0)),
            guarded=bool(values.get("guarded", False)),
            boot=str(values.get("boot", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


_decode_once = functools.lru_cache(maxsize=4096)(_decode)


def read(fd: int, name: str, status: os.stat_result, records_fd: int) -> Record | None:
    """Read the record of an open entry.

    :param fd: the entry's file.
    :param name: its name.
    :param status: its ``fstat``.
    :param records_fd: the directory of records that did not fit an attribute.
    :return: ``None`` if there is none that belongs to this file.
    :raises OSError: it could not be read.
    """
    data = _xattrs.get(fd, ATTRIBUTE)
    if data is not None:
        return decode(data)
    tie = _tie(status)
    # It may be renamed from the second to the first while we look.
    for aside in (name, _pending(name, status), name):
        found, _, data = _read_aside(aside, records_fd).partition(b"\n")
        if found == tie:
            return decode(data)
    return None


def loose(fd: int, name: str, status: os.stat_result, records_fd: int) -> Record | None:
    """Read a record kept aside that the entry had until its file was touched, cut or copied.

    :raises OSError: it could not be read.
    """
    if _xattrs.get(fd, ATTRIBUTE) is not None:
        return None
    for aside in (name, _pending(name, status)):
        tie, _, data = _read_aside(aside, records_fd).partition(b"\n")
        record = decode(data) if tie != _tie(status) else None
        if record is not None:
            return record
    return None


def is_in_attribute(fd: int) -> bool:
    """Say whether an open file has something where its record should be.

    :raises OSError: it could not be read.
    """
    return _xattrs.get(fd, ATTRIBUTE) is not None


def drop_attribute(fd: int) -> None:
    """Remove what a file has where its record should be.

    :raises OSError: it could not be removed.
    """
    _xattrs.remove(fd, ATTRIBUTE)


def _read_aside(aside: str, records_fd: int) -> bytes:
    try:
        fd = os.open(aside, _READ, dir_fd=records_fd)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, _LONGEST)
    finally:
        os.close(fd)


def _pending(name: str, status: os.stat_result) -> str:
    """Name the record of a file that is about to become the entry.

    No two fills share one: a fill may be voided, and another begin, before the first knows.
    """
    return f".{name}-{status.st_ino}"


def entry_of(aside: str) -> str:
    """Give the entry's name of a file in the directory of records."""
    return aside[1:].rpartition("-")[0] if aside.startswith(".") else aside


def write(fd: int, name: str, record: Record, records_fd: int, sync: bool) -> bool:
    """Write the record of a file that is about to become an entry; where it is kept aside,
    :func:`finish` follows. Until then the older entry keeps its own.

    :param sync: whether the record must be on the device before this returns
        (in an attribute it goes with the file's own fsync, which the caller does).
    :return: whether it is kept aside, in the directory of records.
    :raises OSError: it could not be written.
    """
    data = encode(record)
    if len(data) > _LONGEST - 100:  # the rest is for the tie
        raise OSError(errno.E2BIG, f"its record is {len(data)} bytes long")
    try:
        _xattrs.set(fd, ATTRIBUTE, data)
        return False
    except OSError as exc:
        if exc.errno not in REFUSED:
            raise
    temporary = _pending(name, os.fstat(fd))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    aside = os.open(temporary, flags, 0o600, dir_fd=records_fd)
    try:
        tie = _tie(os.fstat(fd))
        whole = b"%s\n%s" % (tie, data)
        if os.write(aside, whole) != len(whole):
            raise OSError(errno.ENOSPC, "record cut short")
        if sync:
            os.fsync(aside)
            os.fsync(records_fd)
        # An older record in the attribute would win over ours. It goes no sooner, lest a
        # reader meanwhile finds none.
        _xattrs.remove(fd, ATTRIBUTE)
    except BaseException:
        os.unlink(temporary, dir_fd=records_fd)
        raise
    finally:
        os.close(aside)
    return True


def finish(name: str, status: os.stat_result, records_fd: int) -> bool:
    """Put a record that was written aside in the place of the older entry's, if it is that of
    the file that is the entry now.

    :param status: of that file.
    :return: whether it is.
    :raises OSError: it cannot be read or renamed.
    """
    pending = _pending(name, status)
    tie, _, data = _read_aside(pending, records_fd).partition(b"\n")
    # Whoever wrote it may have died in the middle.
    if tie != _tie(status) or decode(data) is None:
        return False
    os.rename(pending, name, src_dir_fd=records_fd, dst_dir_fd=records_fd)
    return True


def remove(name: str, records_fd: int) -> None:
    """Remove the record that an entry may have in the directory of records."""
    try:
        os.unlink(name, dir_fd=records_fd)
    except (FileNotFoundError, IsADirectoryError):
        pass


def discard(name: str, status: os.stat_result, records_fd: int) -> None:
    """Remove a record that was written aside for a file that will not become the entry."""
    remove(_pending(name, status), records_fd)


def _tie(status: os.stat_result) -> bytes:
    # Survives a copy that keeps times (cp -a, rsync -a), unlike the inode's number.
    return b"%d %d" % (status.st_size, status.st_mtime_ns)
