"""Validation: ask the app whether a stored response still holds, and read its answer.

RFC 9111, sections 3.2 and 4.3, is the authority. What is compared is one
stored response with the answer to a request that named its validators and no
others.

Pure: any thread may call anything.

Imports: core.checksum, web.fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cachemw.core import checksum
from cachemw.web import fields

#: What a client asks of its own copy, or of a part, as environ keys
#: (RFC 9110, sections 13.1 and 14.2).
CLIENT_CONDITIONS = (
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_RANGE",
)

#: Fields of a message, not of the image: a 304 has no content, and whoever
#: sends one may well give the length and the digest of that.
_OF_MESSAGE = frozenset(
    (
        "age",
        "cache-status",
        "content-digest",
        "content-length",
        "content-md5",
        "content-range",
    )
)

#: Fields that never get into what is stored by way of a 304. The stored bytes
#: have the coding that they were sent in, and a cookie is for one person.
_NOT_UPDATED = _OF_MESSAGE | {"content-encoding", "set-cookie", "set-cookie2"}

_STRONG_TAG = re.compile(r'"[!#-~\x80-\xff]*+"')


def conditions(headers: fields.Headers) -> dict[str, str]:
    """The request fields that ask whether a stored response still holds.

    :param headers: of the stored response.
    :return: values as the app sent them, by environ key; empty if it cannot be asked.

    Source: RFC 9111, section 4.3.1.
    """
    asked = {}
    tag = (fields.get(headers, "ETag") or "").strip(fields.OWS)
    if tag:
        asked["HTTP_IF_NONE_MATCH"] = tag
    changed = fields.get(headers, "Last-Modified")
    if changed is not None and _date(changed) is not None:
        asked["HTTP_IF_MODIFIED_SINCE"] = changed.strip(fields.OWS)
    return asked


def strong_validator(headers: fields.Headers) -> str | None:
    """The validator by which the rest of one version can be asked for (If-Range).

    Source: RFC 9110, sections 13.1.5 and 8.8.1.
    """
    tag = _tag(headers)
    if tag:
        return tag if _STRONG_TAG.fullmatch(tag) else None
    return fields.get(headers, "Last-Modified") if _has_strong_date(headers) else None


def same_version(headers: fields.Headers, other: fields.Headers) -> bool:
    """Whether two answers are, by a strong validator, of the same bytes.

    Source: RFC 9110, sections 8.8.1 and 8.8.3.2.
    """
    validator = strong_validator(headers)
    if validator is None or _coding(headers) != _coding(other):
        return False
    return not _digests_differ(headers, other) and validator == strong_validator(other)


def unconditional(environ: Mapping[str, Any]) -> dict[str, Any]:
    """The request without what the client asks of its own copy, so that all of an image comes.

    Source: RFC 9111, section 4.3.1; RFC 9110, sections 13.1 and 14.2.
    """
    return {key: value for key, value in environ.items() if key not in CLIENT_CONDITIONS}


def freshens(stored: fields.Headers, fresh: fields.Headers) -> bool:
    """Whether a 304 is about the stored response.

    A 304 without validators is taken for one, where section 4.3.4 would have
    that only of a stored response without them: the request named this one
    response, and many apps leave them out. A digest that differs tells that
    the app means another image, whatever else it says.

    :param stored: fields of the stored response.
    :param fresh: fields of the 304.

    Source: RFC 9111, sections 4.3.3 and 4.3.4.
    """
    if _digests_differ(stored, fresh):
        return False
    tag = _tag(fresh)
    if tag:
        own = _tag(stored)
        if tag.startswith("W/"):
            return own.removeprefix("W/") == tag.removeprefix("W/")
        return own == tag
    changed = _last_modified(fresh)
    return changed is None or changed == _last_modified(stored)


def updated(
    stored: fields.Headers, fresh: fields.Headers, response_time: float, whole: bool = False
) -> tuple[tuple[str, str], ...]:
    """The fields of a stored response after a 304.

    Each field of the 304 takes the place of all of that name, except those
    that the stored bytes depend on or that are about one message. Without a
    Date it has the time that it arrived.

    :param stored: fields of the stored response.
    :param fresh: fields of the 304.
    :param response_time: when the 304 arrived, seconds since the epoch.
    :param whole: whether the 304 has all fields, so that what it lacks is gone.

    Source: RFC 9111, sections 3.1 and 3.2; RFC 9110, section 6.6.1.
    """
    news = [pair for pair in fields.end_to_end(fresh) if pair[0].lower() not in _NOT_UPDATED]
    if fields.get(news, "Date") is None:
        news.append(("Date", fields.format_http_date(response_time)))
    replaced = {name.lower() for name, _ in news}
    kept = [pair for pair in stored if pair[0].lower() not in replaced]
    if whole:
        kept = [pair for pair in kept if pair[0].lower() in _NOT_UPDATED]
    return (*kept, *news)


def same_representation(
    stored: fields.Headers,
    size: int,
    stored_checksum: str,
    fresh: fields.Headers,
    expected: Iterable[checksum.Checksum],
) -> bool:
    """Whether a 200 brings the bytes that are stored already, so that it is as good as a 304.

    Nothing less than this will do: the same strong ETag, or where neither has
    an ETag the same Last-Modified, which must be strong or have a checksum
    beside it that agrees; the same coding; and no length or checksum that
    contradicts.

    :param stored: fields of the stored response.
    :param size: of the stored bytes.
    :param stored_checksum: ``"<algorithm>:<hex>"`` of the stored bytes.
    :param fresh: fields of the 200.
    :param expected: the checksums that the 200 promises.

    Source: RFC 9110, sections 8.8.1, 8.8.2.2 and 8.8.3.2; RFC 9111, section 4.3.3.
    """
    if _coding(stored) != _coding(fresh):
        return False
    if any(length != str(size) for length in _lengths(fresh)):
        return False
    algorithm = stored_checksum.partition(":")[0]
    promised = {str(one) for one in expected if one.algorithm == algorithm}
    if promised - {stored_checksum}:
        return False
    tag = _tag(fresh)
    if tag or _tag(stored):
        return tag == _tag(stored) and _STRONG_TAG.fullmatch(tag) is not None
    changed = _last_modified(fresh)
    return (
        changed is not None
        and changed == _last_modified(stored)
        and (bool(promised) or _has_strong_date(stored))
    )


def _has_strong_date(headers: fields.Headers) -> bool:
    """Whether nothing can have changed in the second of Last-Modified and after it.

    Source: RFC 9110, section 8.8.2.2.
    """
    changed = _last_modified(headers)
    date = _date(fields.get(headers, "Date") or "")
    return changed is not None and date is not None and date - changed >= 1


def _digests_differ(stored: fields.Headers, fresh: fields.Headers) -> bool:
    """Whether both give a digest of the image by one algorithm, and not the same."""
    own, other = _digests(stored), _digests(fresh)
    return any(own[algorithm] != other[algorithm] for algorithm in own.keys() & other.keys())


def _digests(headers: fields.Headers) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    lines = [pair for pair in headers if pair[0].lower() not in _OF_MESSAGE]
    for one in checksum.from_headers(lines):
        found[one.algorithm] = found.get(one.algorithm, frozenset()) | {one.hexdigest}
    return found


def _tag(headers: fields.Headers) -> str:
    return (fields.get(headers, "ETag") or "").strip(fields.OWS)


def _last_modified(headers: fields.Headers) -> float | None:
    return _date(fields.get(headers, "Last-Modified") or "")


def _date(text: str) -> float | None:
    # Which century a two-digit year means changes nothing here: the same text
    # gives the same time, so any fixed present will do.
    return fields.parse_http_date(text, 0.0)


def _coding(headers: fields.Headers) -> list[str]:
    return [
        coding.lower()
        for value in fields.get_all(headers, "Content-Encoding")
        for coding in fields.split_list(value)
    ]


def _lengths(headers: fields.Headers) -> list[str]:
    return [value.strip(fields.OWS) for value in fields.get_all(headers, "Content-Length")]
