"""Bytes that are not what was promised, and fills that end early."""

import base64
import hashlib

import pytest

from cachemw import CacheFilter
from cachemw.errors import ChecksumMismatch, LengthMismatch
from tests.functional.as_server import call

from .downloading import BODY, URL


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("chunk", [1000, 10**6])
def test_wrong_checksum_cuts_the_response(origin, cache, length, chunk):
    """No reader gets the end of an image that is not what was promised."""
    origin.headers.append(("Content-MD5", hashlib.md5(b"another").hexdigest()))
    origin.chunk, origin.send_length = chunk, length
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(ChecksumMismatch)

    assert len(received) < len(BODY)
    assert BODY.startswith(received)
    assert not cache.get_cached_images()
    (invalid,) = cache.driver.get_invalid_images()
    assert invalid["reason"].startswith("md5 is ")
    assert origin.closed == 1


@pytest.mark.parametrize("promised", [len(BODY) - 1, len(BODY) + 1, 1])
def test_wrong_length_cuts_the_response(origin, cache, promised):
    origin.send_length = False
    origin.headers.append(("Content-Length", str(promised)))
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(LengthMismatch)

    assert len(received) < promised or promised > len(BODY)
    assert not cache.get_cached_images()
    assert "promised" in cache.driver.get_invalid_images()[0]["reason"]


@pytest.mark.parametrize(
    "field",
    [
        ("Content-MD5", hashlib.md5(BODY).hexdigest()),
        ("Content-MD5", base64.b64encode(hashlib.md5(BODY).digest()).decode()),
        ("X-Image-Meta-Checksum", hashlib.md5(BODY).hexdigest()),
        ("Repr-Digest", f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"),
    ],
)
def test_right_checksum_is_kept(client, origin, cache, field):
    origin.headers.append(field)
    client.get(URL)

    algorithm, _, hexdigest = cache.get_cached_images()[0]["checksum"].partition(":")
    assert hashlib.new(algorithm, BODY).hexdigest() == hexdigest


def test_app_that_fails_in_mid_body_fails_for_the_client(origin, cache):
    def fail(number):
        if number == 2:
            raise RuntimeError("disk on fire")

    origin.before_chunk = fail
    response = call(CacheFilter(origin, cache=cache), URL)

    received = response.read_until(RuntimeError)

    assert received == BODY[:8192]
    (invalid,) = cache.driver.get_invalid_images()
    assert invalid["reason"] == "the app failed after 8192 bytes: RuntimeError: disk on fire"
    assert origin.closed == 1


def test_app_that_fails_before_its_answer_fails_as_without_us(cache):
    def app(environ, start_response):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        call(CacheFilter(app, cache=cache), URL)


def test_client_that_leaves_during_a_fill_leaves_nothing_behind(origin, cache):
    app = CacheFilter(origin, cache=cache, on_abort="discard")
    response = call(app, URL)
    next(iter(response.body))
    response.close()
    response.close()

    assert origin.closed == 1
    assert not cache.is_being_cached("x")
    assert cache.driver.get_invalid_images()[0]["reason"] == (
        "the client left after 4096 of 16384 bytes"
    )
    assert call(app, URL).read() == BODY


def test_two_requests_for_one_image_share_its_fill(origin, cache):
    """Glance lets both write one file."""
    app = CacheFilter(origin, cache=cache)
    one = call(app, URL)
    next(iter(one.body))
    two = call(app, URL)

    assert two.header("Cache-Status") == "cachemw; fwd=uri-miss; collapsed"
    assert two.read() == BODY
    assert len(one.read()) == len(BODY) - 4096
    assert call(app, URL).read() == BODY
    assert origin.calls == 1
