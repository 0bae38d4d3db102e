"""ImageCache, as other people's code uses it, over every driver."""

import errno
import hashlib
import io
import logging
import os
import time

import pytest

from cachemw import ImageCache
from cachemw.drivers import _xattrs
from cachemw.drivers.base import Record
from cachemw.errors import (
    BadDriverConfiguration,
    ChecksumMismatch,
    ConfigError,
    ImageCorrupt,
    ImageNotFound,
)

BODY = bytes(range(256)) * 64  # 16 KiB
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def make_cache(driver_name, tmp_path):
    opened = []

    def make(**options):
        given = {"dir": tmp_path / "cache", "driver": driver_name, "min_free": 0, **options}
        cache = ImageCache(**given)
        opened.append(cache)
        return cache

    yield make
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(make_cache):
    return make_cache()


def chunks(body=BODY, size=1000):
    for start in range(0, len(body), size):
        yield body[start : start + size]


def read(cache, image_id):
    with cache.open_for_read(image_id) as entry:
        return entry.read()


def invalid(cache):
    return {image["image_id"]: image["reason"] for image in cache.driver.get_invalid_images()}


# Caching


def test_an_image_is_cached_from_an_iterator(cache):
    assert cache.cache_image_iter("cat", chunks(), MD5) is True

    assert cache.is_cached("cat")
    assert not cache.is_being_cached("cat")
    assert not cache.is_cacheable("cat")
    assert read(cache, "cat") == BODY
    assert cache.get_image_size("cat") == cache.get_cache_size() == len(BODY)


def test_an_image_is_cached_from_a_file(cache):
    assert cache.cache_image_file("cat", io.BytesIO(BODY)) is True
    assert read(cache, "cat") == BODY


def test_an_image_that_is_cached_is_not_cached_again(cache):
    cache.cache_image_iter("cat", chunks())

    assert cache.cache_image_iter("cat", chunks(b"other")) is False
    assert cache.cache_image_file("cat", io.BytesIO(b"other")) is False
    other = chunks(b"other")
    assert cache.get_caching_iter("cat", None, other) is other
    assert read(cache, "cat") == BODY


@pytest.mark.parametrize(
    "checksum",
    [None, MD5, MD5.upper(), f"md5:{MD5}", SHA256, f"sha256:{SHA256}"]
    + [f"{name}:{hashlib.new(name, BODY).hexdigest()}" for name in ("sha1", "sha384", "sha512")],
)
def test_a_checksum_is_bare_hex_or_named(cache, checksum):
    assert cache.cache_image_iter("cat", chunks(), checksum) is True

    [image] = cache.get_cached_images()
    algorithm, _, digest = image["checksum"].partition(":")
    assert hashlib.new(algorithm, BODY).hexdigest() == digest
    assert algorithm == "sha256" or checksum is not None


@pytest.mark.parametrize("checksum", ["xyz", "md5:", "md5:00", "crc99:00000000", "0" * 33])
def test_a_malformed_checksum_is_named(cache, checksum):
    with pytest.raises(ValueError, match=checksum[:20]):
        cache.cache_tee_iter("cat", chunks(), checksum)
    with pytest.raises(ValueError, match=checksum[:20]):
        cache.cache_image_iter("cat", chunks(), checksum)
    assert cache.is_cacheable("cat")


@pytest.mark.parametrize("method", ["get_caching_iter", "cache_tee_iter"])
def test_a_teed_image_arrives_whole_and_is_cached(cache, method):
    if method == "get_caching_iter":
        teed = cache.get_caching_iter("cat", MD5, chunks())
    else:
        teed = cache.cache_tee_iter("cat", chunks(), MD5)
    assert cache.is_being_cached("cat")
    assert b"".join(teed) == BODY

    assert not cache.is_being_cached("cat")
    assert read(cache, "cat") == BODY


def test_the_source_is_read_as_the_image_is_and_closed_once(cache):
    closed = []

    class Source:
        def __iter__(self):
            return chunks()

        def close(self):
            closed.append(True)

    teed = cache.get_caching_iter("cat", MD5, Source())
    assert b"".join(teed) == BODY
    teed.close()
    teed.close()
    assert closed == [True]


def test_a_tee_that_is_left_half_way_caches_nothing(cache):
    teed = cache.get_caching_iter("cat", MD5, chunks())
    next(iter(teed))
    teed.close()

    assert cache.is_cacheable("cat")
    assert "the client left after" in invalid(cache)["cat"]


