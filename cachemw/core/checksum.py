"""Checksums: what a response promises about its bytes, and what the bytes give.

``interface.md`` lists the fields that are read. A promise that cannot be read,
or is made in an algorithm that is not in ``ALGORITHMS``, is no promise: it is
skipped, and never an error.

Pure but for ``Digests``, whose instances are one thread's at a time.

Imports: nothing of ours.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

#: Every algorithm we know, the strongest first, with the length of its
#: digest (bytes).
ALGORITHMS = {"sha512": 64, "sha384": 48, "sha256": 32, "sha1": 20, "md5": 16, "crc32": 4}

_STRENGTH = {algorithm: place for place, algorithm in enumerate(ALGORITHMS)}

#: The algorithm that bare hex of so many digits belongs to.
_BY_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}

#: Names in the HTTP registries of digest algorithms that are not ours.
_REGISTERED = {"sha": "sha1", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}

_HEX = re.compile(r"[0-9A-Fa-f]+")
_MEMBER = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.?)*+"?)++', re.DOTALL)
_BYTE_SEQUENCE = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):(?:[ \t]*;.*)?", re.DOTALL)
_MD5_TAG = re.compile(r'"([0-9A-Fa-f]{32})"|([0-9A-Fa-f]{32})')


@dataclass(frozen=True)
class Checksum:
    """What some bytes hash to; ``str()`` gives ``"sha256:<hex>"``.

    :param algorithm: a key of ``ALGORITHMS``.
    :param hexdigest: in lower case.
    """

    algorithm: str
    hexdigest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexdigest}"


def parse_checksum(text: str) -> Checksum:
    """Read ``"sha256:<hex>"``, or bare hex, whose length names the algorithm.

    :param text: in any case.
    :raises ValueError: names the text and what was expected.
    """
    algorithm, colon, digits = text.lower().rpartition(":")
    if not colon:
        algorithm = _BY_DIGITS.get(len(digits), "")
    if len(digits) != 2 * ALGORITHMS.get(algorithm, 0) or not _HEX.fullmatch(digits):
        raise ValueError(
            f"{text[:200]!r} is not a checksum: expected 32, 40, 64 or 128 hex digits, or"
            f" ALGORITHM:HEX with the digits of one of {', '.join(ALGORITHMS)}"
        )
    return Checksum(algorithm, digits)


def from_headers(
    headers: Iterable[tuple[str, str]], etag_is_md5: bool = False
) -> tuple[Checksum, ...]:
    """Every checksum that a complete response (200 to a GET) promises for its bytes.

    :param headers: of the response.
    :param etag_is_md5: whether a strong ETag of 32 hex digits is an MD5. That of
        a Swift large object, which is made of its segments', never is.
    :return: the strongest first, each once. Two of one algorithm mean that
        the response contradicts itself, and that no bytes can be right.

    Source: RFC 1864, RFC 3230, RFC 9530; Docker Registry HTTP API V2;
    Google Cloud Storage XML API (x-goog-hash); Amazon S3 API (x-amz-checksum-type).
    """
    lines = [(name.lower(), value) for name, value in headers]
    values = dict(reversed(lines))  # so that the first of each name stays
    found: dict[Checksum, None] = {}
    for name, value in lines:
        reader = _reader(name, values, etag_is_md5)
        if reader is None:
            continue
        for member in _MEMBER.findall(value):
            checksum = reader(member.strip(" \t"))
            if checksum is not None:
                found[checksum] = None
    return tuple(sorted(found, key=lambda checksum: _STRENGTH[checksum.algorithm]))


class _Running(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Crc32:
    """zlib's CRC-32 with the manner of a hashlib object."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class Digests:
    """Several checksums of one stream of bytes.

    One thread at a time; hashing a large block leaves the interpreter free
    for others.

    :param algorithms: keys of ``ALGORITHMS``; a repeated one is computed once.
    :raises ValueError: names an algorithm that is not among them.
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._running = {algorithm: _start(algorithm) for algorithm in dict.fromkeys(algorithms)}

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the next bytes."""
        for running in self._running.values():
            running.update(data)

    def hexdigests(self) -> dict[str, str]:
        """The digests of the bytes so far, in lower-case hex, by algorithm."""
        return {algorithm: running.hexdigest() for algorithm, running in self._running.items()}

    def mismatch(self, expected: Iterable[Checksum]) -> Checksum | None:
        """The first checksum that the bytes so far do not have.

        :return: ``None`` if they have them all.
        :raises KeyError: one is of an algorithm that is not computed here, so
            that nothing can be said about it.
        """
        actual = self.hexdigests()
        for checksum in expected:
            if actual[checksum.algorithm] != checksum.hexdigest:
                return checksum
        return None


