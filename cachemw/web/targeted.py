"""Targeted cache control: fields that speak to this cache and not to browsers.

RFC 9213 is the authority, and RFC 9651 for the Dictionary that such a field
is. A field that breaks that grammar anywhere does not count at all, so that
the whole of it is read here, also the types that no directive has.

Where the members' types are wrong, the reading that stores less is taken.
The work is linear in the length of the field.

Pure: any thread may call anything.

Imports: web.directives, web.fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

from cachemw.web import fields
from cachemw.web.directives import DELTAS, Directives, parse_directives

#: The fields that speak to this cache, the most particular first
#: (RFC 9213, section 2.2).
TARGETS = ("Cachemw-Cache-Control", "CDN-Cache-Control")

#: A member's value: an Integer, a Boolean, a String, or ``None`` for any other type.
Value = int | bool | str | None

#: Directives that allow something, which a wrong type must not do.
_PERMISSIONS = frozenset(("immutable", "must-understand", "public"))

_KEY = r"[a-z*][a-z0-9_.*-]*+"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_NUMBER_ENDS = r"(?![0-9.])"
_BARE_ITEM = "|".join(
    (
        rf"-?[0-9]{{1,15}}{_NUMBER_ENDS}",
        rf"-?[0-9]{{1,12}}\.[0-9]{{1,3}}{_NUMBER_ENDS}",
        _STRING,
        r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+",
        r":(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2,3}={0,2})?+:",
        r"\?[01]",
        rf"@-?[0-9]{{1,15}}{_NUMBER_ENDS}",
        r'%"(?:[ !#$&-~]|%[0-9a-f]{2})*+"',
    )
)
_PARAMETERS = rf"(?:;[ ]*+{_KEY}(?:=(?:{_BARE_ITEM}))?+)*+"
_ITEM = rf"(?:{_BARE_ITEM}){_PARAMETERS}"
_INNER_LIST = rf"\([ ]*+(?:{_ITEM}(?:[ ]++|(?=\))))*+\){_PARAMETERS}"
_MEMBER = re.compile(
    rf"(?P<key>{_KEY})(?:=(?:(?P<item>{_BARE_ITEM}){_PARAMETERS}|(?P<list>{_INNER_LIST}))"
    rf"|{_PARAMETERS})"
)
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")
_DISPLAY_STRING = re.compile(rf'{_STRING}|%("(?:[^"])*+")')
_ESCAPED = re.compile(r'\\(["\\])')


def response_directives(
    headers: fields.Headers, targets: Sequence[str] = TARGETS
) -> tuple[Directives, bool]:
    """The directives of a response for this cache.

    The first target field that is there, well-formed and not empty takes the
    place of Cache-Control and Expires.

    :param headers: of the response.
    :param targets: names of fields, the most particular first.
    :return: the directives, and whether a target field gave them.

    Source: RFC 9213, section 2.2.
    """
    for target in targets:
        lines = fields.get_all(headers, target)
        members = parse_dictionary(", ".join(lines)) if lines else None
        if members:
            return _directives(members), True
    return parse_directives(fields.get_all(headers, "Cache-Control")), False


def parse_dictionary(text: str) -> dict[str, Value] | None:
    """The members of a Dictionary, without their parameters; of a repeated one the last.

    :param text: of all field lines, joined by commas.
    :return: ``None`` if the text breaks the grammar anywhere.

    Source: RFC 9651, sections 3.2 and 4.2.2.
    """
    text = text.strip(" ")
    members: dict[str, Value] = {}
    for found in _members(text):
        if found is None:
            return None
        # A repeated key keeps its last value and the last place.
        members.pop(found["key"], None)
        members[found["key"]] = _value(found)
    return members


def _members(text: str) -> Iterator[re.Match[str] | None]:
    """Each member, and ``None`` where the text goes wrong."""
    position = 0
    while position < len(text):
        found = _MEMBER.match(text, position)
        if found is None or not _decodes(found[0]):
            yield None
            return
        yield found
        position = found.end()
        if position == len(text):
            return
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            yield None
            return
        position = comma.end()


def _decodes(member: str) -> bool:
    """Whether each Display String in a member is UTF-8 (RFC 9651, section 4.2.10)."""
    if '%"' not in member:
        return True
    try:
        for found in _DISPLAY_STRING.finditer(member):
            if found[1]:
                unquote_to_bytes(found[1]).decode()
    except UnicodeDecodeError:
        return False
    return True


def _value(member: re.Match[str]) -> Value:
    item = member["item"]
    if item is None:
        return None if member["list"] else True
    if item[0] == '"':
        return _ESCAPED.sub(r"\1", item[1:-1])
    if item[0] == "?":
        return item == "?1"
    if item[0] in "-0123456789" and "." not in item:
        return int(item)
    return None


def _directives(members: dict[str, Value]) -> Directives:
    """What the members say, as Cache-Control would.

    A directive that would allow something is ignored if its type is wrong, as
    section 2.1 wants. One that would forbid counts unless it is false, and a
    number of the wrong type is kept as malformed: a cache that ignored them
    would store and serve what it was most likely told not to.

    Source: RFC 9213, section 2.1.
    """
    directives: dict[str, str | None] = {}
    for name, value in members.items():
        if name in DELTAS:
            directives[name] = str(value) if type(value) is int else ""
        elif value is True or (value is not False and name not in _PERMISSIONS):
            directives[name] = None
    return directives
