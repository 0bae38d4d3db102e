"""Images kept in memory: who changes the cache, in any process, is seen at the next request."""

import hashlib
import os
from wsgiref.validate import validator

import pytest
import webtest

from cachemw import CacheFilter, ImageCache
from cachemw.core import hot
from cachemw.drivers import _memory
from cachemw.drivers.base import MemoryEntry
from tests.fakes import FakeOrigin

BODY = b"a small image"
OTHER = b"other bytes!!"  # as many


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """Let every file have come to rest long ago."""
    now = _memory.time.time_ns
    monkeypatch.setattr(_memory.time, "time_ns", lambda: now() + 10**10)


@pytest.fixture
def make_cache(driver_name, tmp_path):
    opened = []

    def make(**options):
        given = {"dir": tmp_path / "cache", "driver": driver_name, "min_free": 0, **options}
        opened.append(ImageCache(**given))
        return opened[-1]

    yield make
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(make_cache):
    return make_cache()


@pytest.fixture
def other(make_cache):
    """Another process's view of the same directory."""
    return make_cache()


def look_up(cache, image_id="cat"):
    """The bytes that an answer would have, and whether they were in memory."""
    entry = cache.entries.lookup(image_id)
    if entry is None:
        return None
    try:
        return entry.pread(entry.size, 0), isinstance(entry, MemoryEntry)
    finally:
        entry.close()


def heat(cache, image_id="cat", body=BODY):
    cache.cache_image_iter(image_id, [body])
    look_up(cache, image_id)
    look_up(cache, image_id)
    assert look_up(cache, image_id) == (body, True)


def test_image_that_is_asked_for_again_is_answered_from_memory(cache):
    heat(cache)


def test_hits_from_memory_are_counted(cache):
    heat(cache)
    before = cache.get_hit_count("cat")
    for _ in range(3):
        entry = cache.entries.lookup("cat")
        assert isinstance(entry, MemoryEntry)
        cache.entries.count_hit(entry)
        entry.close()
        entry.close()
    cache.driver.flush_hits()

    assert cache.get_hit_count("cat") == before + 3


def test_deletion_by_another_process_is_seen_at_once(cache, other):
    heat(cache)
    other.delete_cached_image("cat")

    assert look_up(cache) is None


def test_replacement_by_another_process_is_seen_at_once(cache, other):
    heat(cache)
    other.delete_cached_image("cat")
    other.cache_image_iter("cat", [OTHER])

    assert look_up(cache)[0] == OTHER


def test_replacement_in_one_step_is_seen_at_once(cache, other):
    heat(cache)
    with other.driver.open_for_write("cat") as sink:
        sink.write(OTHER)

    assert look_up(cache)[0] == OTHER


def test_eviction_by_another_process_is_seen_at_once(cache, other):
    heat(cache)
    other.prune(0)

    assert look_up(cache) is None


def test_damaged_entry_that_was_taken_away_is_not_answered(cache, other):
    heat(cache)
    other.driver.invalidate("cat", "it was found damaged")

    assert look_up(cache) is None


def test_large_image_is_not_kept_in_memory(cache):
    cache.cache_image_iter("large", [bytes(hot.MOST_IMAGE_SIZE + 1)])
    for _ in range(4):
        assert look_up(cache, "large")[1] is False


def test_memory_is_bounded(make_cache):
    cache = make_cache(memory_size="64KiB")
    bodies = {f"image-{number}": bytes([number]) * 4096 for number in range(40)}
    for image_id, body in bodies.items():
        heat(cache, image_id, body)
        assert cache.entries._hot._size <= 64 * 1024

    for image_id, body in bodies.items():
        assert look_up(cache, image_id)[0] == body
    kept = [image_id for image_id in sorted(bodies) if (image_id, 0) in cache.entries._hot._images]
    assert 0 < len(kept) <= 8
    assert [(image_id, 0) for image_id in kept] == sorted(cache.entries._hot._round)


def test_image_that_is_asked_for_again_outlives_those_that_are_not(make_cache):
    cache = make_cache(memory_size="64KiB")
    heat(cache, "often")
    for number in range(40):
        image_id = f"image-{number}"
        cache.cache_image_iter(image_id, [bytes(4096)])
        assert look_up(cache, image_id) == look_up(cache, image_id) == (bytes(4096), False)
        assert look_up(cache, "often") == (BODY, True)


@pytest.mark.parametrize("options", [{"memory_size": 0}, {"verify_reads": "always"}])
def test_nothing_is_kept_where_that_is_asked_for(make_cache, options):
    cache = make_cache(**options)
    cache.cache_image_iter("cat", [BODY])
    for _ in range(4):
        assert look_up(cache) == (BODY, False)


def test_image_that_was_just_stored_is_read_from_its_file(cache, monkeypatch):
    """Two files made within one tick of the clock could look the same."""
    monkeypatch.undo()
    cache.cache_image_iter("cat", [BODY])
    for _ in range(4):
        assert look_up(cache) == (BODY, False)


def test_symbolic_link_in_place_of_a_hot_image_is_not_followed(cache, tmp_path):
    heat(cache)
    path = cache.driver.get_image_filepath("cat")
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)

    assert look_up(cache) is None


def test_hit_from_memory_is_the_image(cache):
    heat(cache)
    entry = cache.entries.lookup("cat")

    assert hashlib.sha256(entry.data).hexdigest() == entry.record.checksum.removeprefix("sha256:")
    assert entry.pread(5, 2) == BODY[2:7]
    assert list(entry) == list(entry) == [BODY]
    assert len(entry) == 1


def test_whole_partial_and_conditional_answers_come_from_memory(cache):
    """RFC 9110, sections 13.1.2, 14.2 and 15.3.7."""
    app = validator(CacheFilter(validator(FakeOrigin({"/cat": BODY})), cache=cache))
    client = webtest.TestApp(app)
    for _ in range(4):
        whole = client.get("/cat")
    ((image_id, _),) = cache.entries._hot._images
    assert image_id.endswith("/cat")

    assert whole.body == BODY
    assert client.head("/cat").headers["Content-Length"] == str(len(BODY))
    part = client.get("/cat", headers={"Range": "bytes=2-6"}, status=206)
    assert part.body == BODY[2:7]
    parts = client.get("/cat", headers={"Range": "bytes=0-0,-1"}, status=206)
    assert b"\r\n\r\na\r\n" in parts.body
    client.get("/cat", headers={"If-None-Match": whole.headers["ETag"]}, status=304)


def test_memory_is_bounded_with_what_is_known_of_the_images(make_cache):
    cache = make_cache(memory_size="1MiB")
    origin = FakeOrigin({f"/{number}": BODY for number in range(60)})
    origin.headers.append(("X-Long", "x" * 50_000))
    client = webtest.TestApp(CacheFilter(origin, cache=cache))
    for _ in range(4):
        for path in origin.images:
            assert client.get(path).body == BODY

    images = cache.entries._hot._images.values()
    assert 0 < sum(len(value) for hot in images for _, value in hot.record.headers) <= 2**20
