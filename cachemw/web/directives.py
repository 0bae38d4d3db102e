"""Cache directives: read them from Cache-Control and Pragma.

RFC 9111, section 5.2, is the authority. Where a directive contradicts itself,
the reading that stores less and asks more often is taken: it costs a hit,
never a wrong answer. The work is linear in the length of the text.

Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from cachemw.web import fields

#: Directives by lower-case name, with the unquoted argument; ``None``: it has none.
Directives = Mapping[str, str | None]

#: Delta-seconds stop here (RFC 9111, section 1.2.2).
MAX_DELTA = 2**31

#: Directives with delta-seconds. The larger of two is the stricter for
#: min-fresh, the smaller for all others.
DELTAS = frozenset(
    ("max-age", "max-stale", "min-fresh", "s-maxage", "stale-if-error", "stale-while-revalidate")
)

_UNQUALIFIED = frozenset(("no-cache", "private"))

_NONE: Directives = MappingProxyType({})
_PRAGMA: Directives = MappingProxyType({"no-cache": None})

_DIGITS = re.compile(r"[0-9]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_directives(values: Iterable[str]) -> Directives:
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
            elif name in DELTAS:
                directives[name] = _stricter(name, directives[name], argument)
    return directives


def request_directives(environ: Mapping[str, Any]) -> Directives:
    """The directives of a request; ``Pragma: no-cache`` is one if there are no others.

    :param environ: the request, as WSGI has it.

    Source: RFC 9111, sections 5.2.1 and 5.4.
    """
    control = environ.get("HTTP_CACHE_CONTROL")
    if control:
        return parse_directives([control])
    pragma = environ.get("HTTP_PRAGMA")
    if pragma and "no-cache" in parse_directives([pragma]):
        return _PRAGMA
    return _NONE


def delta_seconds(text: str | None) -> int | None:
    """A number of seconds, at most ``MAX_DELTA``.

    :return: ``None`` if the text is not one, or missing.

    Source: RFC 9111, section 1.2.2.
    """
    if text is None or not _DIGITS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA


def seconds(directives: Directives, name: str) -> int:
    """The delta-seconds of one directive; 0 if it is missing or malformed.

    Source: RFC 9111, sections 1.2.2 and 4.2.1.
    """
    return delta_seconds(directives.get(name)) or 0


def _unquoted(text: str) -> str:
    """An argument without its quotes (RFC 9110, section 5.6.4)."""
    quoted = _QUOTED.fullmatch(text)
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else text


def _stricter(name: str, one: str | None, other: str | None) -> str | None:
    """The more restrictive of two arguments of one directive.

    For max-stale no argument means any, so that a number is the stricter.
    """
    if name == "max-stale" and None in (one, other):
        return other if one is None else one
    choose = max if name == "min-fresh" else min
    return choose(one, other, key=lambda text: delta_seconds(text) or 0)
