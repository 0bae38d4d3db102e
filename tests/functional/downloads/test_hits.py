"""Misses, hits, and what a hit says."""

from cachemw import CacheFilter
from tests.fakes import sha256
from tests.functional.as_server import call
from tests.wsgi import get as by_hand

from .downloading import BODY, URL, status_of


def test_second_download_does_not_reach_the_origin(client, origin):
    """An image read to its end once is served from the cache from then on."""
    first = client.get(URL)
    second = client.get(URL)

    assert first.body == second.body == BODY
    assert status_of(first) == "cachemw; fwd=uri-miss; stored"
    assert status_of(second) == "cachemw; hit"
    assert origin.calls == 1


def test_miss_keeps_the_length_that_the_app_sent(client):
    assert client.get(URL).headers["Content-Length"] == str(len(BODY))


def test_hit_replays_the_stored_headers_and_its_age(client, origin):
    """RFC 9111, section 5.1."""
    origin.headers += [
        ("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"),
        ("X-Image-Meta", "1"),
        ("X-Image-Meta", "2"),
        ("Age", "20"),
    ]
    client.get(URL)

    hit = client.get(URL)

    assert hit.headers["Last-Modified"] == "Fri, 20 Nov 2026 10:00:00 GMT"
    assert hit.headers.getall("X-Image-Meta") == ["1", "2"]
    assert 20 <= int(hit.headers["Age"]) < 25
    assert hit.headers["Accept-Ranges"] == "bytes"
    assert "Date" in hit.headers


def test_hit_has_the_checksum_as_its_entity_tag_where_the_app_sent_none(client):
    client.get(URL)

    assert client.get(URL).headers["ETag"] == f'"{sha256(BODY)}"'


def test_no_tag_is_added_where_the_app_sent_another_validator(client, origin):
    origin.headers.append(("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"))
    client.get(URL)

    assert "ETag" not in client.get(URL).headers


def test_entity_tag_of_the_app_is_kept(client, origin):
    origin.headers.append(("ETag", '"v1"'))
    client.get(URL)

    assert client.get(URL).headers["ETag"] == '"v1"'


def test_body_of_the_app_is_closed_exactly_once(client, origin):
    client.get(URL)
    client.get("/empty")

    assert (origin.opened, origin.closed) == (2, 2)


def test_empty_image_is_an_image(client, origin):
    assert client.get("/empty").body == b""
    assert status_of(client.get("/empty")) == "cachemw; hit"


def test_length_is_not_needed(client, origin):
    origin.send_length = False

    assert client.get(URL).body == BODY
    assert client.get(URL).body == BODY
    assert origin.calls == 1


def test_head_is_answered_from_an_entry_and_never_fills(client, origin):
    before = client.head(URL)
    client.get(URL)
    after = client.head(URL)

    assert status_of(before) == "cachemw; fwd=uri-miss; detail=head"
    assert status_of(after) == "cachemw; hit"
    assert after.headers["Content-Length"] == str(len(BODY))
    assert origin.calls == 2


def test_image_that_was_stored_just_now_is_a_hit(tmp_path, monkeypatch):
    """Its fill was under way when the request came, and is over when it would follow."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")])
        return [b"image"]

    cached = CacheFilter(app, dir=tmp_path, min_free=0)
    monkeypatch.setattr(cached.cache.sharing, "is_filling", lambda image_id, selects: True)
    assert by_hand(cached, "/a").body == b"image"

    assert by_hand(cached, "/a").cache == "hit"
    reply = by_hand(cached, "/a", Range="bytes=1-2")
    assert (reply.cache, reply.body) == ("hit", b"ma")
    cached.cache.close()


# Hits that are counted


def test_every_kind_of_answer_from_an_entry_counts_one_hit(client, cache):
    client.get(URL)
    client.get(URL)
    client.head(URL)
    client.get(URL, headers={"Range": "bytes=0-9"}, status=206)
    client.get(URL, headers={"Range": "bytes=0-1,5-9"}, status=206)
    client.get(URL, headers={"Range": "bytes=99999-"}, status=416)
    client.get(URL, headers={"If-None-Match": "*"}, status=304)

    (image,) = cache.get_cached_images()
    assert image["hits"] == 6
    assert image["size"] == len(BODY)
    assert image["checksum"] == sha256(BODY)


def test_hit_of_a_client_that_left_counts_too(origin, cache):
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()

    response = call(app, URL)
    next(iter(response.body))
    response.close()
    response.close()

    assert cache.get_cached_images()[0]["hits"] == 1
