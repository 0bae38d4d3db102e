"""The app sends a stale image once more, or another in its place."""

import pytest

from cachemw import CacheFilter
from tests.functional.as_server import call
from tests.functional.versions import NEW, OLD, URL, status_of

from .aging import HIT, LATER, STORED, warm


def test_same_image_sent_once_more_is_not_read(client, origin, clock):
    """An app that does not look at conditions: as good as a 304."""
    origin.is_conditional = False
    warm(client)
    clock.tick(LATER)
    read = origin.chunks_read

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert origin.chunks_read == read
    assert origin.closed == origin.opened == 2
    assert status_of(client.get(URL)) == HIT


@pytest.mark.parametrize("change", ["tag", "weak", "length", "coding"])
def test_what_is_not_certainly_the_same_is_read(client, origin, clock, change):
    origin.is_conditional = False
    if change == "weak":
        origin.tag = 'W/"old"'
    warm(client)
    clock.tick(LATER)
    body = NEW[:-1] if change == "length" else NEW
    origin.body = body
    if change == "tag":
        origin.tag = '"new"'
    elif change == "coding":
        origin.fields = [("Content-Encoding", "identity")]

    assert client.get(URL).body == body
    assert client.get(URL).body == body


def test_changed_image_takes_the_place_of_the_old(client, origin, cache, clock):
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert response.headers["ETag"] == '"new"'
    hit = client.get(URL)
    assert (status_of(hit), hit.body, hit.headers["ETag"]) == (HIT, NEW, '"new"')
    assert cache.get_cache_size() == len(NEW)
    assert origin.closed == origin.opened == 2


def test_who_reads_the_old_one_gets_all_of_it(origin, cache, clock):
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    readers = [call(app, URL) for _ in range(3)]
    begun = [next(iter(reader.body)) for reader in readers]
    clock.tick(LATER)
    origin.change()

    assert call(app, URL).read() == NEW
    assert call(app, URL).read() == NEW

    for start, reader in zip(begun, readers, strict=True):
        # A body of one block starts again where it is iterated again.
        rest = reader.read()
        assert rest == OLD or start + rest == OLD


def test_new_image_that_fails_half_way_leaves_the_old_one(origin, cache, clock):
    origin.control = "max-age=60, stale-if-error=1000"
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    clock.tick(LATER)
    origin.change()

    def fail(number):
        if number == 2:
            raise RuntimeError("disk on fire")

    origin.before_chunk = fail
    call(app, URL).read_until(RuntimeError)
    origin.status = "503 No"

    assert call(app, URL).read() == OLD


def test_outdated_copy_is_no_hit_once_the_app_sent_another(client, origin):
    """Also if this client has the new one already, and gets a 304."""
    client.get(URL)
    origin.change()
    headers = {"Cache-Control": "no-cache", "If-None-Match": origin.tag}
    client.get(URL, headers=headers, status=304)

    assert client.get(URL).body == NEW