def test_a_source_that_fails_passes_its_error_on_and_caches_nothing(cache):
    def failing():
        yield BODY
        raise ConnectionResetError("the peer went away")

    for call in (
        lambda: list(cache.get_caching_iter("cat", None, failing())),
        lambda: cache.cache_image_iter("cat", failing()),
    ):
        with pytest.raises(ConnectionResetError, match="the peer went away"):
            call()
        assert cache.is_cacheable("cat")
        assert "the peer went away" in invalid(cache)["cat"]


@pytest.mark.parametrize("checksum", ["0" * 32, f"sha256:{'0' * 64}"])
def test_a_wrong_checksum_is_raised_before_the_end_and_kept_with_its_reason(cache, checksum):
    received = []
    with pytest.raises(ChecksumMismatch) as caught:
        received.extend(cache.get_caching_iter("cat", checksum, chunks()))

    assert len(b"".join(received)) < len(BODY)
    assert caught.value.image_id == "cat"
    assert not cache.is_cached("cat")
    assert cache.is_cacheable("cat")
    assert invalid(cache) == {"cat": caught.value.reason}
    assert (MD5 if len(checksum) == 32 else SHA256) in caught.value.reason
    with pytest.raises(ChecksumMismatch):
        cache.cache_image_iter("cat", chunks(), checksum)
    cache.clean()
    assert invalid(cache) == {}


