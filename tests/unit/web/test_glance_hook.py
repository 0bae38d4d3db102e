"""What the Glance hook decides without Glance; the rest is in tests/functional/test_glance.py."""

import types

import pytest

from cachemw.drivers.base import Record
from cachemw.errors import ConfigError
from cachemw.web.hooks import glance

MD5 = "md5:" + "1" * 32
SHA256 = "sha256:" + "2" * 64
SHA512 = "sha512:" + "5" * 128


def image(checksum=None, os_hash_algo=None, os_hash_value=None):
    return types.SimpleNamespace(
        checksum=checksum, os_hash_algo=os_hash_algo, os_hash_value=os_hash_value
    )


def copy(checksum, size=10):
    return types.SimpleNamespace(size=size, record=Record("cat", size, checksum))


def promised(*checksums):
    values = dict(checksum.split(":") for checksum in checksums)
    algorithm = next((name for name in values if name != "md5"), None)
    return glance.promised(image(values.get("md5"), algorithm, values.get(algorithm)))


def test_strongest_checksum_of_a_record_comes_first():
    assert [str(checksum) for checksum in promised(MD5, SHA512)] == [SHA512, MD5]


def test_record_without_checksums_promises_none():
    assert glance.promised(image()) == []


def test_checksum_of_a_kind_that_we_do_not_compute_is_none():
    record = image("1" * 32, "blake2b", "a" * 128)

    assert [str(checksum) for checksum in glance.promised(record)] == [MD5]


@pytest.mark.parametrize("stored", [MD5, SHA512])
def test_copy_with_any_checksum_of_the_record_is_the_image(stored):
    assert glance.difference(copy(stored), 10, promised(MD5, SHA512)) is None


@pytest.mark.parametrize("stored", ["md5:" + "f" * 32, "sha512:" + "f" * 128])
def test_copy_with_another_checksum_is_not_the_image(stored):
    assert stored in glance.difference(copy(stored), 10, promised(MD5, SHA512))


def test_copy_of_another_size_is_not_the_image():
    assert "11 bytes" in glance.difference(copy(MD5, size=11), 10, promised(MD5))


@pytest.mark.parametrize("size", [0, None])
def test_size_that_glance_does_not_know_is_not_compared(size):
    assert glance.difference(copy(MD5), size, promised(MD5)) is None


def test_copy_that_cannot_be_compared_is_not_trusted():
    """Glance learned the checksum after the copy was stored."""
    assert glance.difference(copy(SHA256), 10, promised(MD5)) is not None


def test_image_without_checksums_is_known_by_its_size():
    assert glance.difference(copy(SHA256), 10, promised()) is None


def test_copy_without_a_record_is_known_by_its_size():
    """It came from another program, and is compared with Glance's answer elsewhere."""
    entry = types.SimpleNamespace(size=10, record=None)

    assert glance.difference(entry, 10, promised(MD5)) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "HEAD", "PATH_INFO": "/v2/images/cat/file"},
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/images/cat"},
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/v2/images/cat/file",
            "HTTP_CONTENT_RANGE": "bytes 0-1/10",
        },
    ],
    ids=["head", "v1", "content-range"],
)
def test_request_that_is_no_plain_download_is_for_glance(environ):
    assert glance.authorize(environ, "cat", copy(MD5)) is False


def test_filter_in_the_wrong_place_of_the_pipeline_is_told_where_it_belongs():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v2/images/cat/file"}

    with pytest.raises(ConfigError, match="to the right of 'context'"):
        glance.authorize(environ, "cat", copy(MD5))
    with pytest.raises(ConfigError, match="to the right of 'context'"):
        glance.expected(environ, "cat")