def _start(algorithm: str) -> _Running:
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}")
    if algorithm == "crc32":
        return _Crc32()
    return hashlib.new(algorithm, usedforsecurity=False)


_Reader = Callable[[str], Checksum | None]


def _reader(name: str, values: dict[str, str], etag_is_md5: bool) -> _Reader | None:
    """What reads one member of that field, if it is about the bytes as they are stored.

    :param name: of the field, in lower case.
    :param values: the fields of the response by lower-case name.
    """
    if name.startswith("x-amz-checksum-"):
        if values.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
            return None
        algorithm = name.removeprefix("x-amz-checksum-")
        return lambda member: _decoded(algorithm, member)
    if name == "x-goog-hash":
        return _instance_digest if _is_stored_encoding(values) else None
    if name in _OF_BYTES_WITHOUT_CODING and _encoding(values.get("content-encoding", "")):
        return None
    if name == "etag":
        return _md5_tag if etag_is_md5 and not _is_swift_large_object(values) else None
    return _READERS.get(name)


def _is_stored_encoding(values: dict[str, str]) -> bool:
    """Whether Google sent the encoding that its hashes are of."""
    stored = values.get("x-goog-stored-content-encoding")
    return stored is None or _encoding(stored) == _encoding(values.get("content-encoding", ""))


def _encoding(value: str) -> str:
    coding = value.strip(" \t").lower()
    return "" if coding == "identity" else coding


def _is_swift_large_object(values: dict[str, str]) -> bool:
    return "x-static-large-object" in values or "x-object-manifest" in values


def _decoded(algorithm: str, text: str) -> Checksum | None:
    """A digest in hex or base64; the length tells one from the other."""
    size = ALGORITHMS.get(algorithm)
    if size is None:
        return None
    if len(text) == 2 * size and _HEX.fullmatch(text):
        return Checksum(algorithm, text.lower())
    try:
        digest = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return None
    return Checksum(algorithm, digest.hex()) if len(digest) == size else None


def _md5(member: str) -> Checksum | None:
    return _decoded("md5", member)


def _md5_tag(member: str) -> Checksum | None:
    tag = _MD5_TAG.fullmatch(member)
    return Checksum("md5", (tag[1] or tag[2]).lower()) if tag else None


def _byte_sequence(member: str) -> Checksum | None:
    """``sha-256=:base64:`` (RFC 9530, section 2; RFC 9651, section 3.3.5)."""
    found = _BYTE_SEQUENCE.fullmatch(member)
    return _decoded(_REGISTERED.get(found[1], found[1]), found[2]) if found else None


def _instance_digest(member: str) -> Checksum | None:
    """``SHA-256=base64`` (RFC 3230, section 4.3.2)."""
    name, _, text = member.partition("=")
    name = name.lower()
    return _decoded(_REGISTERED.get(name, name), text)


def _named(member: str) -> Checksum | None:
    """``sha256:hex``."""
    try:
        return parse_checksum(member)
    except ValueError:
        return None


#: Fields that a server sets for what it stores, and that a proxy which encodes
#: the body on its way leaves as they are.
_OF_BYTES_WITHOUT_CODING = frozenset({"docker-content-digest", "x-image-meta-checksum"})

_READERS: dict[str, _Reader] = {
    "content-md5": _md5,
    "x-image-meta-checksum": _md5,
    "repr-digest": _byte_sequence,
    "content-digest": _byte_sequence,
    "digest": _instance_digest,
    "docker-content-digest": _named,
}
