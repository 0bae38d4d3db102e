"""The app says that a stale image holds still: 304, with what it renews, and whom it is about."""

from cachemw import ImageCache
from tests.functional.versions import NEW, OLD, URL, client_of, status_of

from .aging import HELD, HIT, LATER, MODIFIED, STORED, lie_once, warm


def test_image_that_has_not_changed_is_not_sent_again(client, origin, clock):
    """RFC 9111, section 4.3.3."""
    warm(client)
    clock.tick(LATER)

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == HELD
    assert int(response.headers["Age"]) < 5
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]
    assert origin.closed == origin.opened == 2


def test_304_makes_it_fresh_again(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    client.get(URL)

    clock.tick(50)
    assert status_of(client.get(URL)) == HIT
    assert origin.calls == 2
    clock.tick(50)
    assert status_of(client.get(URL)) == HELD


def test_304_makes_it_fresh_as_long_as_the_304_says(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.control = "max-age=1000"
    client.get(URL)

    clock.tick(900)
    hit = client.get(URL)

    assert status_of(hit) == HIT
    assert hit.headers["Cache-Control"] == "max-age=1000"
    assert 900 <= int(hit.headers["Age"]) < 910


def test_304_that_was_under_way_for_long_counts_from_when_it_was_made(client, origin, clock):
    """RFC 9111, section 4.2.3."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("Age", "50")]
    client.get(URL)

    clock.tick(20)
    assert status_of(client.get(URL)) == HELD


def test_fields_of_a_304_take_the_place_of_the_stored_ones(client, origin, clock):
    """RFC 9111, section 3.2: also in the hits after it."""
    origin.fields = [("X-Kept", "1"), ("X-Changed", "1"), ("X-Changed", "2")]
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-Changed", "3"), ("X-New", "4")]

    for response in (client.get(URL), client.get(URL), client.get(URL)):
        assert response.body == OLD
        assert response.headers["X-Kept"] == "1"
        assert response.headers.getall("X-Changed") == ["3"]
        assert response.headers["X-New"] == "4"


def test_fields_that_the_bytes_depend_on_stay(client, origin, clock):
    """RFC 9111, section 3.2."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [
        ("Content-Length", "0"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-0/1"),
        ("Set-Cookie", "a=b"),
    ]

    for response in (client.get(URL), client.get(URL)):
        assert response.body == OLD
        assert response.headers["Content-Length"] == str(len(OLD))
        assert "Content-Encoding" not in response.headers
        assert "Content-Range" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_what_a_304_renewed_is_seen_by_other_processes(
    client, origin, cache, clock, driver_name, tmp_path
):
    warm(client)
    other = ImageCache(dir=tmp_path / "cache", driver=driver_name)
    other_client = client_of(origin, other)
    for _ in range(3):
        assert other_client.get(URL).body == OLD
    clock.tick(LATER)
    origin.fields_304 = [("X-New", "4")]

    client.get(URL)
    hit = other_client.get(URL)

    assert status_of(hit) == HIT
    assert hit.headers["X-New"] == "4"
    other.close()


def test_app_is_asked_with_both_of_its_own_validators(client, origin, clock):
    """RFC 9111, section 4.3.1."""
    origin.modified = MODIFIED
    warm(client)
    clock.tick(LATER)

    client.get(URL)

    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"', "IF_MODIFIED_SINCE": MODIFIED}


def test_last_modified_alone_will_do(client, origin, clock):
    origin.tag, origin.modified = None, MODIFIED
    origin.control = "max-age=60"
    warm(client)
    clock.tick(LATER)

    assert status_of(client.get(URL)) == HELD
    assert origin.asked[-1] == {"IF_MODIFIED_SINCE": MODIFIED}


def test_conditions_of_the_client_do_not_reach_the_app(client, origin, clock):
    """They are about the client's copy; ours has to be asked about."""
    warm(client)
    clock.tick(LATER)

    response = client.get(
        URL,
        headers={
            "If-None-Match": '"hers"',
            "If-Modified-Since": MODIFIED,
            "If-Range": '"old"',
            "Range": "bytes=0-9",
        },
        status=206,
    )

    assert response.body == OLD[:10]
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}


def test_hits_are_counted_for_every_answer_from_the_copy(client, origin, cache, clock):
    client.get(URL)
    clock.tick(LATER)
    client.get(URL)  # 304
    client.get(URL)
    client.head(URL)

    assert cache.get_hit_count(cache.get_cached_images()[0]["image_id"]) == 3


def test_trouble_with_the_record_is_not_the_clients(client, origin, cache, clock, monkeypatch):
    warm(client)
    clock.tick(LATER)

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cachemw.drivers._records.write", broken)

    for _ in range(2):
        response = client.get(URL)
        assert (response.body, status_of(response)) == (OLD, HELD)


# 304 about something else


def test_304_about_another_image_is_asked_again_for_all_of_it(client, origin, clock):
    """RFC 9111, section 4.3.4."""
    warm(client)
    clock.tick(LATER)
    origin.change()
    lie_once(origin)

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}, {}]
    assert origin.closed == origin.opened == 3


def test_304_that_nobody_asked_for_is_not_about_what_is_stored(client, origin, clock):
    """Without a validator of ours nothing was asked that a 304 could answer."""
    origin.tag = None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    lie_once(origin)

    assert client.get(URL).body == NEW
