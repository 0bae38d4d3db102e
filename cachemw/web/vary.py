"""Vary: which request fields chose a stored response, and whether another request agrees.

RFC 9111, section 4.1, is the authority. Values are made alike only where the
syntax of their field says that they mean the same.

Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from cachemw.web import fields

#: Lower-case names and normal values; ``None``: the request has no such field.
Selecting = tuple[tuple[str, str | None], ...]

#: Fields whose elements may come in any order. Accept-Language is not among
#: them: RFC 9110, section 12.5.4, knows recipients that prefer the first.
_ANY_ORDER = frozenset(("accept", "accept-charset", "accept-encoding"))

#: Fields whose elements may be in any case.
_ANY_CASE = frozenset(("accept-charset", "accept-encoding", "accept-language"))

#: Fields in which a comma separates nothing.
_NO_LISTS = frozenset(
    (
        "authorization",
        "cookie",
        "date",
        "host",
        "if-modified-since",
        "if-unmodified-since",
        "origin",
        "referer",
        "user-agent",
    )
)


def nominated(headers: fields.Headers) -> tuple[str, ...] | None:
    """The request fields that Vary names.

    :param headers: of the response.
    :return: in lower case and in order, each once; ``None`` for a ``*``
        anywhere, which no request ever agrees with.

    Source: RFC 9111, section 4.1; RFC 9110, section 12.5.5.
    """
    names = {
        name.lower()
        for value in fields.get_all(headers, "Vary")
        for name in fields.split_list(value)
    }
    return None if "*" in names else tuple(sorted(names))


# One request's value is compared with that of each variant, and more than once.
@functools.lru_cache(maxsize=64)
def normalise(name: str, value: str) -> str:
    """The value as any other that means the same would give it.

    :param name: of the field, in lower case.
    :param value: of all its lines, joined by commas, as WSGI has it.

    Source: RFC 9111, section 4.1; RFC 9110, sections 5.6.1, 12.4.2 and 12.5.
    """
    if name in _NO_LISTS:
        return value.strip(fields.OWS)
    elements = fields.split_list(value)
    if name in _ANY_CASE:
        elements = [element.lower() for element in elements]
    if name in _ANY_ORDER or name in _ANY_CASE:
        elements = [_without_space(element) for element in elements]
    if name in _ANY_ORDER:
        elements.sort()
    return ", ".join(elements)


def selecting(environ: Mapping[str, Any], names: Iterable[str]) -> Selecting:
    """The fields of a request that chose its response.

    :param environ: the request, as WSGI has it.
    :param names: as ``nominated`` gives them.

    Source: RFC 9111, section 4.1.
    """
    return tuple((name, _normal(environ, name)) for name in names)


def selected(stored: Iterable[tuple[str, str | None]], environ: Mapping[str, Any]) -> bool:
    """Whether a request chooses the response that another one brought.

    :param stored: as ``selecting`` gave it for the other, or with the values as they came.
    :param environ: the request, as WSGI has it.

    Source: RFC 9111, section 4.1.
    """
    for name, value in stored:
        now = environ.get(fields.environ_key(name))
        if now == value:
            continue
        if now is None or value is None or normalise(name, now) != normalise(name, value):
            return False
    return True


def _normal(environ: Mapping[str, Any], name: str) -> str | None:
    value = environ.get(fields.environ_key(name))
    return None if value is None else normalise(name, value)


def _without_space(element: str) -> str:
    """An element without white space around its semicolons (RFC 9110, section 5.6.6).

    One with a quoted parameter stays as it is: a space inside the quotes counts.
    """
    if '"' in element:
        return element
    return ";".join(part.strip(fields.OWS) for part in element.split(";"))
