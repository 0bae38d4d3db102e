"""Conditional requests: precedence, tags, dates, and If-Range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import conditional
from cachemw.web.fields import format_http_date

CHANGED = 784111777.0
BEFORE = format_http_date(CHANGED - 1)
AT = format_http_date(CHANGED)
AFTER = format_http_date(CHANGED + 1)
ETAG = '"abc"'


def evaluate(method="GET", etag=ETAG, last_modified=CHANGED, **conditions):
    environ = {"HTTP_" + name.upper(): value for name, value in conditions.items()}
    return conditional.evaluate({"REQUEST_METHOD": method, **environ}, etag, last_modified)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_an_unconditional_request_goes_on(method):
    """RFC 9110, section 13.2.2."""
    assert evaluate(method) == 200


def test_an_unconditional_request_costs_four_lookups():
    """It is on the way of every hit."""
    asked = []

    class Environ(dict):
        def __contains__(self, key):
            asked.append(key)
            return super().__contains__(key)

        def __getitem__(self, key):
            raise AssertionError(key)

        get = __getitem__

    assert conditional.evaluate(Environ(), ETAG, CHANGED) == 200
    assert len(asked) == 4


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reader_that_has_the_tag_gets_304(method):
    """RFC 9110, section 13.1.2."""
    assert evaluate(method, if_none_match='"abc"') == 304
    assert evaluate(method, if_none_match='"x", "abc"') == 304
    assert evaluate(method, if_none_match='"x"') == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_a_writer_whose_if_none_match_fails_gets_412(method):
    """RFC 9110, section 13.2.2, step 3."""
    assert evaluate(method, if_none_match='"abc"') == 412
    assert evaluate(method, if_none_match="*") == 412
    assert evaluate(method, if_none_match='"x"') == 200


@pytest.mark.parametrize(
    ("etag", "value"), [('W/"abc"', '"abc"'), ('"abc"', 'W/"abc"'), ('W/"abc"', 'W/"abc"')]
)
def test_if_none_match_compares_weakly(etag, value):
    """RFC 9110, sections 13.1.2 and 8.8.3.2."""
    assert evaluate(etag=etag, if_none_match=value) == 304


@pytest.mark.parametrize(
    ("etag", "value"), [('W/"abc"', '"abc"'), ('"abc"', 'W/"abc"'), ('W/"abc"', 'W/"abc"')]
)
def test_if_match_compares_strongly(etag, value):
    """RFC 9110, sections 13.1.1 and 8.8.3.2."""
    assert evaluate(etag=etag, if_match=value) == 412


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_if_match_lets_go_on_only_who_names_the_tag(method):
    """RFC 9110, section 13.1.1."""
    assert evaluate(method, if_match='"abc"') == 200
    assert evaluate(method, if_match='"x" , "abc"') == 200
    assert evaluate(method, if_match='"x"') == 412
    assert evaluate(method, if_match="") == 412


@pytest.mark.parametrize("etag", [ETAG, None, "unquoted"])
def test_a_star_matches_whatever_exists(etag):
    """RFC 9110, sections 13.1.1 and 13.1.2."""
    assert evaluate(etag=etag, if_none_match="*") == 304
    assert evaluate(etag=etag, if_match=" * ") == 200


def test_a_star_in_quotes_or_in_a_list_is_no_star():
    """RFC 9110, sections 13.1.1 and 13.1.2."""
    assert evaluate(if_none_match='"*"') == 200
    assert evaluate(if_none_match='*, "x"') == 200
    assert evaluate(etag='"*"', if_none_match='"*"') == 304


@pytest.mark.parametrize("etag", ['"a,b"', '","', '"a\\"', '""', '"W/"', '"\xe9"', '"a,"'])
def test_a_tag_may_hold_commas_backslashes_and_nothing(etag):
    """RFC 9110, section 8.8.3."""
    assert evaluate(etag=etag, if_none_match=f'"x",{etag}\t,"y"') == 304
    assert evaluate(etag=etag, if_match=etag) == 200


def test_a_part_of_a_tag_between_commas_is_no_tag():
    """RFC 9110, section 8.8.3."""
    assert evaluate(etag='"b"', if_none_match='"a,"b",c"') == 200
    assert evaluate(etag='",x,"', if_none_match='"a",x,"b"') == 200


@pytest.mark.parametrize(
    "value", ["abc", "'abc'", '"abc', 'abc"', 'w/"abc"', 'W/ "abc"', '"abc"x', 'x"abc"', '"ABC"']
)
def test_a_malformed_tag_matches_nothing(value):
    """RFC 9110, section 8.8.3."""
    assert evaluate(if_none_match=value) == 200
    assert evaluate(if_match=value) == 412


def test_well_formed_tags_count_beside_malformed_ones():
    """RFC 9110, section 5.6.1.2."""
    assert evaluate(if_none_match='x, ,"abc"') == 304
    assert evaluate(if_none_match='"a b", "abc"') == 304
    assert evaluate(if_none_match='"abc", "') == 304


@pytest.mark.parametrize("etag", [None, "abc", 'w/"abc"', ""])
def test_a_representation_without_a_good_tag_matches_no_tag(etag):
    """RFC 9110, section 8.8.3."""
    assert evaluate(etag=etag, if_none_match='"abc", abc, w/"abc", ""') == 200
    assert evaluate(etag=etag, if_match='"abc", abc, w/"abc", ""') == 412


@pytest.mark.parametrize("etag", ['"a b"', '"a\tb"', '"a\x7f"'])
def test_a_tag_with_white_space_or_control_characters_is_malformed(etag):
    """RFC 9110, section 8.8.3."""
    assert evaluate(etag=etag, if_none_match=etag) == 200
    assert evaluate(etag=etag, if_match=etag) == 412


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_modified_since_gives_304_when_nothing_changed(method):
    """RFC 9110, section 13.1.3."""
    assert evaluate(method, if_modified_since=AT) == 304
    assert evaluate(method, if_modified_since=AFTER) == 304
    assert evaluate(method, if_modified_since=BEFORE) == 200


def test_if_modified_since_is_for_readers_only():
    """RFC 9110, section 13.1.3."""
    assert evaluate("PUT", if_modified_since=AT) == 200


def test_if_modified_since_yields_to_if_none_match():
    """RFC 9110, section 13.1.3."""
    assert evaluate(if_none_match='"x"', if_modified_since=AT) == 200
    assert evaluate(if_none_match="", if_modified_since=AT) == 200
    assert evaluate(if_none_match='"abc"', if_modified_since=BEFORE) == 304


def test_if_unmodified_since_gives_412_when_something_changed():
    """RFC 9110, section 13.1.4."""
    assert evaluate(if_unmodified_since=BEFORE) == 412
    assert evaluate("PUT", if_unmodified_since=BEFORE) == 412
    assert evaluate(if_unmodified_since=AT) == 200
    assert evaluate(if_unmodified_since=AFTER) == 200


def test_if_unmodified_since_yields_to_if_match():
    """RFC 9110, section 13.1.4."""
    assert evaluate(if_match='"abc"', if_unmodified_since=BEFORE) == 200
    assert evaluate(if_match='"x"', if_unmodified_since=AT) == 412


def test_what_forbids_to_go_on_comes_before_what_spares_the_body():
    """RFC 9110, section 13.2.2."""
    assert evaluate(if_match='"x"', if_none_match='"abc"') == 412
    assert evaluate(if_match='"abc"', if_none_match='"abc"') == 304
    assert evaluate(if_unmodified_since=BEFORE, if_none_match='"abc"') == 412
    assert evaluate(if_unmodified_since=AT, if_modified_since=AT) == 304


@pytest.mark.parametrize("date", ["", "yesterday", "784111777", AT[:-4], f"{AT}, {AT}"])
def test_a_malformed_date_is_ignored(date):
    """RFC 9110, sections 13.1.3 and 13.1.4."""
    assert evaluate(if_modified_since=date) == 200
    assert evaluate(if_unmodified_since=date) == 200


def test_dates_are_ignored_where_the_time_of_change_is_not_known():
    """RFC 9110, sections 13.1.3 and 13.1.4."""
    assert evaluate(last_modified=None, if_modified_since=AFTER) == 200
    assert evaluate(last_modified=None, if_unmodified_since=BEFORE) == 200


def test_fractions_of_a_second_are_not_compared():
    """RFC 9110, section 5.6.7: no date can hold them."""
    assert evaluate(last_modified=CHANGED + 0.9, if_modified_since=AT) == 304
    assert evaluate(last_modified=CHANGED + 0.9, if_unmodified_since=AT) == 200


TAGS = st.builds(
    '{}"{}"'.format,
    st.sampled_from(["", "W/"]),
    st.text(alphabet="ab,\\!\xff", max_size=3),
)


@given(st.lists(TAGS, max_size=4), TAGS)
def test_a_list_of_tags_is_compared_as_the_specification_says(tags, etag):
    """RFC 9110, section 8.8.3.2."""
    value = " , ".join(tags)
    weakly = etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]
    strongly = etag in tags and not etag.startswith("W/")

    assert evaluate(etag=etag, if_none_match=value) == (304 if weakly else 200)
    assert evaluate(etag=etag, if_match=value) == (200 if strongly else 412)


@given(st.text(alphabet='W/"abc, *\\\t', max_size=30))
def test_no_text_breaks_the_tag_parser(value):
    """RFC 9110, section 8.8.3."""
    assert evaluate(if_none_match=value) in (200, 304)
    assert evaluate(if_match=value) in (200, 412)


def test_a_hostile_list_of_tags_is_read_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    for value in ('"' * 2**22, '"a,' * 2**20, "," * 2**22, " " * 2**22, '"' + "," * 2**22):
        evaluate(if_none_match=value)


def test_a_range_applies_to_the_same_strong_tag_only():
    """RFC 9110, section 13.1.5."""
    assert conditional.range_applies('"abc"', '"abc"', None, None)
    assert conditional.range_applies(' "abc" ', '"abc"', None, None)
    assert not conditional.range_applies('"x"', '"abc"', None, None)
    assert not conditional.range_applies('"abc"', None, None, None)
    assert not conditional.range_applies('W/"abc"', '"abc"', None, None)
    assert not conditional.range_applies('"abc"', 'W/"abc"', None, None)
    assert not conditional.range_applies('W/"abc"', 'W/"abc"', None, None)


def test_if_range_takes_one_tag_and_no_star():
    """RFC 9110, section 13.1.5."""
    assert not conditional.range_applies('"abc", "x"', '"abc"', None, None)
    assert not conditional.range_applies("*", '"abc"', CHANGED, CHANGED + 60)
    assert not conditional.range_applies("abc", "abc", CHANGED, CHANGED + 60)


def test_a_range_applies_to_exactly_the_same_date_only():
    """RFC 9110, section 13.1.5."""
    assert conditional.range_applies(AT, ETAG, CHANGED, CHANGED + 60)
    assert not conditional.range_applies(BEFORE, ETAG, CHANGED, CHANGED + 60)
    assert not conditional.range_applies(AFTER, ETAG, CHANGED, CHANGED + 60)
    assert not conditional.range_applies("", ETAG, CHANGED, CHANGED + 60)
    assert not conditional.range_applies("yesterday", ETAG, None, CHANGED + 60)


def test_a_date_too_near_to_the_response_is_no_strong_validator():
    """RFC 9110, section 8.8.2.2."""
    assert conditional.range_applies(AT, ETAG, CHANGED, CHANGED + 1)
    assert not conditional.range_applies(AT, ETAG, CHANGED, CHANGED + 0.5)
    assert not conditional.range_applies(AT, ETAG, CHANGED, CHANGED)
    assert not conditional.range_applies(AT, ETAG, CHANGED, CHANGED - 60)
    assert not conditional.range_applies(AT, ETAG, CHANGED, None)
    assert not conditional.range_applies(AT, ETAG, None, CHANGED)
