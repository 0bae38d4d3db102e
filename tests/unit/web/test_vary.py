"""Vary: names, normal values, and which request chooses what is stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import vary

LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=60)
NAMES = st.sampled_from(
    ("accept", "accept-charset", "accept-encoding", "accept-language", "cookie", "x-name")
)


def test_the_names_of_all_lines_count_once_and_in_any_case():
    """RFC 9110, sections 5.3 and 12.5.5."""
    headers = [("Vary", "Origin, ACCEPT,,"), ("vary", "accept , x-name")]

    assert vary.nominated(headers) == ("accept", "origin", "x-name")
    assert vary.nominated([]) == ()


@pytest.mark.parametrize("value", ["*", "Accept, *", "*,Accept", " , * "])
def test_a_star_anywhere_agrees_with_nothing(value):
    """RFC 9111, section 4.1."""
    assert vary.nominated([("Vary", "Accept"), ("Vary", value)]) is None


@pytest.mark.parametrize(
    ("name", "value", "normal"),
    [
        ("accept-encoding", "gzip,BR ;q=0.5,, deflate ", "br;q=0.5, deflate, gzip"),
        ("accept-charset", "UTF-8 , ascii", "ascii, utf-8"),
        ("accept", "text/html, image/X-A ; q=0.5", "image/X-A;q=0.5, text/html"),
        ("accept", 'a/b; t="x ; Y"', 'a/b; t="x ; Y"'),
        ("x-name", " 1,2 ,\t3,", "1, 2, 3"),
        ("x-name", "B, a", "B, a"),
        ("x-name", '"a,b" , c', '"a,b", c'),
        ("user-agent", " A,B  (c, d) ", "A,B  (c, d)"),
        ("accept", "", ""),
    ],
)
def test_what_means_the_same_becomes_the_same(name, value, normal):
    """RFC 9111, section 4.1."""
    assert vary.normalise(name, value) == normal


def test_languages_keep_their_order():
    """RFC 9110, section 12.5.4: some apps take the first for the best."""
    assert vary.normalise("accept-language", "EN , de;q=0.5,fr") == "en, de;q=0.5, fr"


@given(NAMES, LATIN_1)
def test_a_normal_value_stays_as_it_is(name, value):
    """RFC 9111, section 4.1."""
    normal = vary.normalise(name, value)

    assert vary.normalise(name, normal) == normal


def stored(names, **environ):
    return vary.selecting(environ, names)


def test_a_request_selects_what_a_like_request_brought():
    """RFC 9111, section 4.1."""
    one = stored(["accept-encoding", "x-name"], HTTP_ACCEPT_ENCODING="gzip,br", HTTP_X_NAME="a")

    assert one == (("accept-encoding", "br, gzip"), ("x-name", "a"))
    assert vary.selected(one, {"HTTP_ACCEPT_ENCODING": "BR, gzip", "HTTP_X_NAME": " a"})
    assert not vary.selected(one, {"HTTP_ACCEPT_ENCODING": "BR, gzip", "HTTP_X_NAME": "A"})
    assert not vary.selected(one, {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_X_NAME": "a"})


def test_a_missing_field_agrees_only_with_a_missing_field():
    """RFC 9111, section 4.1."""
    assert stored(["accept"]) == (("accept", None),)
    assert vary.selected(stored(["accept"]), {})
    assert not vary.selected(stored(["accept"]), {"HTTP_ACCEPT": ""})
    assert not vary.selected(stored(["accept"], HTTP_ACCEPT=""), {})
    assert vary.selected((), {"HTTP_ACCEPT": "a"})


def test_values_stored_as_they_came_still_select():
    """Records of earlier versions hold the request's own text."""
    assert vary.selected([("accept-encoding", "gzip,br")], {"HTTP_ACCEPT_ENCODING": "br, gzip"})


def test_the_type_of_a_request_is_found_where_wsgi_keeps_it():
    """PEP 3333."""
    assert stored(["content-type"], CONTENT_TYPE="a/b") == (("content-type", "a/b"),)


def test_hostile_values_are_read_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    for value in ("a" + " " * 2**22 + "b", " ;" * 2**21, '"' * 2**22, "a;b," * 2**20):
        vary.normalise("accept", value)
