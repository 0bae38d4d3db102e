"""Any sequence of requests for one image, which changes meanwhile: nothing is ever mixed."""

import random
import re
import tempfile

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cachemw import CacheFilter, ImageCache
from cachemw.drivers.base import CHUNK
from tests.ranged import RangedOrigin
from tests.wsgi import begin, get

PATH = "/disk.img"

#: Lengths of the versions, in turn: a new one may be longer or shorter.
SIZES = (4 * CHUNK + 77, 4 * CHUNK + 77, 2 * CHUNK, 4 * CHUNK + 78)

VERSIONS = [random.Random(number).randbytes(size) for number, size in enumerate(SIZES)]

#: Where ranges begin and end: mostly near the edges of chunks.
positions = st.builds(
    lambda chunk, offset: max(0, chunk * CHUNK + offset),
    st.integers(0, 4),
    st.sampled_from([-1000, -1, 0, 1, 1000, CHUNK // 2]),
)

ranges = st.one_of(
    st.builds(lambda a, b: f"bytes={min(a, b)}-{max(a, b)}", positions, positions),
    st.builds(lambda size: f"bytes=-{size}", positions),
    st.builds(lambda start: f"bytes={start}-", positions),
)

steps = st.one_of(
    st.tuples(st.just("range"), ranges),
    st.tuples(st.just("range"), ranges),
    st.tuples(st.just("if-range"), ranges),
    st.tuples(st.just("leave"), ranges, st.integers(0, 6)),
    st.tuples(st.just("change-meanwhile"), ranges, st.integers(0, 6)),
    st.tuples(st.sampled_from(["whole", "head", "change", "restart", "delete", "lie", "break"])),
)


class Play:
    """One origin, one directory, and filters one after the other."""

    def __init__(self, directory, mode, freshness):
        self.origin = RangedOrigin(VERSIONS[0])
        self.directory, self.mode, self.freshness = directory, mode, freshness
        self.version = 0
        self._known = {'"0"': VERSIONS[0]}
        self.change(0)
        self.app = self._start()

    def _start(self):
        cache = ImageCache(dir=self.directory, driver="sqlite", min_free=0, durability="none")
        return CacheFilter(
            self.app_or_origin,
            cache=cache,
            range_miss=self.mode,
            freshness=self.freshness,
            prefetch_workers=0,  # the directory goes as soon as the cache is closed
        )

    def app_or_origin(self, environ, start_response):
        return self.origin(environ, start_response)

    def change(self, step=1):
        self.version += step
        self.origin.body = VERSIONS[self.version % len(VERSIONS)]
        self.origin.etag = f'"{self.version}"'
        self._known[self.origin.etag] = self.origin.body

    def do(self, kind, value=None, count=0):
        event(kind)
        if kind == "change":
            self.change()
        elif kind == "restart":
            self.app.cache.close()
            self.app = self._start()
        elif kind == "delete":
            get(self.app, PATH, "DELETE")
        elif kind == "lie":
            self.origin.honest = not self.origin.honest
        elif kind == "break":
            self._break_off()
        elif kind in ("leave", "change-meanwhile"):
            self._stop_in_the_middle(kind, value, count)
        else:
            self._ask(kind, value)

    def _ask(self, kind, value):
        fields = {"Range": value} if value else {}
        if kind == "if-range":
            fields["If_Range"] = self.origin.etag
        tag = self.origin.etag
        reply = get(self.app, PATH, "HEAD" if kind == "head" else "GET", **fields)
        assert reply.error is None
        if self.freshness == "revalidate" and reply.status != 416:
            assert reply.get("ETag") == tag
        self._check(reply, kind == "head")

    def _break_off(self):
        def bend(asked, sent):
            del sent.chunks[2:]
            sent.chunks.append(RuntimeError("broken"))

        self.origin.bend = bend
        try:
            self._check(get(self.app, PATH), False)
        finally:
            self.origin.bend = lambda asked, sent: None

    def _stop_in_the_middle(self, kind, value, count):
        begun = begin(self.app, PATH, Range=value)
        try:
            for _ in range(count):
                begun.step()
        except StopIteration:
            pass
        if kind == "leave":
            close = getattr(begun._body, "close", None)
            if close is not None:
                close()
        else:
            self.change()
            self._check(begun.finish(), False)

    def _check(self, reply, is_head):
        """Every answer is, as far as it goes, of the version that it says it is of."""
        if reply.status == 416:
            sizes = {len(body) for body in self._known.values()}
            assert int(reply.get("Content-Range").removeprefix("bytes */")) in sizes
            return
        body = self._known[reply.get("ETag")]
        assert reply.status in (200, 206)
        start, stop = 0, len(body)
        if reply.status == 206:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.get("Content-Range"))
            start, stop = int(found[1]), int(found[2]) + 1
            assert int(found[3]) == len(body)
        assert reply.get("Content-Length") == str(stop - start)
        if is_head:
            return
        assert body[start:stop].startswith(reply.body)
        assert (len(reply.body) == stop - start) == (reply.error is None)


@pytest.mark.parametrize("mode", ["slice", "fill"])
@pytest.mark.parametrize("freshness", ["revalidate", "http"])
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(played=st.lists(steps, min_size=2, max_size=12))
def test_answers_are_of_one_version(mode, freshness, played):
    with tempfile.TemporaryDirectory() as directory:
        play = Play(directory, mode, freshness)
        try:
            for step in played:
                play.do(*step)
        finally:
            play.app.cache.close()
