"""Answers whose fill was lost, and an app that is no help then.

One client asks first, and its answer stands still or breaks off. Another reads
along, and goes on elsewhere. What the app says to that is the test's.
"""

import base64
import contextlib
import hashlib
import threading

import pytest

from cachemw import CacheFilter
from cachemw.core import fill as fill_module
from cachemw.errors import ChecksumMismatch
from tests.waiting import PATIENCE, wait_until
from tests.wsgi import begin, get

PATH = "/cat"
BODY = bytes(number % 251 for number in range(100_000))
PIECE = 10_000

#: Bytes of the first answer that come at once.
FIRST = 50_000

TAG = ("ETag", '"one"')
LENGTH = ("Content-Length", str(len(BODY)))
DIGEST = (
    "Repr-Digest",
    f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:",
)


def pieces(body):
    return [body[start : start + PIECE] for start in range(0, len(body), PIECE)]


class App:
    """Answers the first request in part, and the others as it is told.

    :param first: bytes of the first answer that come at once.
    :ivar then: status, fields and chunks for each request after the first; an exception among
        the chunks is raised. The last one is for all that follow.
    """

    def __init__(self, *fields, first=FIRST):
        self.fields, self.first = fields, first
        self.then = [("200 OK", [TAG, *fields], pieces(BODY))]
        self.asked = []
        self.opened = self.closed = self.read_whole = 0
        self.stands, self.go = threading.Event(), threading.Event()
        self.fails = False
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self._lock:
            number = len(self.asked)
            self.asked.append(environ.get("HTTP_RANGE"))
            self.opened += 1
        if number == 0:
            status, fields, chunks = "200 OK", [TAG, *self.fields], self._first()
        else:
            status, fields, chunks = self.then[min(number, len(self.then)) - 1]
        common = [("Content-Type", "image/png"), ("Cache-Control", "max-age=600")]
        start_response(status, [*common, *fields])
        return Body(self, chunks)

    def _first(self):
        yield from pieces(BODY[: self.first])
        self.stands.set()
        assert self.go.wait(PATIENCE)
        if self.fails:
            raise OSError("reset")
        yield from pieces(BODY[self.first :])


class Body:
    def __init__(self, app, chunks):
        self._app, self._chunks = app, iter(chunks)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._app.read_whole += 1
            raise
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self):
        with self._app._lock:
            self._app.closed += 1


class Play:
    """A leader on a thread of its own, which has read what came of the first answer."""

    def __init__(self, stack, directory, app, **options):
        self.app = app
        self.cached = CacheFilter(app, dir=directory, min_free=0, **options)
        stack.callback(self.cached.cache.close)
        self._leader = threading.Thread(target=get, args=(self.cached, PATH), daemon=True)
        stack.callback(self._finish)
        self._leader.start()
        assert app.stands.wait(PATIENCE)

    def _finish(self):
        self.app.go.set()
        self._leader.join(PATIENCE)
        assert not self._leader.is_alive()
        wait_until(lambda: self.app.opened == self.app.closed, "every answer is closed")

    def follow(self, size=0, **fields):
        """Have a follower read so many bytes."""
        begun = begin(self.cached, PATH, **fields)
        received = 0
        while received < size:
            received += len(begun.step())
        return begun

    def break_off(self):
        self.app.fails = True
        self.app.go.set()


