"""What may be stored; the rest of the refusals is in test_freshness."""

import pytest

from cachemw.web import storable
from cachemw.web.policy import Policy, policy

NOW = 1795176000.0


def refused(control="", *headers, environ=None, **options):
    lines = [("Cache-Control", control), *headers]
    request = {"REQUEST_METHOD": "GET"} | (environ or {})
    options = {"has_credentials": False} | options
    return storable.refusal(request, 200, lines, policy(lines, NOW), **options)


def test_must_understand_lifts_no_store():
    """RFC 9111, section 5.2.2.3."""
    assert refused("no-store") == "no-store"
    assert refused("must-understand, no-store, max-age=5") is None


def test_must_understand_lifts_neither_private_nor_what_the_request_says():
    """RFC 9111, sections 5.2.1.5 and 5.2.2.7."""
    environ = {"HTTP_CACHE_CONTROL": "no-store"}

    assert refused("must-understand, no-store", environ=environ) == "no-store"
    assert refused("must-understand, no-store, private") == "private"


def test_credentials_do_not_matter_where_every_hit_is_put_to_the_app():
    """RFC 9111, section 3.5."""
    assert refused("max-age=5", has_credentials=True) == "credentials"
    assert refused("max-age=5", has_credentials=True, authorized=True) is None


def test_a_target_decides_what_is_stored():
    """RFC 9213, section 2.2."""
    target = ("CDN-Cache-Control", "max-age=5")

    assert refused("private", target) is None
    assert refused("public", ("CDN-Cache-Control", "private")) == "private"
    assert refused("public", target, has_credentials=True) == "credentials"


@pytest.mark.parametrize("value", ["*", "Accept, *", "X-Token"])
def test_what_varies_by_person_or_by_everything_is_not_stored(value):
    """RFC 9111, section 4.1."""
    assert refused("", ("Vary", value), credential_fields=["x-token"]) == "vary"


def test_only_the_answer_to_a_get_is_stored():
    """RFC 9111, section 3."""
    assert refused(environ={"REQUEST_METHOD": "HEAD"}) == "method"


@pytest.mark.parametrize(
    ("found", "useful"),
    [
        (Policy(), False),
        (Policy(public=True), False),
        (Policy(validator=True), True),
        (Policy(validator=True, no_cache=True), True),
        (Policy(lifetime=31.0), True),
        (Policy(lifetime=30.0), False),
        (Policy(lifetime=31.0, no_cache=True), False),
        (Policy(lifetime=10.0, stale_if_error=21.0), True),
        (Policy(lifetime=10.0, stale_while_revalidate=21.0), True),
        (Policy(lifetime=10.0, stale_while_revalidate=21.0, must_revalidate=True), False),
    ],
)
def test_what_can_never_be_served_is_of_no_use(found, useful):
    """RFC 9111, sections 3 and 4.2; RFC 5861."""
    assert storable.is_useful(found, 30.0) is useful
