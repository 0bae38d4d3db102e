"""Which copy a request gets: variants, names and routes; and what removes it."""

import pytest

from cachemw import CacheFilter
from tests.functional.as_server import call

from .downloading import BODY, URL, client_of, status_of

# Variants


def test_other_variant_is_a_miss(client, origin):
    """RFC 9111, section 4.1."""
    origin.headers.append(("Vary", "Accept"))
    client.get(URL, headers={"Accept": "image/png"})

    other = client.get(URL, headers={"Accept": "image/webp"})
    again = client.get(URL, headers={"Accept": "image/webp"})

    assert status_of(other) == "cachemw; fwd=vary-miss; stored"
    assert status_of(again) == "cachemw; hit"


def test_other_query_is_another_image(client, origin):
    client.get(f"{URL}?width=100")

    assert status_of(client.get(f"{URL}?width=200")) == "cachemw; fwd=uri-miss; stored"
    assert status_of(client.get(f"{URL}?width=100")) == "cachemw; hit"


def test_other_host_is_another_image(client):
    client.get(URL, headers={"Host": "one.example"})

    other = client.get(URL, headers={"Host": "two.example"})
    assert status_of(other) == "cachemw; fwd=uri-miss; stored"


def test_client_may_ask_for_a_new_one(client, origin):
    """RFC 9111, section 5.2.1.4."""
    client.get(URL)
    origin.images[URL] = BODY[::-1]

    fresh = client.get(URL, headers={"Cache-Control": "no-cache"})

    assert status_of(fresh) == "cachemw; fwd=request; stored"
    assert fresh.body == client.get(URL).body == BODY[::-1]


# Invalidation


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST", "PATCH"])
def test_successful_change_removes_the_copy(client, origin, method):
    """RFC 9111, section 4.4."""
    client.get(URL)
    origin.images[URL] = BODY[::-1]

    client.request(URL, method=method)

    assert client.get(URL).body == BODY[::-1]


def test_failed_change_leaves_the_copy(cache):
    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            start_response(
                "200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=60")]
            )
            return [BODY]
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no"]

    client = client_of(app, cache)
    client.get(URL)
    client.delete(URL, status=403)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_change_during_a_fill_keeps_the_old_bytes_out(origin, cache):
    """What the fill brings is older than the change."""
    app = CacheFilter(origin, cache=cache)
    response = call(app, URL)
    next(iter(response.body))
    call(app, URL, REQUEST_METHOD="DELETE").read()
    rest = response.read()

    assert len(rest) == len(BODY) - 4096
    assert not cache.get_cached_images()
    assert call(app, URL).header("Cache-Status") == "cachemw; fwd=uri-miss; stored"


def test_other_method_passes(client, origin):
    response = client.options(URL, status=204)

    assert status_of(response) == "cachemw; fwd=bypass; detail=method"


# Routes


def test_path_that_no_route_matches_passes_untouched(origin, cache):
    client = client_of(origin, cache, routes="/v2/images/(?P<image_id>[^/]+)/file")

    assert "Cache-Status" not in client.get(URL).headers


def test_route_names_the_image(origin, cache):
    client = client_of(origin, cache, routes="/images/(?P<image_id>[^/]+)/file")
    client.get(URL)

    assert cache.is_cached("cat")
    assert [image["image_id"] for image in cache.get_cached_images()] == ["cat"]
    assert client.get(URL).body == BODY
