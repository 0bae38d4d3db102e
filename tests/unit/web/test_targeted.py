"""Targeted fields, and the Dictionaries that they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web.targeted import parse_dictionary, response_directives

LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=80)
ALMOST = st.text("abz*=,;()?01-.9\"\\:@% \t'A", max_size=60)


def read(*headers):
    found, targeted = response_directives(headers)
    return dict(found), targeted


def test_cache_control_counts_where_nothing_is_targeted():
    """RFC 9213, section 2.2."""
    assert read(("Cache-Control", "Max-Age=60")) == ({"max-age": "60"}, False)
    assert read() == ({}, False)


def test_a_targeted_field_takes_the_place_of_cache_control():
    """RFC 9213, section 2.2."""
    assert read(("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")) == (
        {"max-age": "60"},
        True,
    )


def test_the_most_particular_target_counts():
    """RFC 9213, section 2.2."""
    fields = (("cdn-cache-control", "max-age=60"), ("cachemw-cache-control", "max-age=5"))

    assert read(*fields) == ({"max-age": "5"}, True)


@pytest.mark.parametrize("value", ["", " ", "max-age=60,", "Max-Age=60", "max-age=60, &", "a==1"])
def test_a_target_that_is_empty_or_malformed_is_as_if_it_were_not_there(value):
    """RFC 9213, section 2.1."""
    control = ("Cache-Control", "max-age=9")

    assert read(("CDN-Cache-Control", value), control) == ({"max-age": "9"}, False)
    assert read(("Cachemw-Cache-Control", value), ("CDN-Cache-Control", "max-age=1"), control) == (
        {"max-age": "1"},
        True,
    )


def test_the_lines_of_a_target_are_one_dictionary():
    """RFC 9651, section 4.2."""
    assert read(("CDN-Cache-Control", "public"), ("CDN-Cache-Control", "max-age=1")) == (
        {"public": None, "max-age": "1"},
        True,
    )


@pytest.mark.parametrize("value", ['"60"', "60.0", "a", "?1", "(60)", ":YQ==:", "@60"])
def test_a_lifetime_that_is_no_integer_is_malformed(value):
    """RFC 9213, section 2.1: it is neither 60 nor left to a guess."""
    assert read(("CDN-Cache-Control", f"max-age={value}")) == ({"max-age": ""}, True)


@pytest.mark.parametrize("name", ["public", "immutable", "must-understand"])
def test_only_true_allows(name):
    """RFC 9213, section 2.1."""
    assert read(("CDN-Cache-Control", name)) == ({name: None}, True)
    assert read(("CDN-Cache-Control", f"{name}=?1")) == ({name: None}, True)
    for value in ("?0", "1", '"a"', "(a)", "a"):
        assert read(("CDN-Cache-Control", f"{name}={value}")) == ({}, True)


@pytest.mark.parametrize("name", ["no-store", "private", "no-cache", "must-revalidate"])
def test_all_but_false_forbids(name):
    """RFC 9213, section 2.1: no-cache and private may have field names."""
    assert read(("CDN-Cache-Control", f"{name}=?0")) == ({}, True)
    for value in ("?1", "1", '"X-Name"', "(a)", "a"):
        assert read(("CDN-Cache-Control", f"{name}={value}")) == ({name: None}, True)


def test_parameters_mean_nothing():
    """RFC 9213, section 2.1."""
    assert read(("CDN-Cache-Control", 'max-age=60;max-age=5; b="x";c, public;d=(')) == ({}, False)
    assert read(("CDN-Cache-Control", 'max-age=60;max-age=5; b="x,y";c, public;d')) == (
        {"max-age": "60", "public": None},
        True,
    )


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", {}),
        ("a", {"a": True}),
        ("  a=1 \t,\t b=-2  ", {"a": 1, "b": -2}),
        ("a=1, b, a=2", {"b": True, "a": 2}),
        ("*a_-.*9", {"*a_-.*9": True}),
        ("a=?0,b=?1", {"a": False, "b": True}),
        (r'a="x\"y\\z, b=1"', {"a": r'x"y\z, b=1'}),
        ("a=999999999999999, b=-000000000000001", {"a": 999999999999999, "b": -1}),
        ("a=999999999999.999", {"a": None}),
        ("a=x/y:z", {"a": None}),
        ("a=::, b=:YQ:, c=:YWI=:", {"a": None, "b": None, "c": None}),
        ('a=%"f%c3%bc %20"', {"a": None}),
        ('a="%", b="%%"', {"a": "%", "b": "%%"}),
        ('a=(), b=( 1  x;y  "z" );q=1, c=(1)', {"a": None, "b": None, "c": None}),
        ("a;  b;c=1", {"a": True}),
    ],
)
def test_a_dictionary_is_read(text, members):
    """RFC 9651, sections 4.2.2 to 4.2.10."""
    found = parse_dictionary(text)

    assert found == members
    assert list(found) == list(members)


@pytest.mark.parametrize(
    "text",
    [
        "A=1",
        "1=1",
        "a=",
        "a=,b",
        "a =1",
        "a= 1",
        "a,,b",
        ",a",
        "a,",
        "a, ",
        "a b",
        "a=1b",
        "a=-",
        "a=+1",
        "a=1000000000000000",
        "a=1.",
        "a=1.2345",
        "a=1.2.3",
        "a=1234567890123.1",
        "a=?2",
        "a=?",
        'a="x',
        r'a="\x"',
        'a="\t"',
        "a=:a:",
        "a=:YQ===:",
        "a=:Y Q:",
        "a=(1",
        "a=(1,2)",
        "a=(1\t2)",
        "a=(1)(2)",
        'a=("x""y")',
        "a=@1.5",
        'a=%"%c3"',
        'a=%"%C3%BC"',
        'a="x";b=%"%ff"',
        "a;B",
        "a ;b",
        "a;\tb",
        "a;",
        "a=1\n",
        "a=\u00fc",
        'a="\u00fc"',
        "\u00b2",
    ],
)
def test_what_breaks_the_grammar_anywhere_is_no_dictionary(text):
    """RFC 9651, section 4.2."""
    assert parse_dictionary(text) is None
    assert parse_dictionary(f"b=1, {text}, c=1") is None


@pytest.mark.parametrize("text", ["\ta", "a\t"])
def test_a_dictionary_has_only_spaces_around_it(text):
    """RFC 9651, section 4.2: tabs belong around commas alone."""
    assert parse_dictionary(text) is None


@given(LATIN_1 | ALMOST)
def test_no_latin_1_text_breaks_the_dictionary_parser(text):
    """RFC 9651, section 4.2."""
    members = parse_dictionary(text)

    assert members is None or all(isinstance(key, str) for key in members)


KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
VALUES = st.booleans() | st.integers(-(10**15) + 1, 10**15 - 1)
STRINGS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def written(value):
    if isinstance(value, bool):
        return f"?{int(value)}"
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.dictionaries(KEYS, VALUES | STRINGS, max_size=5))
def test_a_dictionary_is_read_back(members):
    """RFC 9651, section 4.1.2."""
    text = ", ".join(f"{key}={written(value)}" for key, value in members.items())

    assert parse_dictionary(text) == members


def test_hostile_dictionaries_are_read_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    size = 2**22
    for text in (
        "a=(" + "1 " * (size // 2),
        "a=(" + " " * size,
        'a="' + "\\\\" * (size // 2),
        "a" + ";a" * (size // 2) + ";",
        "a," * (size // 2),
        "a" + " " * size + "b",
        "a=:" + "A" * size,
        'a=%"' + "%aa" * (size // 3),
        "a=" + "1" * size,
        'a="%"' + ';b="%"' * (size // 6),
        "a=(" + '"x" ' * (size // 4),
    ):
        parse_dictionary(text)
