"""Answers that take back what an earlier one allowed, and those that must not."""

import pytest

from tests.functional.versions import NEW, OLD, URL, status_of

from .aging import HELD, HIT, LATER, warm


@pytest.mark.parametrize(
    "field",
    [
        ("Cache-Control", "private"),
        ("Cache-Control", "no-store"),
        ("Vary", "*"),
        ("Vary", "Cookie"),
    ],
)
def test_304_that_forbids_storing_has_the_copy_dropped(client, origin, cache, clock, field):
    warm(client)
    clock.tick(LATER)
    origin.control = ""
    origin.fields_304 = [field]

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == HELD
    assert cache.get_cached_images() == []
    assert cache.get_cache_size() == 0


@pytest.mark.parametrize("tag", ['"old"', None])
def test_new_image_that_must_not_be_stored_has_the_copy_dropped(client, origin, cache, clock, tag):
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.body, origin.tag = NEW, tag and '"new"'
    origin.control = "no-store"

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200; detail=no-store"
    assert cache.get_cached_images() == []


def test_client_that_wants_nothing_stored_does_not_take_the_copy_from_others(
    client, origin, cache, clock
):
    """RFC 9111, section 5.2.1.5: nothing of this answer is kept; what was kept before is."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-New", "1")]

    response = client.get(URL, headers={"Cache-Control": "no-store"})

    assert (response.body, status_of(response)) == (OLD, HELD)
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (stale.body, status_of(stale)) == (OLD, HIT)
    assert "X-New" not in stale.headers


def test_304_to_someone_does_not_renew_what_is_for_all(client, origin, clock):
    """RFC 9111, section 3.5."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-Hello", "Ann")]

    response = client.get(URL, headers={"Authorization": "Basic YW5uOmE="})

    assert (response.body, status_of(response)) == (OLD, HELD)
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (stale.body, status_of(stale)) == (OLD, HIT)
    assert "X-Hello" not in stale.headers


def test_304_to_someone_renews_it_where_it_says_that_it_is_for_all(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.control = "public, max-age=60"
    client.get(URL, headers={"Authorization": "Basic YW5uOmE="})

    assert status_of(client.get(URL)) == HIT


def test_renewal_by_a_forwarded_request_leaves_the_copy_to_the_others(client, origin):
    client.get(URL)
    client.get(URL, headers={"X-Forwarded-Host": "evil", "Cache-Control": "no-cache"})

    assert status_of(client.get(URL)) == HIT
