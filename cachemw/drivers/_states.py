"""The bytes of a fill's state file, and of an image's checksums by chunk.

``docs/formats/cache-directory.rst`` is the authority for the format; this
module follows it. Nothing in it is synced, and others write it while it is
read: so each value has something beside it that shows whether it is whole.

Imports: drivers._records, drivers.base.
"""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import _records
from .base import CHUNK, Record

#: What the file begins with; a change of the format changes it.
MAGIC = b"cachemwf1"

#: Bytes of the header; the record follows it.
HEADER = 1024

#: Where each value is.
INODE, RESERVED, WANTED, BOOT, TIE, READABLE, OUTCOME, ANNOUNCED = (
    16,
    32,
    48,
    64,
    256,
    496,
    512,
    1008,
)

#: Bytes that a text takes, with its length and checksum.
_TIE_ROOM, _OUTCOME_ROOM = READABLE - TIE, ANNOUNCED - OUTCOME

#: Where the checksums of the chunks are.
SUMS = 272 * 1024

#: Bytes of a chunk's checksum, with its length.
SUM = 8

#: Longest record, bytes.
_LONGEST = SUMS - HEADER

_NUMBER = struct.Struct("<QQ")
_TEXT = struct.Struct("<II")
_HEAD = struct.Struct("<IIQ")
_SUM = struct.Struct("<II")
_ALL_ONES = 2**64 - 1


class Head(NamedTuple):
    """What stands before an announced record.

    :param size: bytes of the record; 0: none was announced.
    :param crc: of the promised length and the record.
    :param promised: bytes of the image; all bits set: not known.
    """

    size: int
    crc: int
    promised: int


class Header(NamedTuple):
    """The header's values.

    :param inode: number of the fill's file.
    :param reserved: bytes that the fill counts as.
    :param wanted: the furthest position at which somebody waits.
    :param boot: the machine's boot in which it was written.
    :param tie: which image the checksums are of, once it is stored.
    :param readable: bytes that readers may have.
    :param outcome: as in :class:`~cachemw.drivers.base.FillState`.
    :param head: of the announced record.
    """

    inode: int
    reserved: int
    wanted: int
    boot: str
    tie: str
    readable: int
    outcome: str
    head: Head


class Chunk(NamedTuple):
    """The checksum of a chunk, or of its beginning.

    :param number: which chunk, from 0.
    :param length: bytes from the chunk's first; 0: nothing of it is there.
    :param crc: their CRC-32.
    """

    number: int
    length: int
    crc: int


def state_name(name: str, inode: int) -> str:
    """Give the name of a fill's state file.

    No two fills share one: a fill may be voided, and another begin, before the first knows.
    """
    return f".{name}.{inode}.fill"


def fill_of(state: str) -> tuple[str, int] | None:
    """Give entry name and inode of a state file's fill; ``None`` if it is no state file."""
    if not (state.startswith(".") and state.endswith(".fill")):
        return None
    name, _, inode = state[1:].removesuffix(".fill").rpartition(".")
    return (name, int(inode)) if inode.isascii() and inode.isdecimal() else None


def fresh_header(inode: int, boot: str) -> bytes:
    """Give the header of a fill that nothing was announced of."""
    header = bytearray(HEADER)
    header[: len(MAGIC)] = MAGIC
    for position, value in ((INODE, inode), (RESERVED, 0), (WANTED, 0), (READABLE, 0)):
        header[position : position + _NUMBER.size] = number(value)
    text = encode_boot(boot)
    header[BOOT : BOOT + len(text)] = text
    return bytes(header)


def encode_boot(boot: str) -> bytes:
    """Give a boot's bytes."""
    return boot.encode("ascii", "replace")[:48].ljust(48, b"\0")


def parse_header(data: bytes) -> Header | None:
    """Read a header; ``None`` if it is not one, or one of its values is not whole."""
    if len(data) < HEADER or data[:16] != MAGIC.ljust(16, b"\0"):
        return None
    inode, reserved, wanted, readable = (
        read_number(data[position : position + _NUMBER.size])
        for position in (INODE, RESERVED, WANTED, READABLE)
    )
    tie = _read_text(data[TIE : TIE + _TIE_ROOM])
    outcome = _read_text(data[OUTCOME : OUTCOME + _OUTCOME_ROOM])
    if inode is None or reserved is None or wanted is None or readable is None:
        return None
    if tie is None or outcome is None:
        return None
    boot = data[BOOT : BOOT + 48].rstrip(b"\0").decode("ascii", "replace")
    head = Head(*_HEAD.unpack_from(data, ANNOUNCED))
    return Header(inode, reserved, wanted, boot, tie, readable, outcome, head)


