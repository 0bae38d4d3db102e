"""Header field helpers: lookup, lists, dates, hop-by-hop fields."""

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import fields

#: Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
EXAMPLE = 784111777.0
#: 2026-11-20 12:00:00 UTC.
NOW = 1795176000.0

HEADERS = [("Vary", "Accept"), ("ETag", '"a"'), ("vary", "Accept-Encoding")]


def test_a_field_is_found_whatever_the_case_of_its_name():
    """RFC 9110, section 5.1."""
    assert fields.get(HEADERS, "etag") == '"a"'
    assert fields.get(HEADERS, "VARY") == "Accept"


def test_a_field_that_is_not_there_is_none():
    """RFC 9110, section 5.1."""
    assert fields.get(HEADERS, "Age") is None
    assert fields.get_all(HEADERS, "Age") == []


def test_all_lines_of_a_field_are_found_in_order():
    """RFC 9110, section 5.3."""
    assert fields.get_all(HEADERS, "Vary") == ["Accept", "Accept-Encoding"]


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("", []),
        (" \t", []),
        (", ,\t,", []),
        ("foo ,bar,", ["foo", "bar"]),
        ("foo , ,bar,charlie", ["foo", "bar", "charlie"]),
        ("a b , c", ["a b", "c"]),
    ],
)
def test_empty_elements_and_white_space_are_dropped(value, elements):
    """RFC 9110, section 5.6.1.2."""
    assert fields.split_list(value) == elements


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ('"a,b",c', ['"a,b"', "c"]),
        ('x="a,b" , y', ['x="a,b"', "y"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        (r'"a\\",b', [r'"a\\"', "b"]),
    ],
)
def test_a_comma_in_a_quoted_string_does_not_separate(value, elements):
    """RFC 9110, section 5.6.4."""
    assert fields.split_list(value) == elements


@pytest.mark.parametrize("opening", ['x="a', '"', r'"a\"', '"a,b" "', '"\\'])
def test_a_quote_that_is_not_closed_hides_nothing(opening):
    """RFC 9110, section 5.6.4: it is no quoted string."""
    assert fields.split_list(f"{opening}, no-store")[-1] == "no-store"


@given(st.text(alphabet='", \t\\ab', max_size=40))
def test_a_list_loses_nothing_but_commas_and_white_space(value):
    """RFC 9110, section 5.6.1."""
    elements = fields.split_list(value)

    def bare(text):
        return text.translate(str.maketrans("", "", ", \t"))

    assert all(elements)
    assert all(element == element.strip(" \t") for element in elements)
    assert bare("".join(elements)) == bare(value)


def test_a_hostile_list_is_split_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    for value in ('"' * 2**22, '"\\' * 2**21, '"a,' * 2**20, "," * 2**22, '"' + "\\" * 2**22):
        fields.split_list(value)


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "\tSun, 06 Nov 1994 08:49:37 GMT ",
    ],
)
def test_each_of_the_three_date_formats_is_read(text):
    """RFC 9110, section 5.6.7."""
    assert fields.parse_http_date(text, NOW) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "sun, 06 NOV 1994 08:49:37 gmt",
        "SUNDAY, 06-nov-94 08:49:37 GMT",
        "sUN nOV  6 08:49:37 1994",
    ],
)
def test_a_date_is_read_in_any_case(text):
    """RFC 9111, section 4.2: a cache should."""
    assert fields.parse_http_date(text, NOW) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  6 Nov 1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 November 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Mon, 31 Nov 1994 08:49:37 GMT",
        "Sat, 00 Jan 2000 00:00:00 GMT",
        "Sat, 01 Jan 0000 00:00:00 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 06 08:49:37 1994 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=4",
    ],
)
def test_a_malformed_date_is_none(text):
    """RFC 9110, section 5.6.7."""
    assert fields.parse_http_date(text, NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Monday, 06-Nov-94 08:49:37 GMT",
        "Mon Nov  6 08:49:37 1994",
    ],
)
def test_a_date_on_another_day_of_the_week_is_malformed(text):
    """RFC 5322, section 3.3."""
    assert fields.parse_http_date(text, NOW) is None


