"""Policy: what a response lets a shared cache do; the arithmetic is in test_freshness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web.fields import format_http_date
from cachemw.web.policy import Policy, policy

NOW = 1795176000.0
NAMES = ("Cache-Control", "CDN-Cache-Control", "Date", "Expires", "Last-Modified", "ETag")
LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=40)


def at(offset):
    return format_http_date(NOW + offset)


def read(control="", **headers):
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return policy([("Cache-Control", control), *lines], NOW)


def test_a_response_that_says_nothing_has_no_lifetime():
    """RFC 9111, section 4.2.2."""
    assert read() == Policy()
    assert policy([], NOW) == Policy()


def test_every_directive_is_found():
    """RFC 9111, section 5.2.2; RFC 5861; RFC 8246."""
    assert read(
        "s-maxage=5, max-age=9, no-cache, no-store, private, public, must-revalidate, immutable,"
        " must-understand, stale-while-revalidate=7, stale-if-error=8",
        ETag='"a"',
    ) == Policy(
        lifetime=5.0,
        explicit=True,
        no_cache=True,
        no_store=True,
        private=True,
        public=True,
        shareable=True,
        must_revalidate=True,
        stale_while_revalidate=7.0,
        stale_if_error=8.0,
        immutable=True,
        must_understand=True,
        validator=True,
    )


@pytest.mark.parametrize("value", ["must-revalidate", "proxy-revalidate", "s-maxage=5"])
def test_three_directives_forbid_what_is_stale(value):
    """RFC 9111, sections 5.2.2.2, 5.2.2.8 and 5.2.2.10."""
    assert read(value).must_revalidate
    assert read(value).forbids_stale


def test_no_cache_forbids_what_is_stale_and_keeps_its_lifetime():
    """RFC 9111, section 4.2.4."""
    assert read('no-cache="X", max-age=5').forbids_stale
    assert read("no-cache, max-age=5").lifetime == 5
    assert not read("max-age=5").forbids_stale


def test_proxy_revalidate_does_not_make_what_is_one_persons_shareable():
    """RFC 9111, section 3.5."""
    assert not read("proxy-revalidate, max-age=5").shareable
    assert all(read(value).shareable for value in ("public", "s-maxage=1", "must-revalidate"))


@pytest.mark.parametrize("control", ["max-age=x", "max-age", "s-maxage=-1, max-age=5"])
def test_a_malformed_lifetime_is_stated_and_over(control):
    """RFC 9111, section 4.2.1; no guess takes its place (section 4.2.2)."""
    found = read(control, Last_Modified=at(-1000))

    assert (found.lifetime, found.explicit) == (0, True)


def test_a_malformed_expires_is_stated_and_over():
    """RFC 9111, sections 4.2.2 and 5.3."""
    found = read(Expires="0", Last_Modified=at(-1000))

    assert (found.lifetime, found.explicit) == (0, True)


def test_a_guess_is_called_one():
    """RFC 9111, section 4.2.2."""
    found = read(Last_Modified=at(-1000))

    assert (found.lifetime, found.explicit) == (pytest.approx(100), False)


@pytest.mark.parametrize("value", ["stale-if-error=x", "stale-if-error=1.5", "stale-if-error"])
def test_malformed_grace_is_none(value):
    """RFC 5861, section 4; RFC 9111, section 1.2.2."""
    assert read(value).stale_if_error == 0


def test_a_target_hides_cache_control_and_expires():
    """RFC 9213, section 2.2."""
    target = {"CDN-Cache-Control": "max-age=60"}

    found = read("no-store, max-age=5", Expires=at(9), **target)
    assert (found.lifetime, found.explicit, found.no_store) == (60, True, False)
    # A guess is allowed again where the target states no lifetime.
    found = read("max-age=5", CDN_Cache_Control="public", Expires=at(9), Last_Modified=at(-1000))
    assert (found.lifetime, found.explicit) == (pytest.approx(100), False)


def test_a_target_with_a_lifetime_of_the_wrong_type_is_stale():
    """RFC 9213, section 2.1."""
    found = read("max-age=5", CDN_Cache_Control='max-age="60"', Last_Modified=at(-1000))

    assert (found.lifetime, found.explicit) == (0, True)


def test_targets_can_be_turned_off():
    """RFC 9213, section 2.2: the target list is the cache's own."""
    headers = [("Cache-Control", "max-age=5"), ("CDN-Cache-Control", "max-age=60")]

    assert policy(headers, NOW, targets=()).lifetime == 5


@pytest.mark.parametrize(
    ("headers", "has"),
    [
        ({"ETag": 'W/"a"'}, True),
        ({"ETag": " "}, False),
        ({"Last_Modified": at(-5)}, True),
        ({"Last_Modified": "yesterday"}, False),
    ],
)
def test_a_validator_is_a_tag_or_a_good_date(headers, has):
    """RFC 9111, section 4.3.1."""
    assert read(**headers).validator is has


@given(st.lists(st.tuples(st.sampled_from(NAMES), LATIN_1), max_size=6))
def test_no_fields_break_the_policy(headers):
    """RFC 9111, section 4.2."""
    assert policy(headers, NOW).lifetime >= 0
