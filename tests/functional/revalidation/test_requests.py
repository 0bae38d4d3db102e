"""What the request says: that it wants it fresher, a part, a HEAD, or that it has one already."""

import pytest

from cachemw import CacheFilter
from tests.functional.as_server import call
from tests.functional.versions import NEW, OLD, URL, status_of

from .aging import HELD, HIT, LATER, MODIFIED, STORED, fail, warm

# Requests that want it fresher


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=0"},
        {"Cache-Control": "max-age=30"},
        {"Cache-Control": "min-fresh=30"},
        {"Pragma": "no-cache"},
    ],
)
def test_client_may_have_a_fresh_one_asked_about(client, origin, clock, headers):
    """RFC 9111, sections 5.2.1 and 5.4."""
    warm(client)
    clock.tick(40)

    response = client.get(URL, headers=headers)

    assert response.body == OLD
    assert status_of(response) == "cachemw; fwd=request; fwd-status=304"
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}


def test_client_may_have_a_stale_one(client, origin, clock):
    """RFC 9111, section 5.2.1.2."""
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"Cache-Control": "max-stale=50"})

    assert status_of(response) == HIT
    assert origin.calls == 1


def test_what_has_no_validator_is_fetched_anew(client, origin, clock):
    origin.tag = None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW

    response = client.get(URL)

    assert (status_of(response), response.body) == (STORED, NEW)
    assert origin.asked[-1] == {}
    assert (status_of(client.get(URL)), client.get(URL).body) == (HIT, NEW)


def test_only_if_cached(client, origin, clock):
    """RFC 9111, section 5.2.1.7."""
    headers = {"Cache-Control": "only-if-cached"}
    assert client.get(URL, headers=headers, status=504).headers["Cache-Status"] == (
        "cachemw; detail=only-if-cached"
    )
    warm(client)
    assert status_of(client.get(URL, headers=headers)) == HIT
    clock.tick(LATER)
    client.get(URL, headers=headers, status=504)
    client.head(URL, headers=headers, status=504)
    stale = client.get(URL, headers={"Cache-Control": "only-if-cached, max-stale"})

    assert (status_of(stale), stale.body) == (HIT, OLD)
    assert origin.calls == 1


def test_no_cache_is_stored_and_asked_about_each_time(client, origin):
    """RFC 9111, section 5.2.2.4."""
    origin.control = "no-cache"
    assert status_of(client.get(URL)) == "cachemw; fwd=uri-miss; stored"

    for _ in range(3):
        response = client.get(URL)
        assert (status_of(response), response.body) == (HELD, OLD)
    assert origin.asked == [{}, *[{"IF_NONE_MATCH": '"old"'}] * 3]


def test_no_cache_without_a_validator_is_not_stored(client, origin):
    origin.control, origin.tag = "no-cache", None

    assert status_of(client.get(URL)) == "cachemw; fwd=uri-miss; detail=not-fresh"


# HEAD, ranges and conditions of the client


def test_head_of_a_stale_copy(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.head(URL)

    assert status_of(response) == HELD
    assert response.headers["Content-Length"] == str(len(OLD))
    assert origin.requests[-1] == ("HEAD", URL)
    assert status_of(client.get(URL)) == HIT


def test_head_of_a_stale_copy_of_an_image_that_changed(client, origin, clock):
    """RFC 9111, section 4.3.5."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.head(URL)

    assert response.headers["ETag"] == '"new"'
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200; detail=head"
    assert client.get(URL).body == NEW


def test_head_without_a_validator_leaves_the_copy(client, origin, clock):
    origin.tag = None
    warm(client)
    clock.tick(LATER)

    assert status_of(client.head(URL)) == "cachemw; fwd=stale; fwd-status=200; detail=head"
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (status_of(stale), stale.body) == (HIT, OLD)


def test_range_of_a_stale_copy(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"Range": "bytes=5-9"}, status=206)

    assert response.body == OLD[5:10]
    assert status_of(response) == HELD


@pytest.mark.parametrize("tag", ['"old"', None])
def test_range_of_an_image_that_changed_gives_the_whole(client, origin, clock, tag):
    """RFC 9110, section 14.2: Range may be ignored. The whole is stored."""
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    origin.tag = tag and '"new"'

    response = client.get(URL, headers={"Range": "bytes=5-9"}, status=200)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert "RANGE" not in origin.asked[-1]
    assert client.get(URL, headers={"Range": "bytes=5-9"}, status=206).body == NEW[5:10]


def test_client_with_the_stored_tag_gets_a_304_once_it_is_known_to_hold(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"If-None-Match": '"old"'}, status=304)

    assert status_of(response) == HELD
    assert response.headers["ETag"] == '"old"'


def test_client_with_the_new_tag_gets_a_304(client, origin, clock):
    """RFC 9110, section 13.1.2: the new answer is what its condition is about."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL, headers={"If-None-Match": '"new"'}, status=304)

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert response.headers["ETag"] == '"new"'
    assert response.body == b""
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}
    assert origin.closed == origin.opened == 2
    assert client.get(URL).body == NEW


def test_client_with_the_old_tag_gets_the_new_image(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.change()

    assert client.get(URL, headers={"If-None-Match": '"old"'}).body == NEW


def test_client_that_wants_only_the_old_one_is_told_that_it_changed(client, origin, clock):
    """RFC 9110, section 13.1.1."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL, headers={"If-Match": '"old"'}, status=412)

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert origin.closed == origin.opened == 2


def test_environ_goes_back_as_it_came(origin, cache, clock):
    """What is in front of the filter may look at the request after it."""
    conditions = {
        "HTTP_IF_NONE_MATCH": '"hers"',
        "HTTP_IF_MODIFIED_SINCE": MODIFIED,
        "HTTP_RANGE": "bytes=0-9",
        "HTTP_IF_RANGE": '"old"',
    }
    seen = []

    def outer(environ, start_response):
        environ.update(conditions)
        before = dict(environ)
        body = CacheFilter(origin, cache=cache)(environ, start_response)
        assert {**environ, "left": 0} == {**before, "left": 0}
        seen.append(environ.pop("left", None))
        return body

    call(CacheFilter(origin, cache=cache), URL).read()
    clock.tick(LATER)
    origin.before = lambda environ: environ.__setitem__("left", 1)
    assert call(outer, URL).read() == OLD[:10]
    clock.tick(LATER)
    origin.change()
    assert call(outer, URL).read() == NEW
    clock.tick(LATER)
    origin.before = fail
    with pytest.raises(RuntimeError):
        call(outer, URL)

    assert seen == [1, 1]