def test_a_leap_second_is_read():
    """RFC 9110, section 5.6.7."""
    last = fields.parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT")

    assert last == fields.parse_http_date("Sun, 01 Jan 2017 00:00:00 GMT")


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Friday, 20-Nov-76 12:00:00 GMT", 2076),
        ("Saturday, 20-Nov-76 12:00:01 GMT", 1976),
        ("Sunday, 20-Nov-77 12:00:00 GMT", 1977),
        ("Friday, 20-Nov-26 12:00:00 GMT", 2026),
        ("Saturday, 20-Nov-27 12:00:00 GMT", 2027),
    ],
)
def test_a_two_digit_year_is_at_most_fifty_years_ahead(text, year):
    """RFC 9110, section 5.6.7."""
    seconds = fields.parse_http_date(text, NOW)

    assert seconds is not None
    assert datetime.datetime.fromtimestamp(seconds, datetime.UTC).year == year


def test_a_two_digit_year_can_lie_in_the_next_century():
    """RFC 9110, section 5.6.7: thirty years ahead, not seventy back."""
    now = fields.parse_http_date("Wed, 20 Nov 2080 12:00:00 GMT")

    assert fields.parse_http_date("Thursday, 20-Nov-10 12:00:00 GMT", now) == (
        fields.parse_http_date("Thu, 20 Nov 2110 12:00:00 GMT")
    )


def test_a_date_is_written_as_the_specification_has_it():
    """RFC 9110, section 5.6.7."""
    assert fields.format_http_date(EXAMPLE) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields.format_http_date(EXAMPLE + 0.999) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert fields.format_http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_dates_depend_on_neither_locale_nor_time_zone(monkeypatch):
    """RFC 9110, section 5.6.7; RFC 9111, section 4.2."""

    def refuse(*arguments):
        raise AssertionError("depends on the locale or the time zone")

    for name in ("strftime", "strptime", "localtime", "mktime"):
        monkeypatch.setattr(time, name, refuse)

    assert fields.parse_http_date(fields.format_http_date(EXAMPLE)) == EXAMPLE


@given(st.integers(-62135596800, 253402300799))
def test_a_date_that_we_write_is_the_date_that_we_read(seconds):
    """RFC 9110, section 5.6.7."""
    text = fields.format_http_date(seconds)

    assert len(text) == 29
    assert fields.parse_http_date(text) == seconds


@given(st.integers(0, 4102444800))
def test_an_asctime_date_is_read_back(seconds):
    """RFC 9110, section 5.6.7."""
    assert fields.parse_http_date(time.asctime(time.gmtime(seconds))) == seconds


@given(st.integers(-45 * 31536000, 45 * 31536000))
def test_a_two_digit_year_within_reach_is_read_back(offset):
    """RFC 9110, section 5.6.7."""
    at = datetime.datetime.fromtimestamp(NOW + offset, datetime.UTC)

    assert fields.parse_http_date(at.strftime("%A, %d-%b-%y %H:%M:%S GMT"), NOW) == NOW + offset


@given(st.text(max_size=40))
def test_no_text_breaks_the_date_parser(text):
    """RFC 9110, section 5.6.7."""
    assert fields.parse_http_date(text, NOW) is None


HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_a_hop_by_hop_field_is_dropped_in_any_case(name):
    """RFC 9110, section 7.6.1; RFC 9111, section 3.1."""
    headers = [("ETag", '"a"'), (name, "x"), (name.upper(), "x"), (name.lower(), "x")]

    assert fields.end_to_end(headers) == [("ETag", '"a"')]


def test_a_field_that_connection_names_is_dropped():
    """RFC 9110, section 7.6.1."""
    headers = [
        ("X-Hop", "1"),
        ("connection", "close, x-hop"),
        ("X-Stays", "2"),
        ("Connection", ",X-OTHER"),
        ("x-other", "3"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
    ]

    assert fields.end_to_end(headers) == [
        ("X-Stays", "2"),
        ("Set-Cookie", "a"),
        ("Set-Cookie", "b"),
    ]
