"""What every image's bytes are, in every version: a pure function of both and the place.

Origin and clients need not keep an image to send or to check it: each block of
64 KiB is a window into one piece of noise, at a place that image, version and
block decide. Two blocks that should differ agree once in four million times.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Iterator

IMAGES = 50

SMALLEST, LARGEST = 1000, 64 * 2**20

#: Bytes of the images in version 0, from 1 KB to 64 MiB; 330 MB together.
SIZES = [
    int(SMALLEST * (LARGEST / SMALLEST) ** (number / (IMAGES - 1))) for number in range(IMAGES)
]

#: Versions differ in their length too, by up to so many bytes.
LONGER = 40

BLOCK = 2**16

_WINDOW = 2**22

_TAG = re.compile(r'"(\d+)\.(\d+)"')


@functools.cache
def noise() -> bytes:
    return random.Random("storm").randbytes(_WINDOW + BLOCK)


def size(number: int, version: int) -> int:
    """Give the length of an image (bytes)."""
    return SIZES[number] + version % LONGER


def chunks(number: int, version: int, start: int, stop: int) -> Iterator[bytes]:
    """Give the bytes from ``start`` to before ``stop``, a block or less at a time."""
    while start < stop:
        block, skipped = divmod(start, BLOCK)
        taken = min(BLOCK - skipped, stop - start)
        at = _place(number, version, block) + skipped
        yield noise()[at : at + taken]
        start += taken


def first_difference(number: int, version: int, start: int, data: bytes) -> int | None:
    """Give the place in the image of the first wrong byte; ``None``: all are right.

    :param start: place of the first byte of ``data``.
    """
    at = 0
    for expected in chunks(number, version, start, start + len(data)):
        if not data.startswith(expected, at):
            found = data[at : at + len(expected)]
            wrong = next(
                n for n, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1
            )
            return start + at + wrong
        at += len(expected)
    return None


def tag(number: int, version: int) -> str:
    """Name an image and its version: a strong entity tag."""
    return f'"{number}.{version}"'


def parse_tag(text: str) -> tuple[int, int]:
    """Give image and version of an entity tag.

    :raises ValueError: it is none of ours.
    """
    match = _TAG.fullmatch(text)
    if match is None:
        raise ValueError(f"not a tag of an image: {text}")
    return int(match[1]), int(match[2])


@functools.lru_cache(maxsize=1000)
def digest(number: int, version: int) -> bytes:
    """Give the SHA-256 of an image."""
    whole = hashlib.sha256()
    for chunk in chunks(number, version, 0, size(number, version)):
        whole.update(chunk)
    return whole.digest()


def target(number: int) -> str:
    """Give the path of an image; the ids of the odd ones are not safe as names of files."""
    return f"/images/odd/{number}" if number % 2 else f"/images/{number}"


def number_of(path: str) -> int:
    """Give the image that a path or an id is of."""
    return int(path.rpartition("/")[2])


def _place(number: int, version: int, block: int) -> int:
    mixed = (number * 0x9E3779B97F4A7C15 + version * 0xC2B2AE3D27D4EB4F + block + 1) & (2**64 - 1)
    mixed = (mixed ^ mixed >> 31) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    return (mixed ^ mixed >> 29) % _WINDOW
