"""Conditional requests: go on, 304 or 412; and whether a Range still applies.

RFC 9110, section 13, is the authority. Everything here is about a selected
representation that exists. A tag that is malformed matches nothing, and a date
that is malformed is ignored; in both cases the client gets the whole answer.

Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cachemw.web import fields

_TAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*+")')

# A tag may hold commas and backslashes, so that this list is not split as
# others are. The second branch skips a malformed member, quoted parts whole.
_MEMBER = re.compile(
    rf"""[ \t]*+(?:{_TAG.pattern}[ \t]*+(?:,|\Z)|(?:[^",]++|"[^"]*+"?)*+(?:,|\Z))"""
)


def evaluate(environ: Mapping[str, Any], etag: str | None, last_modified: float | None) -> int:
    """Evaluate the preconditions of a request, in their order of precedence.

    :param environ: the request, as WSGI has it.
    :param etag: the ETag of the selected representation, as it is sent.
    :param last_modified: its time of change, in seconds since the epoch.
    :return: 200 to go on with the request, 304 or 412 to answer at once.

    Source: RFC 9110, section 13.2.2.
    """
    if (
        "HTTP_IF_NONE_MATCH" not in environ
        and "HTTP_IF_MODIFIED_SINCE" not in environ
        and "HTTP_IF_MATCH" not in environ
        and "HTTP_IF_UNMODIFIED_SINCE" not in environ
    ):
        return 200
    if not _may_go_on(environ, etag, last_modified):
        return 412
    reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
    if_none_match = environ.get("HTTP_IF_NONE_MATCH")
    if if_none_match is not None:
        if not _matches(if_none_match, etag, strong=False):
            return 200
        return 304 if reads else 412
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    if reads and since is not None and _unchanged_since(since, last_modified):
        return 304
    return 200


def range_applies(
    if_range: str, etag: str | None, last_modified: float | None, date: float | None
) -> bool:
    """Whether the Range field of a request with that If-Range is to be honoured.

    :param if_range: the value of the If-Range field: a tag or a date.
    :param etag: the ETag of the selected representation, as it is sent.
    :param last_modified: its time of change, in seconds since the epoch.
    :param date: the time in its Date field; ``None`` makes ``last_modified`` a
        weak validator, which never applies.

    Source: RFC 9110, sections 13.1.5, 8.8.2.2 and 14.2.
    """
    if_range = if_range.strip(fields.OWS)
    if '"' in if_range[:3]:
        return _TAG.fullmatch(if_range) is not None and _matches(if_range, etag, strong=True)
    if last_modified is None or date is None or date - last_modified < 1:
        return False
    return fields.parse_http_date(if_range) == math.floor(last_modified)


def _may_go_on(environ: Mapping[str, Any], etag: str | None, last_modified: float | None) -> bool:
    """If-Match, else If-Unmodified-Since (RFC 9110, sections 13.1.1 and 13.1.4)."""
    if_match = environ.get("HTTP_IF_MATCH")
    if if_match is not None:
        return _matches(if_match, etag, strong=True)
    since = environ.get("HTTP_IF_UNMODIFIED_SINCE")
    return since is None or _unchanged_since(since, last_modified) is not False


def _unchanged_since(text: str, last_modified: float | None) -> bool | None:
    """Whether nothing changed after that date; ``None`` if that cannot be said.

    Source: RFC 9110, sections 13.1.3 and 13.1.4.
    """
    since = fields.parse_http_date(text)
    if since is None or last_modified is None:
        return None
    return math.floor(last_modified) <= since


def _matches(value: str, etag: str | None, strong: bool) -> bool:
    """Whether a list of tags, or ``*``, matches the representation's tag.

    Source: RFC 9110, sections 8.8.3.2, 13.1.1 and 13.1.2.
    """
    if value.strip(fields.OWS) == "*":
        return True
    own = _TAG.fullmatch(etag.strip(fields.OWS)) if etag is not None else None
    if own is None or (strong and own[1]):
        return False
    return any(tag == own[2] and not (strong and weak) for weak, tag in _tags(value))


def _tags(value: str) -> Iterator[tuple[bool, str]]:
    """Each well-formed tag of a list: whether it is weak, and the quoted rest."""
    for member in _MEMBER.finditer(value):
        if member[2]:
            yield member[1] is not None, member[2]
