"""Entries that were found: those of other programs, and those from before a power cut."""

import hashlib

import pytest

from cachemw import ImageCache

from .downloading import BODY, URL, client_of, status_of

# Entries of other programs


def glance_entry(directory, name, body):
    directory.mkdir(exist_ok=True)
    (directory / name).write_bytes(body)


@pytest.fixture
def glance_client(origin, driver_name, tmp_path):
    def make(body):
        glance_entry(tmp_path / "cache", "cat", body)
        cache = ImageCache(dir=tmp_path / "cache", driver=driver_name)
        return cache, client_of(origin, cache, routes="/images/(?P<image_id>[^/]+)/file")

    return make


def test_adopted_entry_is_used_once_the_apps_checksum_says_so(glance_client, origin):
    origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    cache, client = glance_client(BODY)
    assert [image["image_id"] for image in cache.get_cached_images()] == ["cat"]

    first, second = client.get(URL), client.get(URL)

    assert status_of(first) == "cachemw; hit; detail=adopted"
    assert status_of(second) == "cachemw; hit"
    assert first.body == second.body == BODY
    assert origin.calls == 1
    assert origin.closed == 1
    cache.close()


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("stale", [b"another", BODY[::-1]])
def test_adopted_entry_that_is_not_what_the_app_has_is_never_served(
    glance_client, origin, checksum, stale
):
    if checksum:
        origin.headers.append(("Content-MD5", hashlib.md5(BODY).hexdigest()))
    cache, client = glance_client(stale)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert origin.calls == 1
    cache.close()


# Power cuts


@pytest.mark.parametrize("durability", ["none", "data"])
def test_bytes_that_a_power_cut_took_are_never_served(
    origin, driver_name, tmp_path, monkeypatch, durability
):
    """Zeros of the right length, under a boot later than the one that wrote without syncing."""
    cache = ImageCache(dir=tmp_path, driver=driver_name, durability=durability)
    client = client_of(origin, cache)
    client.get(URL)
    (entry,) = [path for path in tmp_path.iterdir() if path.name.startswith("_")]
    entry.write_bytes(bytes(len(BODY)))
    # What was synced is not looked at again: another's write to it is for verify_reads.
    assert client.get(URL).body == bytes(len(BODY))

    monkeypatch.setattr("cachemw.drivers.base.boot_id", lambda: "next")
    after = client.get(URL)

    if durability == "none":
        assert after.body == BODY
        assert cache.driver.get_invalid_images()[0]["reason"].startswith("its bytes do not match")
    else:
        assert status_of(after) == "cachemw; hit"
    cache.close()
