"""Image ids and the file names they are kept under.

An id that is safe as a file name is its own file name, which is what makes a
Glance cache directory readable as it is. Every other id, and every variant of
an image but the first, gets ``_`` and a SHA-256: ``_`` begins no safe name, so
the two kinds cannot meet, and equal digests would be a broken SHA-256. The id
itself travels in the entry's record.

Imports: nothing of ours.
"""

from __future__ import annotations

import functools
import hashlib
import re

#: The longest image id, in characters.
MAX_ID_LENGTH = 2000

#: Directories and files of ours that share the cache directory with entries.
RESERVED_NAMES = frozenset({"incomplete", "invalid", "queue"})

#: The index and its companions (-wal, -shm, -journal) all begin so.
INDEX_NAME = "cache.db"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_DIGEST_NAME = re.compile(r"_[0-9a-f]{64}\Z")


def check_image_id(image_id: str | int) -> str:
    """Take an image id as callers give it.

    :param image_id: a non-empty string of at most :data:`MAX_ID_LENGTH`
        characters, or an int, which stands for its decimal form.
    :return: the id as a string.
    :raises ValueError: anything else; the message names the value.
    """
    if isinstance(image_id, int) and not isinstance(image_id, bool):
        bits = image_id.bit_length()
        # The interpreter refuses to write out much longer ones.
        if bits > 4 * MAX_ID_LENGTH:
            raise ValueError(
                f"image id: expected 1 to {MAX_ID_LENGTH} characters, not an integer of {bits} bits"
            )
        image_id = str(image_id)
    if not isinstance(image_id, str):
        raise ValueError(f"image id {image_id!r}: expected a string, not {type(image_id).__name__}")
    if not 0 < len(image_id) <= MAX_ID_LENGTH:
        shown = image_id if len(image_id) <= 80 else f"{image_id[:77]}..."
        raise ValueError(
            f"image id {shown!r}: expected 1 to {MAX_ID_LENGTH} characters, not {len(image_id)}"
        )
    return image_id


def is_safe_name(name: str) -> bool:
    """Say whether an id may be its own file name."""
    return (
        _SAFE_NAME.match(name) is not None
        and name not in RESERVED_NAMES
        and not name.startswith(INDEX_NAME)
    )


@functools.lru_cache(maxsize=4096)
def entry_name(image_id: str, variant: int = 0) -> str:
    """Give the file name that an image is kept under: one per id and variant, never two
    to a name.

    :param image_id: as :func:`check_image_id` returns it.
    :param variant: the number of the variant, from 0.
    :return: at most 200 ASCII characters, without a slash, not beginning with a dot.
    """
    if not variant and is_safe_name(image_id):
        return image_id
    # Ids may hold lone surrogates (bytes that were not UTF-8); they stay distinct.
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass"))
    if variant:
        digest.update(b"\xff%d" % variant)  # no UTF-8 has such a byte
    return f"_{digest.hexdigest()}"


def is_entry_name(name: str) -> bool:
    """Say whether a file of that name in the cache directory can be an entry."""
    return is_safe_name(name) or _DIGEST_NAME.match(name) is not None
