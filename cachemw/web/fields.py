"""Header fields: find them, split lists, read and write dates, drop the hop-by-hop ones.

RFC 9110 is the authority; each function names its section. Nothing here
depends on the locale or the local time zone, and the work is linear in the
length of the value, so that no client can make it expensive.

Pure: any thread may call anything.

Imports: nothing of ours.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence

#: Fields in the order they were sent, as WSGI hands them over (Latin-1 text).
Headers = Sequence[tuple[str, str]]

#: Optional white space, RFC 9110, section 5.6.3. ``str.strip()`` takes more.
OWS = " \t"

#: Fields for the next hop only, beside those that Connection names
#: (RFC 9110, section 7.6.1; the Proxy-* ones by RFC 9111, section 3.1).
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)

_ELEMENT = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.?)*+"?)++', re.DOTALL)
_BALANCED = re.compile(r'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()

_DAY = f"(?P<weekday>{'|'.join(_DAYS)})"
_LONG_DAY = f"(?P<weekday>{'|'.join(_LONG_DAYS)})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
# RFC 9111, section 4.2, wants a cache to take dates in any case.
_DATE_FORMATS = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        f"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


def get(headers: Headers, name: str) -> str | None:
    """The value of the first field line of that name.

    :param name: in any case.
    :return: the value as it was sent; ``None`` if there is no such field.

    Source: RFC 9110, section 5.1.
    """
    name = name.lower()
    for field, value in headers:
        if field.lower() == name:
            return value
    return None


def get_all(headers: Headers, name: str) -> list[str]:
    """The values of every field line of that name, in the order sent.

    :param name: in any case.

    Source: RFC 9110, sections 5.1 and 5.3.
    """
    name = name.lower()
    return [value for field, value in headers if field.lower() == name]


def environ_key(name: str) -> str:
    """The environ key of a request field.

    :param name: in any case.

    Source: PEP 3333, "environ Variables".
    """
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def split_list(value: str) -> list[str]:
    """The elements of a comma-separated list.

    A comma inside a quoted string does not separate; the quotes stay. A quote
    that nothing closes is an ordinary character: otherwise it would hide every
    element behind it, ``no-store`` among them.

    :return: the elements without surrounding white space, empty ones dropped.

    Source: RFC 9110, sections 5.6.1 and 5.6.4.
    """
    if '"' not in value:
        elements = value.split(",")
    else:
        elements = _ELEMENT.findall(value)
        if not _BALANCED.fullmatch(elements[-1]):
            elements[-1:] = elements[-1].split(",")
    return [stripped for element in elements if (stripped := element.strip(OWS))]


def parse_http_date(text: str, now: float | None = None) -> float | None:
    """The time a date field names, in any of the three formats.

    A day name that is not that date's own counts as malformed: one of the two
    is wrong, and nothing tells which.

    :param now: seconds since the epoch, which the two-digit year of the second
        format is relative to; by default the present.
    :return: seconds since the epoch; ``None`` for anything malformed.

    Source: RFC 9110, section 5.6.7.
    """
    text = text.strip(OWS)
    for pattern in _DATE_FORMATS:
        if found := pattern.fullmatch(text):
            return _seconds(found, time.time() if now is None else now)
    return None


def format_http_date(seconds: float) -> str:
    """The date as a field value; fractions of a second are dropped.

    :param seconds: since the epoch, within the years 1 to 9999.
    :raises ValueError, OverflowError: there is no such date.

    Source: RFC 9110, section 5.6.7 (IMF-fixdate).
    """
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04}"
        f" {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    )


def end_to_end(headers: Headers) -> list[tuple[str, str]]:
    """The fields that may be stored and sent on, in the order given.

    Source: RFC 9110, section 7.6.1, and RFC 9111, section 3.1.
    """
    dropped = HOP_BY_HOP.union(
        option.lower() for value in get_all(headers, "Connection") for option in split_list(value)
    )
    return [(field, value) for field, value in headers if field.lower() not in dropped]


def _seconds(found: re.Match[str], now: float) -> float | None:
    """The time that a matched date means; ``None`` if no calendar has that day."""
    month = _MONTH_NUMBER[found["month"].lower()]
    day, hour, minute, second = (int(found[part]) for part in ("day", "hour", "minute", "second"))
    year = int(found["year"])
    if len(found["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second), now)
    try:
        date = datetime.date(year, month, day)
    except ValueError:
        return None
    if _DAYS[date.weekday()].lower() != found["weekday"][:3].lower():
        return None
    days = date.toordinal() - _EPOCH_DAY
    return float(days * 86400 + hour * 3600 + minute * 60 + second)


def _full_year(two_digits: int, rest: tuple[int, ...], now: float) -> int:
    """The latest year with these last digits that is at most 50 years ahead.

    :param rest: month, day, hour, minute, second of the date.

    Source: RFC 9110, section 5.6.7.
    """
    present = time.gmtime(now)
    latest = present.tm_year + 50
    year = latest - (latest - two_digits) % 100
    if year == latest and rest > tuple(present[1:6]):
        year -= 100
    return year
