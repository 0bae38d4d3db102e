"""Byte ranges: what a Range field asks for, and how the answer is laid out.

RFC 9110, section 14, is the authority. Slices are half-open, ``(start, stop)``,
as in Python; only ``content_range`` and the parts' heads count as HTTP does.

The work is bounded by ``MAX_LENGTH`` and ``MAX_RANGES``, whatever a client
sends, and no answer is longer than the image and a head for each part.

Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachemw.web import fields

#: A Range field with more range specs than this is ignored.
MAX_RANGES = 64

#: A longer Range field is ignored (characters). 64 specs of two 20-digit
#: numbers take 2,750.
MAX_LENGTH = 4096

#: Bytes beyond those that have come which a range is let wait for.
NEAR = 16 * 2**20

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")

#: Digits in the largest number worth converting: no image is that long, and
#: int() refuses long texts at a limit that the environment can lower.
_MAX_DIGITS = 20


class _MalformedError(Exception):
    """The Range field breaks the grammar."""


@dataclass(frozen=True)
class Multipart:
    """The layout of a multipart/byteranges body.

    :param content_type: of the response.
    :param length: of the whole body, in bytes.
    :param parts: for each part the bytes that precede it, then its slice.
    :param tail: the bytes after the last part.
    """

    content_type: str
    length: int
    parts: tuple[tuple[bytes, int, int], ...]
    tail: bytes


def parse_range(value: str, size: int) -> list[tuple[int, int]] | None:
    """The slices of the image that a Range field asks for.

    Two or more slices that overlap or touch become one, so that no byte is sent
    twice however often it is asked for. It takes the place of the first spec
    that went into it; apart from that the order asked for is kept, since a
    client may want one part before the others.

    An image of no bytes has no slice to send: a suffix of it is satisfiable,
    but no Content-Range can say so, and the field is ignored.

    :param value: the field's value.
    :param size: of the whole image, in bytes.
    :return: slices within the image; an empty list when none of the specs can
        be satisfied (416); ``None`` when the field is to be ignored: malformed,
        of another unit, too long, or of too many specs.

    Source: RFC 9110, sections 14.1.1, 14.1.2, 14.2 and 15.3.7.2.
    """
    if len(value) > MAX_LENGTH:
        return None
    unit, equals, specs = value.strip(fields.OWS).partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    elements = fields.split_list(specs)
    if not 1 <= len(elements) <= MAX_RANGES:
        return None
    try:
        wanted = [_slice(element, size) for element in elements]
    except _MalformedError:
        return None
    slices = [found for found in wanted if found is not None]
    if size == 0 and slices:
        return None
    return slices if len(slices) < 2 else _coalesce(slices)


def is_far(environ: Mapping[str, Any], available: int, length: int | None) -> bool:
    """Whether a request wants only what a fill will bring in a while, so that the app is quicker.

    :param environ: the request, as WSGI has it.
    :param available: bytes, from the first, that have come.
    :param length: of the image, or ``None`` if nobody knows.
    """
    value = environ.get("HTTP_RANGE")
    if value is None or length is None or environ["REQUEST_METHOD"] != "GET":
        return False
    slices = parse_range(value, length) or [(0, length)]
    return all(start > available + NEAR for start, _ in slices)


def content_range(start: int, stop: int, size: int) -> str:
    """The Content-Range of one slice, which holds at least one byte.

    Source: RFC 9110, section 14.4.
    """
    return f"bytes {start}-{stop - 1}/{size}"


def unsatisfied_range(size: int) -> str:
    """The Content-Range of a 416.

    Source: RFC 9110, sections 14.4 and 15.5.17.
    """
    return f"bytes */{size}"


def multipart(
    slices: list[tuple[int, int]], size: int, content_type: str | None, boundary: str
) -> Multipart:
    """Lay out the body that carries several slices.

    :param slices: as ``parse_range`` gives them, at least one.
    :param size: of the whole image, in bytes.
    :param content_type: of the image; ``None`` if it has none.
    :param boundary: 1 to 70 letters and digits, which must not occur in the
        image: random, and chosen anew for each response.

    Source: RFC 9110, section 14.6; RFC 2046, section 5.1.1.
    """
    about = f"Content-Type: {content_type}\r\n" if content_type else ""
    parts = []
    separator = f"--{boundary}"
    for start, stop in slices:
        where = content_range(start, stop, size)
        head = f"{separator}\r\n{about}Content-Range: {where}\r\n\r\n"
        parts.append((head.encode("latin-1"), start, stop))
        separator = f"\r\n--{boundary}"
    tail = f"{separator}--\r\n".encode("latin-1")
    return Multipart(
        content_type=f"multipart/byteranges; boundary={boundary}",
        length=sum(len(head) + stop - start for head, start, stop in parts) + len(tail),
        parts=tuple(parts),
        tail=tail,
    )


def _slice(spec: str, size: int) -> tuple[int, int] | None:
    """One range spec; ``None`` if it cannot be satisfied.

    :raises _MalformedError: it is not a range spec.

    Source: RFC 9110, section 14.1.2.
    """
    found = _SPEC.fullmatch(spec)
    if not found or spec == "-":
        raise _MalformedError
    first, last = found.groups()
    if not first:
        suffix = _number(last)
        return (max(size - suffix, 0), size) if suffix else None
    if last and _magnitude(last) < _magnitude(first):
        raise _MalformedError
    start = _number(first)
    stop = min(_number(last) + 1, size) if last else size
    return (start, stop) if start < size else None


def _magnitude(digits: str) -> tuple[int, str]:
    """Orders texts of digits as their numbers, without converting them."""
    digits = digits.lstrip("0")
    return len(digits), digits


def _number(digits: str) -> int:
    """The number, or one beyond the size of any image."""
    length, digits = _magnitude(digits)
    return int(digits or "0") if length <= _MAX_DIGITS else 10**_MAX_DIGITS


def _coalesce(slices: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join what overlaps or touches; each result stands where its first member stood."""
    joined: list[tuple[int, int, int]] = []
    for start, stop, place in sorted((*ends, place) for place, ends in enumerate(slices)):
        if joined and start <= joined[-1][2]:
            first_place, first_start, last_stop = joined[-1]
            joined[-1] = (min(first_place, place), first_start, max(last_stop, stop))
        else:
            joined.append((place, start, stop))
    return [(start, stop) for _, start, stop in sorted(joined)]
