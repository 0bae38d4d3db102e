"""``.verified``: up to which entry the entries were verified, in the order of their names.

All entries are gone through in that order, again and again. So those after the
one that was verified last are those whose turn was longest ago, and what was
stored since was verified then; one name is all that has to be remembered.

``docs/formats/cache-directory.rst`` is the authority for the file's bytes.

Imports: names.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from .. import names

#: The file, in the cache directory.
NAME = ".verified"

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: The file is always this long, so that a shorter text leaves nothing of a longer one.
_SIZE = 512


class Place(NamedTuple):
    """How far it is.

    :param name: of the entry that was verified last; empty: none yet.
    :param began: when this turn began, seconds since the epoch.
    :param before: when the turn before it began; 0: there was none.
    """

    name: str = ""
    began: float = 0.0
    before: float = 0.0


def load(directory: int) -> Place:
    """Read how far it is; what cannot be read begins anew.

    :param directory: descriptor of the cache directory.
    """
    try:
        fd = os.open(NAME, os.O_RDONLY | _FLAGS, dir_fd=directory)
        try:
            values = json.loads(os.pread(fd, _SIZE, 0))
        finally:
            os.close(fd)
        place = Place(str(values["name"]), float(values["began"]), float(values["before"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Place()
    return place if names.is_entry_name(place.name) else place._replace(name="")


def save(place: Place, directory: int) -> None:
    """Write how far it is. It is not synced: what is lost is verified once more.

    :raises OSError: it cannot be written.
    """
    text = json.dumps(place._asdict(), separators=(",", ":")).ljust(_SIZE)
    fd = os.open(NAME, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600, dir_fd=directory)
    try:
        os.pwrite(fd, text.encode("ascii"), 0)
    finally:
        os.close(fd)
