"""Answers from an entry, and the field that says how an answer came about.

Imports: core.entries, drivers.base, web.fields, web.growing, web.lasting, web.policy,
web.respond.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from ..core.entries import Entries
from ..drivers.base import Entry, MemoryEntry, Record
from . import fields
from .growing import GrowingEntry, HealedEntry, Stream
from .lasting import GoOn
from .policy import Policy, policy
from .respond import BLOCK, Representation, serve, serve_stream

#: What an answer is made from.
AnyEntry = Entry | MemoryEntry | GrowingEntry

#: Fields by which a client asks for what it has already.
_VALIDATORS = ("etag", "last-modified")

#: What is fresh for ever: an id that never changes its bytes.
IMMUTABLE = Policy(lifetime=math.inf, explicit=True, immutable=True)

#: What is never fresh: the app is asked every time.
REVALIDATE = Policy(no_cache=True, validator=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What an answer needs of a record, worked out once."""

    representation: Representation
    policy: Policy


def describe(record: Record, freshness: str) -> Stored:
    """Work out what an answer needs of a record.

    :param freshness: as the option of that name.
    """
    headers = list(record.headers)
    if fields.get(headers, "content-type") is None:
        headers.append(("Content-Type", "application/octet-stream"))
    has_validator = any(fields.get(headers, name) is not None for name in _VALIDATORS)
    if record.checksum and not has_validator:
        headers.append(("ETag", f'"{record.checksum}"'))
    fixed = {"immutable": IMMUTABLE, "revalidate": REVALIDATE}.get(freshness)
    return Stored(
        Representation.of(headers, record.size), fixed or policy(record.headers, record.stored)
    )


#: The same, once for each record: those of hot images are one object for many requests.
stored = functools.lru_cache(maxsize=1024)(describe)


def answer(
    entries: Entries,
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    entry: AnyEntry,
    representation: Representation,
    age: float,
    status: str,
    go_on: GoOn | None = None,
) -> Iterable[bytes]:
    """Answer a GET or HEAD from an entry, which counts a hit when it is closed, if it is complete.

    :param age: of the stored answer, in seconds.
    :param status: parameters of Cache-Status.
    :param go_on: finds another who has the image, where a checked entry is found damaged.
    :raises ImageCorrupt: the entry was found damaged and has left the cache; it is closed, and
        nothing was sent.
    """
    extra = (("Age", str(int(age))), cache_status(status))
    if not isinstance(entry, GrowingEntry):
        entries.count_hit(entry)
    elif entry.is_verified:
        entry.on_close = entries.counting_later(entry.growing, entry.record)
    if isinstance(entry, GrowingEntry) and entry.length is None:
        stream = Stream(entry, BLOCK)
        return serve_stream(environ, start_response, stream, entry.close, representation, extra)
    if go_on is not None and isinstance(entry, Entry) and entry.is_checked:
        healed = HealedEntry(entry, go_on)
        return serve(environ, start_response, healed, representation, extra)
    return serve(environ, start_response, entry, representation, extra)


def cache_status(parameters: str) -> tuple[str, str]:
    """Give the field that says how an answer came about (RFC 9211)."""
    return "Cache-Status", f"cachemw; {parameters}"
