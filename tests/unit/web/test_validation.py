"""Validation: asking about a stored response, and reading the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.core.checksum import from_headers, parse_checksum
from cachemw.web import validation
from cachemw.web.fields import format_http_date

NOW = 1795176000.0
DATE = format_http_date(NOW)
OLD = format_http_date(NOW - 5000)
OLDER = format_http_date(NOW - 9000)
OWN = "md5:" + "0" * 32

LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=40)


def test_the_app_is_asked_with_both_validators_as_they_are():
    """RFC 9111, section 4.3.1."""
    assert validation.conditions([("etag", ' W/"a" '), ("Last-Modified", OLD)]) == {
        "HTTP_IF_NONE_MATCH": 'W/"a"',
        "HTTP_IF_MODIFIED_SINCE": OLD,
    }


def test_a_date_stands_in_for_no_last_modified():
    """RFC 9111, section 4.3.1: only Last-Modified itself is sent."""
    assert validation.conditions([("Date", DATE)]) == {}
    assert validation.conditions([("ETag", ""), ("Last-Modified", "yesterday")]) == {}


def test_the_clients_own_conditions_and_ranges_do_not_reach_the_app():
    """RFC 9111, section 4.3.1."""
    environ = {
        "HTTP_IF_MATCH": "x",
        "HTTP_IF_NONE_MATCH": "x",
        "HTTP_IF_MODIFIED_SINCE": "x",
        "HTTP_IF_UNMODIFIED_SINCE": "x",
        "HTTP_IF_RANGE": "x",
        "HTTP_RANGE": "x",
        "HTTP_ACCEPT": "x",
    }

    assert validation.unconditional(environ) == {"HTTP_ACCEPT": "x"}
    assert len(environ) == 7


@pytest.mark.parametrize(
    ("stored", "fresh", "does"),
    [
        ({"ETag": '"a"'}, {"ETag": '"a"'}, True),
        ({"ETag": '"a"'}, {"ETag": '"b"'}, False),
        ({"ETag": '"a"', "Last-Modified": OLD}, {"ETag": '"b"', "Last-Modified": OLD}, False),
        ({"ETag": 'W/"a"'}, {"ETag": '"a"'}, False),
        ({"ETag": '"a"'}, {"ETag": 'W/"a"'}, True),
        ({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}, True),
        ({"ETag": 'W/"b"'}, {"ETag": 'W/"a"'}, False),
        ({}, {"ETag": '"a"'}, False),
        ({"Last-Modified": OLD}, {"ETag": '"a"', "Last-Modified": OLD}, False),
        ({"Last-Modified": OLD}, {"Last-Modified": OLD}, True),
        ({"Last-Modified": OLD}, {"Last-Modified": OLDER}, False),
        ({"ETag": '"a"'}, {"Last-Modified": OLD}, False),
        ({"ETag": '"a"', "Last-Modified": OLD}, {"Last-Modified": OLD}, True),
        ({"ETag": '"a"'}, {}, True),
        ({"Last-Modified": OLD}, {"Last-Modified": "yesterday"}, True),
        ({}, {}, True),
    ],
)
def test_a_304_is_about_the_response_whose_validators_it_has(stored, fresh, does):
    """RFC 9111, section 4.3.4."""
    assert validation.freshens(list(stored.items()), list(fresh.items())) is does


def test_a_304_with_another_digest_is_about_another_image():
    """RFC 9530, section 3: Repr-Digest is of the image, Content-Digest of nothing here."""
    one, other = f"sha-256=:{'A' * 43}=:", f"sha-256=:{'B' * 42}A=:"
    stored = [("ETag", '"a"'), ("Repr-Digest", one), ("Content-Digest", one)]

    assert validation.freshens(stored, [("ETag", '"a"'), ("Repr-Digest", one)])
    assert not validation.freshens(stored, [("ETag", '"a"'), ("Repr-Digest", other)])
    assert validation.freshens(stored, [("ETag", '"a"'), ("Content-Digest", other)])
    assert validation.freshens(stored, [("ETag", '"a"'), ("X-Image-Meta-Checksum", "0" * 32)])


def test_the_fields_of_a_304_replace_all_stored_ones_of_their_names():
    """RFC 9111, section 3.2."""
    stored = [("Cache-Control", "a"), ("X-Name", "1"), ("x-name", "2"), ("Content-Type", "a/b")]
    fresh = [("X-NAME", "3"), ("X-Name", "4"), ("content-type", "c/d"), ("X", "5"), ("Date", DATE)]

    assert validation.updated(stored, fresh, NOW) == (("Cache-Control", "a"), *fresh)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "Content-Encoding",
        "Content-Range",
        "Content-MD5",
        "Content-Digest",
        "Age",
        "Cache-Status",
        "Set-Cookie",
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "Proxy-Authenticate",
        "X-Hop",
    ],
)
def test_what_is_of_one_message_or_of_the_stored_bytes_stays(name):
    """RFC 9111, sections 3.1 and 3.2."""
    fresh = [("Date", DATE), ("Connection", "x-hop"), (name, "new")]

    assert validation.updated([], fresh, NOW) == (("Date", DATE),)
    assert validation.updated([(name, "old")], fresh, NOW) == ((name, "old"), ("Date", DATE))


def test_a_304_without_a_date_gets_the_time_that_it_came():
    """RFC 9110, section 6.6.1: with the old one it would be as old as what is stored."""
    assert validation.updated([("Date", OLD)], [], NOW) == (("Date", DATE),)


def same(stored, fresh, checksum=OWN, size=10, extra=()):
    fresh = list(fresh.items())
    expected = [*from_headers(fresh), *extra]
    return validation.same_representation(list(stored.items()), size, checksum, fresh, expected)


@pytest.mark.parametrize(
    ("stored", "fresh", "is_same"),
    [
        ({"ETag": '"a"'}, {"ETag": '"a"'}, True),
        ({"ETag": '"a"'}, {"ETag": '"b"'}, False),
        ({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}, False),
        ({"ETag": '"a"'}, {"ETag": 'W/"a"'}, False),
        ({"ETag": "a"}, {"ETag": "a"}, False),
        ({"ETag": '"a"'}, {}, False),
        ({"Last-Modified": OLD}, {"ETag": '"a"', "Last-Modified": OLD}, False),
        ({"ETag": '"a"', "Last-Modified": OLD}, {"Last-Modified": OLD}, False),
        ({"ETag": '"a"', "Last-Modified": OLD}, {"ETag": '"a"', "Last-Modified": OLDER}, True),
        ({"Last-Modified": OLD, "Date": DATE}, {"Last-Modified": OLD}, True),
        ({"Last-Modified": OLD, "Date": DATE}, {"Last-Modified": OLDER}, False),
        ({"Last-Modified": OLD, "Date": OLD}, {"Last-Modified": OLD}, False),
        ({"Last-Modified": OLD}, {"Last-Modified": OLD}, False),
        ({}, {}, False),
        ({"Last-Modified": "x"}, {"Last-Modified": "x"}, False),
    ],
)
def test_a_200_brings_what_is_stored_only_by_a_strong_validator(stored, fresh, is_same):
    """RFC 9110, sections 8.8.1 and 8.8.2.2."""
    assert same(stored, fresh) is is_same


def test_a_weak_date_is_enough_with_a_checksum():
    """RFC 9110, section 8.8.2.2."""
    assert same({"Last-Modified": OLD}, {"Last-Modified": OLD, "Content-MD5": "0" * 32})


@pytest.mark.parametrize(
    ("fresh", "is_same"),
    [
        ({"Content-Length": "10"}, True),
        ({"Content-Length": "11"}, False),
        ({"Content-Length": "ten"}, False),
        ({"Content-MD5": "0" * 32}, True),
        ({"Content-MD5": "1" * 32}, False),
        ({"Content-MD5": "0" * 32, "X-Image-Meta-Checksum": "1" * 32}, False),
        ({"Content-Encoding": "gzip"}, False),
    ],
)
def test_length_checksum_and_coding_must_not_contradict(fresh, is_same):
    """RFC 9110, section 8.6."""
    assert same({"ETag": '"a"'}, {"ETag": '"a"'} | fresh) is is_same


def test_a_checksum_of_another_algorithm_says_nothing():
    """There is nothing stored to compare it with."""
    other = parse_checksum("sha1:" + "1" * 40)

    assert same({"ETag": '"a"'}, {"ETag": '"a"'}, extra=[other])


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(("ETag", "Last-Modified", "Date", "Connection", "Vary", "Repr-Digest")),
        LATIN_1,
    ),
    max_size=5,
)


@given(FIELDS, FIELDS)
def test_no_fields_break_a_validation(stored, fresh):
    """RFC 9111, section 4.3."""
    validation.conditions(stored)
    validation.freshens(stored, fresh)
    same(dict(stored), dict(fresh))
    updated = validation.updated(stored, fresh, NOW)

    assert validation.updated(updated, fresh, NOW) == updated


def test_fields_that_a_whole_304_lacks_are_gone():
    """But not those that the stored bytes depend on."""
    stored = [("X-Color", "red"), ("Content-Encoding", "gzip")]
    fresh = (("X-Size", "big"), ("Date", DATE))

    updated = validation.updated(stored, fresh, NOW, whole=True)

    assert updated == (("Content-Encoding", "gzip"), *fresh)