def number(value: int) -> bytes:
    """Give a number's bytes: itself, and its complement."""
    return _NUMBER.pack(value, value ^ _ALL_ONES)


def read_number(data: bytes) -> int | None:
    """Read a number; ``None`` if it is not whole."""
    if len(data) != _NUMBER.size:
        return None
    value: int
    value, complement = _NUMBER.unpack(data)
    return value if value ^ complement == _ALL_ONES else None


def encode_tie(size: int, checksum: str, sums: bytes) -> bytes:
    """Give the bytes that tie the checksums of chunks to an image."""
    return _text(tie_of(size, checksum, sums), _TIE_ROOM)


def tie_of(size: int, checksum: str, sums: bytes) -> str:
    """Give what ties the checksums of chunks to an image, and shows that they are whole."""
    return f"{size} {checksum} {zlib.crc32(sums):08x}"


def encode_outcome(outcome: str) -> bytes:
    """Give an outcome's bytes; one that is too long is cut."""
    return _text(outcome, _OUTCOME_ROOM)


def _text(value: str, room: int) -> bytes:
    longest = room - _TEXT.size
    # What cannot be said in UTF-8 came from somebody else's message.
    data = value.encode("utf-8", "replace")[:longest]
    data = data.decode("utf-8", "ignore").encode("utf-8")
    return (_TEXT.pack(len(data), zlib.crc32(data)) + data).ljust(room, b"\0")


def _read_text(data: bytes) -> str | None:
    length, crc = _TEXT.unpack_from(data)
    text = data[_TEXT.size : _TEXT.size + length]
    if len(text) != length or zlib.crc32(text) != crc:
        return None
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return None


def encode_announcement(record: Record, length: int | None) -> bytes:
    """Give the bytes that are at :data:`ANNOUNCED`: the head and the record.

    :raises OSError: the record is too long.
    """
    data = _records.encode(record)
    if len(data) > _LONGEST:
        raise OSError(errno.E2BIG, f"its record is {len(data)} bytes long")
    promised = _ALL_ONES if length is None else length
    return _HEAD.pack(len(data), _announced_crc(promised, data), promised) + data


def record_size(head: Head) -> int:
    """Give how many bytes of record to read after a head; more than there may be: 0."""
    return head.size if head.size <= _LONGEST else 0


def read_announcement(head: Head, data: bytes) -> tuple[Record, int | None] | None:
    """Read what was announced: record and promised length; ``None`` if it is not whole."""
    if len(data) != head.size or _announced_crc(head.promised, data) != head.crc:
        return None
    record = _records.decode(data)
    if record is None:
        return None
    return record, None if head.promised == _ALL_ONES else head.promised


def _announced_crc(promised: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(promised.to_bytes(8, "little")))


def encode_sums(chunks: Sequence[Chunk]) -> Iterator[tuple[int, bytes]]:
    """Give positions in the file, and what to write there, for checksums of chunks in order."""
    run = bytearray()
    for place, chunk in enumerate(chunks):
        run += _SUM.pack(chunk.length, chunk.crc)
        following = chunks[place + 1].number if place + 1 < len(chunks) else None
        if following != chunk.number + 1:
            first = chunk.number + 1 - len(run) // SUM
            yield SUMS + first * SUM, bytes(run)
            run.clear()


def read_sums(first: int, data: bytes) -> Iterator[Chunk]:
    """Read the checksums of the chunks that something is there of.

    :param first: number of the chunk that ``data`` begins with.
    """
    whole = len(data) - len(data) % SUM
    for index, (length, crc) in enumerate(_SUM.iter_unpack(data[:whole]), first):
        if 0 < length <= CHUNK:
            yield Chunk(index, length, crc)


def sums_size(size: int) -> int:
    """Give the bytes of the checksums of all chunks of an image."""
    return -(-size // CHUNK) * SUM


def values_of(size: int, data: bytes) -> list[int] | None:
    """Read the checksums of a whole image's chunks; ``None`` if one is missing."""
    if len(data) != sums_size(size):
        return None
    values = []
    for index, (length, crc) in enumerate(_SUM.iter_unpack(data)):
        if length != min(CHUNK, size - index * CHUNK):
            return None
        values.append(crc)
    return values
