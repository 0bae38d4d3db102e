"""Invalidation: what else a change makes out of date."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web.invalidation import invalidated

TARGET = "http://example.test/images/cat"


def found(*headers, target=TARGET):
    return invalidated(target, headers)


def test_location_and_content_location_are_resolved():
    """RFC 9111, section 4.4; RFC 9110, sections 8.7 and 10.2.2."""
    assert found(("Location", "dog"), ("Content-Location", "/x?y=1#z")) == [
        "http://example.test/images/dog",
        "http://example.test/x?y=1",
    ]
    assert found() == []
    assert found(("Link", "<dog>")) == []


@pytest.mark.parametrize(
    "value",
    [
        "http://other.test/images/dog",
        "//other.test/dog",
        "https://example.test/dog",
        "http://example.test:8080/dog",
        "http://example.test.other/dog",
        "http://u@other.test/dog",
        "file:///dog",
        "urn:dog",
        "http://[/dog",
        "http://example.test:x/dog",
        "http://example.test:99999/dog",
    ],
)
def test_another_origin_is_left_alone(value):
    """RFC 9111, section 4.4."""
    assert found(("Location", value)) == []


@pytest.mark.parametrize("value", ["http://EXAMPLE.test/dog", "HTTP://example.test:80/dog"])
def test_an_origin_has_no_case_and_a_default_port(value):
    """RFC 9110, section 4.2.3."""
    assert [uri.rpartition("/")[2] for uri in found(("Location", value))] == ["dog"]


def test_the_target_itself_and_repetitions_are_left_out():
    """RFC 9111, section 4.4."""
    fields = (("Location", "cat"), ("Location", "#x"), ("Location", ""), ("Location", TARGET))

    assert found(*fields) == []
    assert len(found(("Location", "dog"), ("Content-Location", " dog#a "))) == 1


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_text_breaks_it(value):
    """RFC 9111, section 4.4."""
    for uri in found(("Location", value), ("Content-Location", "http://" + value)):
        assert uri.startswith("http://example.test")
