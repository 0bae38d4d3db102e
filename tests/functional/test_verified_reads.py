"""``verify_reads = always``: what is sent was checked, and damage is never sent."""

import os
import tracemalloc
from pathlib import Path

import pytest
import webtest

from cachemw import CacheFilter, ImageCache, concurrency
from cachemw.core.verified import VerifiedEntry
from cachemw.drivers.base import CHUNK
from cachemw.errors import ImageCorrupt
from cachemw.web.apps.images import ImagesApp
from cachemw.web.respond import BLOCK
from tests.crash.origin import call
from tests.fakes import FakeOrigin
from tests.servers import in_waitress

#: Whole blocks, and a chunk that is not whole.
BODY = os.urandom(3 * BLOCK + 1000)

FIRST, MIDDLE, LAST = 5, BLOCK + CHUNK + 7, len(BODY) - 1

STORED = "fwd=uri-miss; stored"


@pytest.fixture
def origin():
    return FakeOrigin({"/cat": BODY}, chunk=2**18)


@pytest.fixture
def make_cache(driver_name, tmp_path):
    opened = []

    def make(**options):
        options = {
            "dir": tmp_path / "cache",
            "driver": driver_name,
            "driver_fallback": False,
            "min_free": 0,
            "verify_reads": "always",
            **options,
        }
        opened.append(ImageCache(**options))
        return opened[-1]

    yield make
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(make_cache):
    return make_cache()


@pytest.fixture
def app(origin, cache):
    return CacheFilter(origin, cache=cache)


def ask(app, method="GET", **fields):
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/cat", "HTTP_HOST": "test"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in fields.items()}
    environ["wsgi.file_wrapper"] = not_asked
    return call(app, {**webtest.TestRequest.blank("/cat").environ, **environ})


def not_asked(*arguments):
    raise AssertionError("the file was handed to the server")


def stored(app):
    """Store the image. :return: its file."""
    assert ask(app).cache_status == STORED
    return stored_path(app.cache)


def stored_path(cache):
    (image,) = cache.get_cached_images()
    return Path(cache.driver.get_image_filepath(image["image_id"]))


