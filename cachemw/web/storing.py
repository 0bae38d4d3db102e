"""Whether an answer of the app may be stored, and what is kept of it.

Pure: functions over the request's environ and the answer's fields.

Imports: drivers.base, web.fields, web.freshness.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..drivers.base import Record
from . import fields, freshness

#: Request fields that say who is asking, as environ keys.
CREDENTIALS = (
    "HTTP_AUTHORIZATION",
    "HTTP_COOKIE",
    "HTTP_X_AUTH_TOKEN",
    "HTTP_X_SERVICE_TOKEN",
    "HTTP_X_STORAGE_TOKEN",
    "HTTP_X_AMZ_SECURITY_TOKEN",
    "REMOTE_USER",
)

#: Fields of an answer that are true of one message, not of the image.
_NOT_KEPT = frozenset({"content-length", "age", "cache-status"})


def environ_key(field: str) -> str:
    """Give the environ key of a request field (PEP 3333)."""
    key = field.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def content_length(headers: fields.Headers) -> int | None:
    """Read the length that an answer promises.

    :return: bytes; ``None`` if it promises none.
    :raises ValueError: it promises nonsense, or several lengths.

    Source: RFC 9110, section 8.6.
    """
    lengths = {
        element
        for value in fields.get_all(headers, "content-length")
        for element in (fields.split_list(value) or [value])
    }
    if not lengths:
        return None
    (length,) = lengths if len(lengths) == 1 else ("several",)
    if not (length.isascii() and length.isdigit()):
        raise ValueError(f"Content-Length: expected one number, not {sorted(lengths)}")
    return int(length)


def is_image(headers: fields.Headers, patterns: Collection[str]) -> bool:
    """Say whether an answer's media type is one of those that count as images."""
    media_type, _, _ = (fields.get(headers, "content-type") or "").partition(";")
    name = media_type.strip().lower()
    return any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in patterns)


def refusal(
    environ: Mapping[str, Any],
    status: int,
    headers: fields.Headers,
    *,
    content_types: Collection[str],
    credential_keys: Sequence[str],
    immutable: bool,
    now: float,
) -> str | None:
    """Why an answer to a GET is not stored.

    :param credential_keys: environ keys that count as credentials.
    :param immutable: an id never changes its bytes, so age does not matter.
    :return: a word for the detail of Cache-Status; ``None``: store it.
    """
    if "HTTP_RANGE" in environ:
        return "range"
    reason = freshness.refuses_storage(
        environ,
        status,
        headers,
        any(environ.get(key) for key in credential_keys),
        {key.removeprefix("HTTP_").replace("_", "-").lower() for key in credential_keys},
    )
    if reason is not None:
        return reason
    if not is_image(headers, content_types):
        return "content-type"
    try:
        content_length(headers)
    except ValueError:
        return "content-length"
    if not immutable and freshness.lifetime(headers, now) <= freshness.initial_age(
        headers, now, now
    ):
        return "not-fresh"
    return None


def new_record(
    image_id: str,
    environ: Mapping[str, Any],
    headers: fields.Headers,
    request_time: float,
    response_time: float,
) -> Record:
    """Describe an answer that will be stored; size and checksum are not known yet.

    :param request_time: when the app was asked, seconds since the epoch.
    :param response_time: when it answered.
    """
    kept = [pair for pair in fields.end_to_end(headers) if pair[0].lower() not in _NOT_KEPT]
    if fields.get(kept, "date") is None:
        # RFC 9110, section 6.6.1: whoever receives it without one records the time.
        kept.append(("Date", fields.format_http_date(response_time)))
    names = {
        name.lower()
        for value in fields.get_all(headers, "vary")
        for name in fields.split_list(value)
    }
    return Record(
        image_id=image_id,
        size=0,
        checksum="",
        headers=tuple(kept),
        vary=tuple((name, environ.get(environ_key(name))) for name in sorted(names)),
        stored=response_time,
        age=freshness.initial_age(headers, request_time, response_time),
    )


def is_selected(record: Record, environ: Mapping[str, Any]) -> bool:
    """Say whether a request selects the stored variant (RFC 9111, section 4.1)."""
    return all(environ.get(environ_key(name)) == value for name, value in record.vary)


def lifetime(record: Record, immutable: bool) -> float:
    """Give the seconds for which a stored answer is fresh."""
    return math.inf if immutable else freshness.lifetime(record.headers, record.stored)
