"""Directives of requests, and what the tests of freshness leave open about parsing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import directives

LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=80)


def requested(**environ):
    return dict(directives.request_directives(environ))


def test_the_directives_of_a_request_come_from_cache_control():
    """RFC 9111, section 5.2.1."""
    assert requested(HTTP_CACHE_CONTROL="Max-Stale, min-fresh=5") == {
        "max-stale": None,
        "min-fresh": "5",
    }
    assert requested() == {}


def test_pragma_counts_only_where_cache_control_says_nothing():
    """RFC 9111, section 5.4."""
    assert requested(HTTP_PRAGMA="x, No-Cache") == {"no-cache": None}
    assert requested(HTTP_PRAGMA="x") == {}
    assert requested(HTTP_PRAGMA="no-cache", HTTP_CACHE_CONTROL="max-age=9") == {"max-age": "9"}
    assert requested(HTTP_PRAGMA="no-cache", HTTP_CACHE_CONTROL="") == {"no-cache": None}


@pytest.mark.parametrize("value", ["max-stale, max-stale=5", "max-stale=5, max-stale"])
def test_a_limit_to_staleness_is_stricter_than_none(value):
    """RFC 9111, section 5.2.1.2."""
    assert requested(HTTP_CACHE_CONTROL=value) == {"max-stale": "5"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("a=5", 5), ("a", 0), ("b=5", 0), ("a=-5", 0), ("a=1.5", 0), ("a=x", 0)]
)
def test_seconds_that_are_missing_or_malformed_are_none(text, seconds):
    """RFC 9111, section 4.2.1."""
    assert directives.seconds(directives.parse_directives([text]), "a") == seconds


@given(st.lists(LATIN_1, max_size=3))
def test_no_latin_1_text_breaks_the_parser(values):
    """RFC 9111, section 5.2."""
    for name, argument in directives.parse_directives(values).items():
        assert name == name.strip(" \t")
        assert argument is None or isinstance(argument, str)
