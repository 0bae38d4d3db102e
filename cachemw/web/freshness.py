"""Freshness: what may be stored, how long it stays fresh, and who may have it unasked.

RFC 9111 is the authority, for a shared cache that never serves a stale
response. Where a field is malformed or contradicts itself, the reading that
stores less and asks more often is taken: it costs a hit, never a wrong answer.

Times are seconds since the epoch, UTC. Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cachemw.web import fields

#: Delta-seconds stop here (RFC 9111, section 1.2.2).
MAX_DELTA = 2**31

#: A response of no stated lifetime stays fresh for this part of the time since
#: it last changed, and no longer than the maximum (seconds).
HEURISTIC_PART = 0.1
HEURISTIC_MAX = 86400.0

#: Directives that let a shared cache keep the answer to a request with
#: credentials (RFC 9111, section 3.5).
SHAREABLE = frozenset(("must-revalidate", "public", "s-maxage"))

#: Directives with delta-seconds. The larger of two is the stricter for
#: min-fresh, the smaller for all others.
_DELTAS = frozenset(
    ("max-age", "max-stale", "min-fresh", "s-maxage", "stale-if-error", "stale-while-revalidate")
)
_UNQUALIFIED = frozenset(("no-cache", "private"))

_DIGITS = re.compile(r"[0-9]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_directives(values: Iterable[str]) -> Mapping[str, str | None]:
    """The directives of all Cache-Control field lines together.

    Of several delta-seconds for one directive the most restrictive counts, one
    that is malformed counting as 0: section 4.2.1 lets a cache choose between
    the first and none at all, and the smallest is never fresher than the first.
    Of other duplicates the first counts. ``private`` and ``no-cache`` lose the
    field names they may have, so that they hold for the whole response.

    :param values: one for each field line.
    :return: arguments, unquoted, by lower-case name; ``None`` for no argument.

    Source: RFC 9111, sections 4.2.1, 5.2, 5.2.2.4 and 5.2.2.7.
    """
    directives: dict[str, str | None] = {}
    for value in values:
        for element in fields.split_list(value):
            name, equals, text = element.partition("=")
            name = name.rstrip(fields.OWS).lower()
            argument = _unquoted(text.strip(fields.OWS)) if equals else None
            if name in _UNQUALIFIED:
                argument = None
            if name not in directives:
                directives[name] = argument
            elif name in _DELTAS:
                directives[name] = _stricter(name, directives[name], argument)
    return directives


def delta_seconds(text: str | None) -> int | None:
    """A number of seconds, at most ``MAX_DELTA``.

    :return: ``None`` if the text is not one, or missing.

    Source: RFC 9111, section 1.2.2.
    """
    if text is None or not _DIGITS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA


def lifetime(headers: fields.Headers, response_time: float) -> float:
    """How long a response stays fresh after it was made, in seconds.

    A malformed lifetime is 0. So is that of a response that says ``no-cache``,
    which may be stored but not served unasked.

    :param headers: of the response.
    :param response_time: when the response arrived.

    Source: RFC 9111, sections 4.2.1, 4.2.2, 5.2.2.4 and 5.3.
    """
    directives = parse_directives(fields.get_all(headers, "Cache-Control"))
    if "no-cache" in directives:
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return float(delta_seconds(directives[name]) or 0)
    date = _date(headers, response_time)
    expires = fields.get_all(headers, "Expires")
    if expires:
        return min(_seconds_after(date, text, response_time) for text in expires)
    return _heuristic(headers, date, response_time)


def initial_age(headers: fields.Headers, request_time: float, response_time: float) -> float:
    """The age of a response at the moment it arrived, in seconds.

    :param headers: of the response.
    :param request_time: when the request for it was sent.
    :param response_time: when the response arrived.

    Source: RFC 9111, sections 4.2.3 (corrected_initial_age) and 5.1.
    """
    apparent_age = response_time - _date(headers, response_time)
    members = fields.split_list(fields.get(headers, "Age") or "")
    age = delta_seconds(members[0]) or 0 if members else 0
    response_delay = max(0.0, response_time - request_time)
    return max(apparent_age, age + response_delay)


def current_age(initial: float, response_time: float, now: float) -> float:
    """The age of a stored response, in seconds; a clock set back does not lower it.

    :param initial: as ``initial_age`` gives it.
    :param response_time: when the response arrived.

    Source: RFC 9111, section 4.2.3.
    """
    return initial + max(0.0, now - response_time)


def request_allows(environ: Mapping[str, Any], age: float, lifetime: float) -> bool:
    """Whether a stored response may answer a request without asking the app.

    ``max-stale`` is not granted: nothing stale is served.

    :param environ: the request, as WSGI has it.
    :param age: of the stored response, in seconds.
    :param lifetime: of the stored response, in seconds.

    Source: RFC 9111, sections 4.2, 5.2.1 and 5.4.
    """
    control = environ.get("HTTP_CACHE_CONTROL")
    if control is None:
        pragma = environ.get("HTTP_PRAGMA")
        return age < lifetime and (pragma is None or "no-cache" not in parse_directives([pragma]))
    directives = parse_directives([control])
    if age >= lifetime or "no-cache" in directives:
        return False
    if "max-age" in directives:
        # Just stored is not fresh enough for 0, which asks for a new answer.
        limit = delta_seconds(directives["max-age"]) or 0
        if limit == 0 or age > limit:
            return False
    if "min-fresh" in directives:
        margin = delta_seconds(directives["min-fresh"])
        return margin is not None and lifetime - age >= margin
    return True


def refuses_storage(
    request: Mapping[str, Any],
    status: int,
    headers: fields.Headers,
    has_credentials: bool,
    credential_fields: Collection[str] = (),
) -> str | None:
    """Why a response must not be stored.

    :param request: the request, as WSGI has it.
    :param status: of the response.
    :param headers: of the response.
    :param has_credentials: whether the request has credentials that nobody
        will check again before a hit.
    :param credential_fields: lower-case names of the request fields that
        count as credentials: a response that varies by one is one person's.
    :return: a word for the detail of Cache-Status; ``None`` if it may be stored.

    Source: RFC 9111, sections 3, 3.5 and 4.1.
    """
    if request["REQUEST_METHOD"] != "GET":
        return "method"
    if status != 200:
        return "status"
    directives = parse_directives(fields.get_all(headers, "Cache-Control"))
    if "no-store" in directives or "no-store" in parse_directives(
        [request.get("HTTP_CACHE_CONTROL", "")]
    ):
        return "no-store"
    if "private" in directives:
        return "private"
    if fields.get(headers, "Set-Cookie") is not None:
        return "set-cookie"
    if _varies_by_person(headers, credential_fields):
        return "vary"
    if has_credentials and SHAREABLE.isdisjoint(directives):
        return "credentials"
    return None


def _varies_by_person(headers: fields.Headers, credential_fields: Collection[str]) -> bool:
    """Whether Vary has a ``*`` or names a credential field (RFC 9110, section 12.5.5)."""
    return any(
        name == "*" or name.lower() in credential_fields
        for value in fields.get_all(headers, "Vary")
        for name in fields.split_list(value)
    )


def _unquoted(text: str) -> str:
    """An argument without its quotes (RFC 9110, section 5.6.4)."""
    quoted = _QUOTED.fullmatch(text)
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else text


def _stricter(name: str, one: str | None, other: str | None) -> str | None:
    """The more restrictive of two arguments of one directive."""
    choose = max if name == "min-fresh" else min
    return choose(one, other, key=lambda text: delta_seconds(text) or 0)


def _date(headers: fields.Headers, response_time: float) -> float:
    """When the response was made (RFC 9110, section 6.6.1)."""
    date = fields.parse_http_date(fields.get(headers, "Date") or "", response_time)
    return response_time if date is None else date


def _seconds_after(date: float, text: str, response_time: float) -> float:
    """How long after ``date`` an Expires lies; 0 if it is malformed or earlier."""
    expires = fields.parse_http_date(text, response_time)
    return 0.0 if expires is None else max(0.0, expires - date)


def _heuristic(headers: fields.Headers, date: float, response_time: float) -> float:
    """The lifetime of a response that does not say one (RFC 9111, section 4.2.2)."""
    changed = fields.parse_http_date(fields.get(headers, "Last-Modified") or "", response_time)
    if changed is None:
        return 0.0
    return min(max(0.0, date - changed) * HEURISTIC_PART, HEURISTIC_MAX)