def test_trouble_with_the_disk_stops_the_caching_and_not_the_image(cache, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        assert b"".join(cache.get_caching_iter("cat", MD5, chunks())) == BODY
        with pytest.raises(ChecksumMismatch):
            list(cache.get_caching_iter("cat", "0" * 32, chunks()))
    monkeypatch.undo()

    assert not cache.is_cached("cat")
    assert "no space left on device" in caplog.text
    assert cache.cache_image_iter("cat", chunks()) is True


def test_an_image_that_somebody_else_caches_passes_through(cache):
    first = cache.cache_tee_iter("cat", chunks(), MD5)
    second = cache.cache_tee_iter("cat", chunks(), MD5)

    assert b"".join(second) == BODY
    assert not cache.is_cached("cat")
    assert b"".join(first) == BODY
    assert cache.is_cached("cat")


def test_an_image_larger_than_allowed_passes_through(make_cache):
    cache = make_cache(max_size="8KiB")

    assert b"".join(cache.get_caching_iter("cat", MD5, chunks())) == BODY
    assert not cache.is_cached("cat")
    assert cache.cache_image_iter("cat", chunks()) is False
    assert cache.cache_image_iter("small", chunks(b"x" * 4096)) is True


# Ids


@pytest.mark.parametrize("image_id", [7, -7, "7", "a/b", "../x", "queue", "\ud800", "x" * 2000])
def test_every_method_takes_the_same_ids(cache, image_id):
    as_text = str(image_id)

    assert cache.is_cacheable(image_id)
    assert cache.queue_image(image_id)
    assert cache.is_queued(image_id)
    assert cache.get_queued_images() == [as_text]
    assert cache.cache_image_iter(image_id, chunks(), MD5)
    assert not cache.is_queued(image_id)
    assert cache.is_cached(image_id)
    assert cache.is_cached(as_text)
    assert read(cache, image_id) == BODY
    assert cache.get_hit_count(image_id) == cache.get_hit_count(as_text) == 1
    assert cache.get_image_size(image_id) == len(BODY)
    assert [image["image_id"] for image in cache.get_cached_images()] == [as_text]
    assert cache.delete_cached_image(image_id)
    assert cache.queue_image(image_id)
    assert cache.delete_queued_image(image_id)


@pytest.mark.parametrize("image_id", ["", "x" * 2001, None, True, b"cat", 1.5])
def test_what_is_no_id_is_a_value_error_everywhere(cache, image_id):
    def enter():
        with cache.open_for_read(image_id):
            pass

    for call in (
        enter,
        lambda: cache.is_cached(image_id),
        lambda: cache.is_being_cached(image_id),
        lambda: cache.is_cacheable(image_id),
        lambda: cache.is_queued(image_id),
        lambda: cache.get_hit_count(image_id),
        lambda: cache.get_image_size(image_id),
        lambda: cache.get_caching_iter(image_id, None, []),
        lambda: cache.cache_tee_iter(image_id, [], None),
        lambda: cache.cache_image_iter(image_id, []),
        lambda: cache.cache_image_file(image_id, io.BytesIO()),
        lambda: cache.queue_image(image_id),
        lambda: cache.delete_cached_image(image_id),
        lambda: cache.delete_queued_image(image_id),
    ):
        with pytest.raises(ValueError, match="image id"):
            call()


# Reading


def test_reading_counts_a_hit_unless_it_fails(cache):
    cache.cache_image_iter("cat", chunks())
    read(cache, "cat")
    with pytest.raises(ZeroDivisionError), cache.open_for_read("cat"):
        raise ZeroDivisionError
    with cache.open_for_read("cat") as entry:
        assert (entry.image_id, entry.size) == ("cat", len(BODY))

    assert cache.get_hit_count("cat") == 2
    assert cache.get_hit_count("dog") == 0


def test_what_is_not_cached_cannot_be_read(cache):
    with pytest.raises(ImageNotFound, match="cat"), cache.open_for_read("cat"):
        pass
    with pytest.raises(ImageNotFound, match="cat"):
        cache.get_image_size("cat")


def test_a_damaged_image_leaves_the_cache(cache):
    cache.cache_image_iter("cat", chunks())
    os.truncate(cache.driver.get_image_filepath("cat"), 5)

    with pytest.raises(ImageCorrupt), cache.open_for_read("cat"):
        pass
    assert not cache.is_cached("cat")
    assert cache.is_cacheable("cat")
    assert invalid(cache) == {"cat": f"5 bytes long instead of {len(BODY)}"}


@pytest.mark.parametrize("verify_reads", ["size", "first", "always"])
def test_flipped_bits_are_found_by_verifying(make_cache, verify_reads):
    cache = make_cache(verify_reads=verify_reads)
    cache.cache_image_iter("cat", chunks())
    path = cache.driver.get_image_filepath("cat")
    with cache.entries.lookup("cat"):
        status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    found = {"size": True, "first": True, "always": False}[verify_reads]
    entry = cache.entries.lookup("cat")
    assert (entry is not None) is found
    if entry is None:
        assert "do not match" in invalid(cache)["cat"]
    else:
        entry.close()


def test_listings_are_dicts_sorted_by_id(cache):
    before = time.time() - 1
    for image_id in ("cat", "a/b", "Zebra", 10, 9):
        cache.cache_image_iter(image_id, [str(image_id).encode()])
    read(cache, "cat")

    images = cache.get_cached_images()
    assert [image["image_id"] for image in images] == ["10", "9", "Zebra", "a/b", "cat"]
    assert [image["hits"] for image in images] == [0, 0, 0, 0, 1]
    for image in images:
        assert image["size"] == len(image["image_id"])
        assert image["checksum"].startswith("sha256:")
        assert before < image["last_modified"] <= time.time()
        assert before < image["last_accessed"] <= time.time()


# Removing


def test_deleting(cache):
    for image_id in ("cat", "dog", "emu"):
        cache.cache_image_iter(image_id, chunks())

    assert cache.delete_cached_image("cat") is True
    assert cache.delete_cached_image("cat") is False
    assert cache.delete_all_cached_images() == 2
    assert cache.delete_all_cached_images() == 0
    assert cache.get_cached_images() == []
    assert cache.get_cache_size() == 0


def test_pruning_to_given_bytes_removes_the_least_recently_read(cache):
    for image_id in ("ant", "bee", "cat", "dog"):
        cache.cache_image_iter(image_id, [b"x" * 1000])
    for image_id in ("bee", "ant", "dog"):
        read(cache, image_id)

    assert cache.prune() == (0, 0)
    assert cache.prune(2500) == (2, 2000)
    assert [image["image_id"] for image in cache.get_cached_images()] == ["ant", "dog"]
    assert cache.prune(max_size=0) == (2, 2000)
    assert cache.prune(0) == (0, 0)


def test_pruning_to_the_option(make_cache):
    large = make_cache()
    for number in range(10):
        large.cache_image_iter(number, [b"x" * 1000])
    cache = make_cache(max_size="5KiB")

    assert cache.prune() == (5, 5000)
    assert cache.get_cache_size() == 5000


def test_the_bound_holds_without_pruning(make_cache):
    cache = make_cache(max_size="5KiB")
    for number in range(20):
        assert cache.cache_image_iter(number, [b"x" * 1000]) is True
        assert cache.driver.get_usage() <= 5120
    assert cache.is_cached(19)
    assert not cache.is_cached(0)


def test_cleaning(make_cache):
    cache = make_cache(stall_time="1h")
    with pytest.raises(ChecksumMismatch):
        cache.cache_image_iter("wrong", chunks(), "0" * 32)
    sink = cache.driver.start_fill("dead")
    os.close(sink.fd)
    sink.fd = -1

    assert cache.clean() == 1
    assert invalid(cache) == {}
    assert cache.clean() == 0
    assert cache.clean(stall_time=0) == 1
    assert cache.clean(0) == 0


# Queue


def test_the_queue_keeps_its_order(cache):
    for image_id in ("cat", "ant", 5):
        assert cache.queue_image(image_id) is True
    assert cache.queue_image("cat") is False
    cache.cache_image_iter("dog", chunks())
    assert cache.queue_image("dog") is False
    fill = cache.cache_tee_iter("emu", chunks(), None)
    assert cache.queue_image("emu") is False
    fill.close()

    assert cache.get_queued_images() == ["cat", "ant", "5"]
    assert cache.is_queued(5)
    assert cache.delete_queued_image("ant") is True
    assert cache.delete_queued_image("ant") is False
    cache.cache_image_iter("cat", chunks())
    assert cache.get_queued_images() == ["5"]
    assert cache.delete_all_queued_images() == 1
    assert cache.delete_all_queued_images() == 0


# Opening


def test_a_cache_opens_again_as_it_was(make_cache):
    cache = make_cache()
    cache.cache_image_iter("cat", chunks(), MD5)
    read(cache, "cat")
    cache.queue_image("dog")
    cache.close()

    cache = make_cache()
    assert read(cache, "cat") == BODY
    assert cache.get_hit_count("cat") == 2
    assert cache.get_queued_images() == ["dog"]


def test_the_driver_is_the_one_that_was_asked_for(cache, driver_name):
    assert cache.driver.name == driver_name


def test_a_driver_that_cannot_work_is_replaced_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(_xattrs, "_set", refuse)
    with caplog.at_level(logging.WARNING):
        cache = ImageCache(dir=tmp_path / "cache", driver="xattr", min_free=0)
    with caplog.at_level(logging.WARNING):
        assert cache.cache_image_iter("cat", chunks()) is True
    cache.close()

    assert cache.driver.name == "sqlite"
    [warning] = [record.getMessage() for record in caplog.records if "using" in record.getMessage()]
    assert "'xattr'" in warning
    assert str(tmp_path / "cache") in warning
    assert "no extended attributes" in warning
    assert "using sqlite in its place" in warning


def test_an_unknown_driver_is_replaced_with_a_warning_that_names_the_others(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        cache = ImageCache(dir=tmp_path / "cache", driver="xatr", min_free=0)
    cache.close()

    assert cache.driver.name == "sqlite"
    assert "'xatr'" in caplog.text
    assert "sqlite, xattr" in caplog.text.replace("segments, ", "")


def test_without_a_fallback_a_driver_that_cannot_work_stops_the_start(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(_xattrs, "_set", refuse)
    for driver, reason, mend in (
        ("xattr", "no extended attributes", "set driver = sqlite"),
        ("xatr", "no such driver", "expected one of"),
    ):
        with pytest.raises(BadDriverConfiguration) as caught:
            ImageCache(dir=tmp_path / "cache", driver=driver, driver_fallback="no")
        assert caught.value.driver == driver
        assert caught.value.directory == str(tmp_path / "cache")
        assert reason in caught.value.reason
        assert mend in caught.value.mend
        for part in (driver, str(tmp_path / "cache"), caught.value.reason, caught.value.mend):
            assert part in str(caught.value)


def test_a_directory_that_cannot_be_used_stops_the_start_whatever_the_fallback(
    tmp_path, driver_name
):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadDriverConfiguration) as caught:
        ImageCache(dir=tmp_path / "file" / "cache", driver=driver_name)

    assert str(tmp_path / "file" / "cache") in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_stops_the_start(tmp_path, driver_name):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(BadDriverConfiguration, match=r"[Pp]ermission denied"):
        ImageCache(dir=tmp_path / "closed" / "cache", driver=driver_name)


def test_options_are_checked(tmp_path):
    for options, message in (
        ({}, "'dir' is missing"),
        ({"dir": tmp_path, "max_sise": 1}, "did you mean 'max_size'"),
        ({"dir": tmp_path, "max_size": "lots"}, "'max_size' has the value 'lots'"),
    ):
        with pytest.raises(ConfigError, match=message):
            ImageCache(**options)


def test_what_is_there_in_parts_is_listed_as_such(make_cache):
    cache = make_cache()
    sink = cache.driver.start_fill("cat")
    sink.announce(Record("cat", 0, "", headers=(("ETag", '"one"'),)), 10)
    sink.write(b"half ")
    sink.leave()
    sink.close()

    (partial,) = cache.get_partial_images()
    assert (partial["image_id"], partial["size"], partial["length"]) == ("cat", 5, 10)
    assert cache.get_cached_images() == []
    assert not cache.is_cached("cat")
    assert not cache.is_being_cached("cat")
