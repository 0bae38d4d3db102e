"""What is stored, and what only passes."""

import pytest

from cachemw import ImageCache
from tests.fakes import FakeOrigin

from .downloading import BODY, URL, client_of, status_of


def not_stored(client, origin, reason, **kwargs):
    for _ in range(2):
        response = client.get(URL, **kwargs)
        assert status_of(response) == f"cachemw; fwd=uri-miss; detail={reason}"
        assert response.body == BODY
    assert origin.calls == 2


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("Cache-Control", "no-store", "no-store"),
        ("Cache-Control", "private", "private"),
        ("Set-Cookie", "a=b", "set-cookie"),
        ("Vary", "accept, *", "vary"),
        ("Vary", "Cookie", "vary"),
        ("Vary", "X-Auth-Token", "vary"),
    ],
)
def test_answer_that_forbids_storing_is_not_stored(client, origin, field, value, reason):
    """RFC 9111, sections 3, 4.1 and 5.2.2."""
    origin.headers.append((field, value))

    not_stored(client, origin, reason)


def test_answer_without_a_lifetime_is_not_stored(client, origin):
    """RFC 9111, section 4.2.2: nothing to reckon one from."""
    origin.headers = []

    not_stored(client, origin, "not-fresh")


def test_answer_without_a_lifetime_is_stored_where_ids_are_immutable(origin, cache):
    origin.headers = []
    client = client_of(origin, cache, freshness="immutable")
    client.get(URL)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_image_that_cannot_change_is_not_fetched_again_for_a_client_that_asks(origin, cache):
    client = client_of(origin, cache, freshness="immutable")
    client.get(URL)

    assert status_of(client.get(URL, headers={"Cache-Control": "no-cache"})) == "cachemw; hit"


def test_old_image_is_fresh_for_a_while_by_its_age(client, origin):
    """RFC 9111, section 4.2.2."""
    origin.headers = [("Last-Modified", "Thu, 20 Nov 2025 10:00:00 GMT")]
    client.get(URL)

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_type_that_is_no_image_is_not_stored(client, origin):
    origin.content_type = "text/html; charset=UTF-8"

    not_stored(client, origin, "content-type")


@pytest.mark.parametrize(
    "field", ["Authorization", "Cookie", "X-Auth-Token", "X-Storage-Token", "X-Service-Token"]
)
def test_answer_to_someone_is_not_stored(client, origin, field):
    """RFC 9111, section 3.5, over every credential that image services know."""
    origin.headers = [("Cache-Control", "max-age=60")]

    not_stored(client, origin, "credentials", headers={field: "secret"})


def test_answer_to_someone_is_stored_if_it_says_that_it_is_for_all(client, origin):
    """RFC 9111, section 3.5."""
    client.get(URL, headers={"Authorization": "secret"})

    assert status_of(client.get(URL)) == "cachemw; hit"


def test_more_fields_can_count_as_credentials(origin, cache):
    origin.headers = [("Cache-Control", "max-age=60")]
    client = client_of(origin, cache, credential_headers="X-Api-Key")

    not_stored(client, origin, "credentials", headers={"X-Api-Key": "secret"})


def test_remote_user_counts_as_a_credential(client, origin):
    origin.headers = [("Cache-Control", "max-age=60")]

    not_stored(client, origin, "credentials", extra_environ={"REMOTE_USER": "ann"})


def test_cold_range_passes_and_is_not_stored(client, origin):
    response = client.get(URL, headers={"Range": "bytes=0-9"})

    assert status_of(response) == "cachemw; fwd=uri-miss; detail=range"


def test_missing_image_passes(client):
    response = client.get("/none", status=404)

    assert status_of(response) == "cachemw; fwd=uri-miss; detail=status"


def test_image_larger_than_allowed_passes(origin, driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_image_size="8KiB")
    client = client_of(origin, cache)

    not_stored(client, origin, "full")
    assert cache.driver.get_usage() == 0
    cache.close()


def test_image_of_unknown_length_that_grows_too_large_passes(origin, driver_name, tmp_path):
    origin.send_length = False
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_size="8KiB")
    client = client_of(origin, cache)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert origin.calls == 2
    assert cache.driver.get_usage() == 0
    cache.close()


def test_bound_holds_while_images_come(driver_name, tmp_path):
    images = {f"/{number}": bytes([number]) * 10_000 for number in range(10)}
    cache = ImageCache(dir=tmp_path, driver=driver_name, max_size=35_000)
    client = client_of(FakeOrigin(images), cache)
    for path, body in images.items():
        assert client.get(path).body == body
        assert cache.driver.get_usage() <= 35_000

    assert [client.get(path).body for path in images] == list(images.values())
    cache.close()