@pytest.fixture
def play(tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda app, **options: Play(stack, tmp_path, app, **options)


def test_image_that_is_shorter_the_second_time_is_not_complete(play):
    """Nobody said how long it is, and the tag is the same."""
    app = App()
    app.then = [("200 OK", [TAG], pieces(BODY[:30_000]))]
    played = play(app)
    follower = played.follow(40_000)
    played.break_off()

    reply = follower.finish()

    assert reply.error is not None
    assert reply.body == BODY[:40_000]


def test_answer_that_is_shorter_than_it_says_is_not_complete(play):
    app = App()
    app.then = [("200 OK", [TAG, LENGTH], pieces(BODY[:70_000]))]
    reply = play(app, follow_timeout=0.2).follow(40_000).finish()

    assert reply.error is not None
    assert reply.body == BODY[:70_000]


def test_part_that_is_longer_than_it_says_is_not_passed_on(play):
    app = App()
    whole = ("Content-Range", f"bytes 39999-{len(BODY) - 1}/{len(BODY)}")
    app.then = [("206 Partial Content", [TAG, whole], [BODY[39_999:] + b"more"])]
    reply = play(app, follow_timeout=0.2).follow(40_000).finish()

    assert reply.error is not None
    assert BODY.startswith(reply.body)


@pytest.mark.parametrize("then", [[], [LENGTH]], ids=["no-length", "length"])
@pytest.mark.parametrize(
    ("fields", "request_fields"),
    [
        ([], {}),
        ([], {"Range": "bytes=0-9"}),
        ([LENGTH], {"Range": "bytes=0-9", "If_Range": '"another"'}),
    ],
    ids=["whole", "range-of-unknown-length", "range-of-another-version"],
)
def test_whoever_gets_the_whole_gets_its_end_only_if_it_is_right(
    play, fields, request_fields, then
):
    app = App(DIGEST, *fields)
    wrong = BODY[:70_000] + b"X" * 30_000
    app.then = [("200 OK", [TAG, DIGEST, *then], pieces(wrong))]
    reply = play(app, follow_timeout=0.2).follow(**request_fields).finish()

    assert reply.status == 200
    assert isinstance(reply.error, ChecksumMismatch)
    assert wrong.startswith(reply.body)
    assert len(reply.body) < len(wrong)


@pytest.mark.parametrize("fields", [[LENGTH], []], ids=["length", "unknown"])
@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (("503 Busy", [], [b"no"]), 1),
        (("200 OK", [("ETag", '"two"')], [b"new"]), 1),
        (("200 OK", [TAG], [BODY[:5000], OSError("again")]), 2),
    ],
    ids=["busy", "replaced", "breaks-off"],
)
def test_app_that_is_no_help_is_not_asked_again_and_again(play, fields, answer, most):
    app = App(*fields)
    app.then = [answer]
    played = play(app)
    followers = [played.follow(40_000) for _ in range(5)]
    played.break_off()

    replies = in_threads([follower.finish for follower in followers])

    for reply in replies:
        assert reply.error is not None
        assert BODY.startswith(reply.body)
    assert len(app.asked) - 1 <= most * len(followers)


def test_who_has_nothing_yet_of_what_was_replaced_reads_the_new_one_together(play, monkeypatch):
    new = BODY[::-1]
    app = App(first=0)
    app.then = [("200 OK", [("ETag", '"two"')], pieces(new))]
    played = play(app)
    joined = []
    join = played.cached.cache.sharing.join

    def joining(*args, **options):
        joined.append(found := join(*args, **options))
        return found

    monkeypatch.setattr(played.cached.cache.sharing, "join", joining)

    def let_go():
        wait_until(lambda: len(joined) >= 5, "all of them wait")
        played.break_off()

    *replies, _ = in_threads([*[lambda: get(played.cached, PATH)] * 5, let_go])

    for reply in replies:
        assert (reply.error, reply.get("ETag"), reply.body) == (None, '"two"', new)
    assert app.read_whole == 1


def in_threads(calls):
    results = [None] * len(calls)

    def run(number, call):
        results[number] = call()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return results


def test_one_client_does_not_have_all_of_it_sent_again_and_again(play):
    """Each time it breaks off a little further on, and each time it begins at the beginning."""
    app = App(LENGTH, DIGEST)
    app.then = [
        ("200 OK", [TAG, LENGTH, DIGEST], [BODY[: FIRST + 1000 * number], OSError("reset")])
        for number in range(1, 40)
    ]
    reply = play(app, follow_timeout=0.2).follow().finish()

    assert reply.error is not None
    assert BODY.startswith(reply.body)
    assert len(app.asked) == 1 + 3


def test_answer_is_closed_where_keeping_it_fails(play, monkeypatch):
    """:class:`Play` looks that every answer was closed."""
    app = App()
    played = play(app)
    follower = played.follow(40_000)

    def fail(*args):
        monkeypatch.undo()
        raise RuntimeError("no place")

    monkeypatch.setattr(played.cached.cache.entries, "place_for", fail)
    played.break_off()

    assert follower.finish().body == BODY


def test_large_image_that_is_being_stored_is_stored_before_the_cache_is_closed(
    tmp_path, monkeypatch
):
    """Also while its reader has not left yet."""
    monkeypatch.setattr(fill_module, "_LARGE", 1)
    app = App(LENGTH)
    app.go.set()
    cached = CacheFilter(app, dir=tmp_path, min_free=0)
    commit = fill_module.Fill._commit

    def late(fill, checksum):
        wait_until(lambda: closing.is_set(), "the cache is being closed")
        commit(fill, checksum)

    closing = threading.Event()
    monkeypatch.setattr(fill_module.Fill, "_commit", late)
    stop = fill_module.Fill.stop

    def stopped(fill):
        ends = stop(fill)
        closing.set()
        return ends

    monkeypatch.setattr(fill_module.Fill, "stop", stopped)
    begun = begin(cached, PATH)
    for _ in pieces(BODY):
        begun.step()

    cached.cache.close()

    assert begun.finish().body == BODY
    again = CacheFilter(app, dir=tmp_path, min_free=0)
    assert get(again, PATH).cache == "hit"
    again.cache.close()