def flip(path, at):
    """As a disk does it: the file's times do not tell."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def assert_is_miss(answer):
    """What the origin gave came, which knows no ranges."""
    assert answer.cache_status.startswith("fwd=uri-miss")
    assert (answer.status, answer.body, answer.error) == ("200 OK", BODY, None)


def assert_mended(app, origin):
    """The origin was asked once more; the image is stored now, or at the next whole request."""
    assert origin.calls == 2
    ask(app)
    answer = ask(app)
    assert (answer.cache_status, answer.body, answer.error) == ("hit", BODY, None)
    (bad,) = app.cache.driver.get_invalid_images()
    assert "do not match their checksum" in bad["reason"]


def assert_ended_early(app, answer, right):
    """Nothing damaged came, and all that is right before the block with the damage."""
    assert answer.cache_status == "hit"
    assert isinstance(answer.error, ImageCorrupt)
    assert right.startswith(answer.body)
    assert app.cache.get_cached_images() == []
    again = ask(app)
    assert (again.cache_status, again.body, again.error) == (STORED, BODY, None)


def test_hits_are_the_image_and_are_counted(app, origin):
    stored(app)
    for _ in range(3):
        answer = ask(app)
        assert (answer.cache_status, answer.body, answer.error) == ("hit", BODY, None)

    (image,) = app.cache.get_cached_images()
    assert (origin.calls, image["hits"]) == (1, 3)


def test_damage_in_the_first_block_is_a_miss(app, origin):
    flip(stored(app), FIRST)

    answer = ask(app)

    assert (answer.cache_status, answer.body, answer.error) == (STORED, BODY, None)
    (image,) = app.cache.get_cached_images()
    assert image["hits"] == 0
    assert_mended(app, origin)


@pytest.mark.parametrize("at", [MIDDLE, LAST])
def test_later_damage_ends_the_answer_before_it(app, origin, at):
    flip(stored(app), at)

    answer = ask(app)

    assert len(answer.body) == at - at % BLOCK
    assert_ended_early(app, answer, BODY)


@pytest.mark.parametrize("at", [MIDDLE, LAST])
@pytest.mark.parametrize("ranged", [False, True], ids=["whole", "range"])
def test_where_the_app_has_the_version_the_rest_comes_from_there(cache, tmp_path, at, ranged):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat").write_bytes(BODY)
    asked = []

    def origin(environ, start_response):
        asked.append((environ.get("HTTP_RANGE"), "HTTP_IF_RANGE" in environ))
        return images(environ, start_response)

    images = ImagesApp(str(tmp_path / "images"))
    app = CacheFilter(origin, cache=cache)
    flip(stored(app), at)

    answer = ask(app, range="bytes=1000-") if ranged else ask(app)

    assert (answer.cache_status, answer.error) == ("hit", None)
    assert answer.body == (BODY[1000:] if ranged else BODY)
    assert asked[1:] == [(f"bytes={at - at % BLOCK}-", True)]
    assert app.cache.get_cached_images() == []
    assert ask(app).cache_status == STORED


def test_the_rest_of_another_version_is_not_taken(cache, origin):
    origin.headers.append(("ETag", '"one"'))
    app = CacheFilter(origin, cache=cache)
    flip(stored(app), MIDDLE)
    origin.images["/cat"] = b"x" * len(BODY)
    origin.headers[-1] = ("ETag", '"two"')

    answer = ask(app)

    assert isinstance(answer.error, ImageCorrupt)
    assert BODY.startswith(answer.body)
    assert origin.opened == origin.closed


def test_app_without_ranges_is_read_up_to_the_damage(cache, origin):
    origin.headers.append(("ETag", '"one"'))
    app = CacheFilter(origin, cache=cache)
    flip(stored(app), MIDDLE)

    answer = ask(app)

    assert (answer.cache_status, answer.body, answer.error) == ("hit", BODY, None)
    assert origin.opened == origin.closed == 2


def test_damage_that_comes_during_the_answer_is_not_sent(app):
    path = stored(app)
    chunks = app(webtest.TestRequest.blank("/cat", base_url="http://test").environ, ignore)
    first = next(iter(chunks))
    flip(path, MIDDLE)

    with pytest.raises(ImageCorrupt):
        next(iter(chunks))
    assert first == BODY[:BLOCK]
    chunks.close()


def ignore(status, headers, exc_info=None):
    pass


@pytest.mark.parametrize(
    ("start", "stop"), [(0, BLOCK), (CHUNK + 1, BLOCK + 3), (BLOCK + 2 * CHUNK, len(BODY))]
)
def test_range_beside_the_damage_is_a_hit(app, start, stop):
    """Neither chunks before it nor behind it keep anybody from what is right."""
    path = stored(app)
    flip(path, MIDDLE)

    answer = ask(app, range=f"bytes={start}-{stop - 1}")

    assert (answer.status, answer.cache_status) == ("206 Partial Content", "hit")
    assert (answer.body, answer.error) == (BODY[start:stop], None)
    assert path.exists()


@pytest.mark.parametrize(("start", "stop"), [(MIDDLE, MIDDLE + 1), (MIDDLE - CHUNK, len(BODY))])
def test_range_that_begins_with_damage_is_a_miss(app, origin, start, stop):
    flip(stored(app), MIDDLE)

    answer = ask(app, range=f"bytes={start}-{stop - 1}")

    assert_is_miss(answer)
    assert_mended(app, origin)


def test_range_with_damage_further_on_ends_before_it(app):
    flip(stored(app), MIDDLE)

    answer = ask(app, range="bytes=1000-")

    assert answer.status == "206 Partial Content"
    assert len(answer.body) == BLOCK - 1000
    assert_ended_early(app, answer, BODY[1000:])


def test_parts_with_damage_in_the_first_are_a_miss(app, origin):
    flip(stored(app), MIDDLE)

    answer = ask(app, range=f"bytes={MIDDLE}-{MIDDLE + 9},0-9")

    assert_is_miss(answer)
    assert_mended(app, origin)


def test_parts_with_damage_in_the_second_end_before_it(app):
    flip(stored(app), MIDDLE)

    answer = ask(app, range=f"bytes=10-19,{MIDDLE}-{MIDDLE + 9}")

    assert answer.status == "206 Partial Content"
    assert isinstance(answer.error, ImageCorrupt)
    assert BODY[10:20] in answer.body
    assert answer.body.endswith(b"\r\n\r\n")
    assert ask(app).cache_status == STORED


def test_parts_beside_the_damage_are_a_hit(app):
    flip(stored(app), MIDDLE)

    answer = ask(app, range=f"bytes=10-19,{len(BODY) - 5}-")

    assert (answer.cache_status, answer.error) == ("hit", None)
    assert BODY[10:20] in answer.body
    assert BODY[-5:] in answer.body


@pytest.mark.parametrize(
    ("status", "method", "fields"),
    [
        ("200 OK", "HEAD", {}),
        ("304 Not Modified", "GET", {"if_none_match": "*"}),
        ("412 Precondition Failed", "GET", {"if_match": '"other"'}),
        ("416 Range Not Satisfiable", "GET", {"range": f"bytes={len(BODY)}-"}),
    ],
)
def test_answer_without_bytes_reads_none(app, status, method, fields):
    path = stored(app)
    flip(path, FIRST)

    answer = ask(app, method, **fields)

    assert (answer.status, answer.cache_status, answer.body) == (status, "hit", b"")
    assert path.exists()


@pytest.mark.parametrize("at", [FIRST, MIDDLE, LAST])
def test_image_without_chunk_checksums_is_verified_whole(app, origin, monkeypatch, at):
    path = stored(app)
    flip(path, at)
    monkeypatch.setattr(app.cache.driver, "sums", lambda entry: None)

    answer = ask(app)

    assert (answer.cache_status, answer.body, answer.error) == (STORED, BODY, None)
    assert origin.calls == 2
    (bad,) = app.cache.driver.get_invalid_images()
    assert "its bytes do not match sha256:" in bad["reason"]


@pytest.mark.parametrize("verify_reads", ["size", "first"])
def test_only_always_checks_what_it_sends(make_cache, verify_reads):
    cache = make_cache(verify_reads=verify_reads)
    cache.cache_image_iter("cat", [BODY])
    with cache.entries.lookup("cat") as entry:
        assert not isinstance(entry, VerifiedEntry)
        assert entry.fileno() >= 0


def test_image_written_without_sync_before_this_boot_is_verified_whole(make_cache, monkeypatch):
    """Its checksums may have gone as its bytes may have."""
    cache = make_cache(durability="none")
    cache.cache_image_iter("cat", [BODY])
    with cache.entries.lookup("cat") as entry:
        assert isinstance(entry, VerifiedEntry)
    monkeypatch.setattr("cachemw.drivers.base.boot_id", lambda: "another")

    with cache.entries.lookup("cat") as entry:
        assert not isinstance(entry, VerifiedEntry)


class Validating(FakeOrigin):
    """An origin that is asked about its images, and says what ``answers`` has next."""

    def __init__(self):
        super().__init__({"/cat": BODY}, (("Cache-Control", "no-cache"), ("ETag", '"1"')), 2**18)
        self.answers = []

    def __call__(self, environ, start_response):
        if self.answers and "HTTP_IF_NONE_MATCH" in environ:
            self.requests.append(("ASKED", environ["PATH_INFO"]))
            start_response(self.answers.pop(0), [("ETag", '"1"')])
            return []
        return super().__call__(environ, start_response)


@pytest.mark.parametrize("answer", ["304 Not Modified", "503 Service Unavailable"])
def test_damage_found_after_the_app_was_asked_about_it_is_a_miss(cache, answer):
    """Whether the stored copy holds, or is only better than an error."""
    origin = Validating()
    origin.headers[0] = ("Cache-Control", "max-age=0, stale-if-error=1000")
    app = CacheFilter(origin, cache=cache)
    path = stored(app)
    origin.answers = [answer]
    right = ask(app)
    assert (right.status, right.body, right.error) == ("200 OK", BODY, None)
    flip(path, FIRST)
    origin.answers = [answer]

    mended = ask(app)

    assert (mended.cache_status, mended.body, mended.error) == (STORED, BODY, None)
    assert [method for method, _ in origin.requests] == ["GET", "ASKED", "ASKED", "GET"]
    assert origin.opened == origin.closed == 2


def test_renewed_record_is_kept(cache):
    """RFC 9111, section 4.3.4."""
    origin = Validating()
    app = CacheFilter(origin, cache=cache)
    stored(app)
    with cache.entries.lookup(cache.get_cached_images()[0]["image_id"]) as entry:
        before = entry.record.stored
    origin.answers = ["304 Not Modified"]
    assert ask(app).body == BODY

    with cache.entries.lookup(cache.get_cached_images()[0]["image_id"]) as entry:
        assert isinstance(entry, VerifiedEntry)
        assert entry.record.stored > before


def test_only_if_cached_gets_no_damage(app, origin):
    """RFC 9111, section 5.2.1.7."""
    flip(stored(app), FIRST)

    assert ask(app, cache_control="only-if-cached").status == "504 Gateway Timeout"
    assert origin.calls == 1


def test_client_sees_that_the_transfer_broke_off(app, caplog):
    path = stored(app)
    flip(path, LAST)
    with in_waitress(app) as server:
        reply = server.request("/cat")
        again = server.request("/cat")

    assert not reply.complete
    assert BODY.startswith(reply.body)
    assert (again.complete, again.body, again.cache_status) == (True, BODY, STORED)


def test_bytes_are_read_where_they_may_block(app, monkeypatch):
    """A hub's thread reads nothing, see ``cachemw.concurrency``."""
    stored(app)
    run, read, depth, outside = concurrency.run_blocking, VerifiedEntry.pread, [], []

    def spied(function, *arguments, **options):
        depth.append(function)
        try:
            return run(function, *arguments, **options)
        finally:
            depth.pop()

    def pread(self, size, position):
        if not depth:
            outside.append(position)
        return read(self, size, position)

    monkeypatch.setattr(concurrency, "run_blocking", spied)
    monkeypatch.setattr(VerifiedEntry, "pread", pread)

    assert ask(app).body == BODY
    assert ask(app, range="bytes=0-9,50-59").status == "206 Partial Content"
    assert outside == []


def test_memory_does_not_grow_with_the_image(make_cache):
    cache = make_cache()
    length = 64 * 2**20
    origin = FakeOrigin({"/cat": os.urandom(2**20) * 64}, chunk=2**20)
    app = CacheFilter(origin, cache=cache)
    stored(app)
    tracemalloc.start()
    chunks = app(webtest.TestRequest.blank("/cat", base_url="http://test").environ, ignore)
    try:
        size = sum(map(len, chunks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        chunks.close()

    assert (size, origin.calls) == (length, 1)
    assert peak < 4 * BLOCK
