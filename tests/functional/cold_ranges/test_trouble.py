"""Parts from apps that lie or break off, and several at once."""

import functools
import random
import re
import threading

import pytest

from cachemw.drivers._sink import FileSink
from cachemw.drivers.base import CHUNK
from cachemw.errors import DriverError
from tests.waiting import PATIENCE, wait_until
from tests.wsgi import begin, get

from .asking import BODY, IMAGE_ID, PATH, assert_part, assert_whole, partial, spell, want

# slice: apps that lie or break off


def shifted(asked, sent):
    """Another part than was asked for, honestly labelled."""
    if asked.range and asked.range.startswith("bytes=0-"):
        sent.chunks[:] = [BODY[1000:CHUNK]]
        relabel(sent, f"bytes 1000-{CHUNK - 1}/{len(BODY)}", CHUNK - 1000)


def relabel(sent, value, length=None):
    changed = {"content-range": value}
    if length is not None:
        changed["content-length"] = str(length)
    sent.fields[:] = [(name, changed.get(name.lower(), text)) for name, text in sent.fields]


def test_other_part_than_was_asked_for_is_not_passed_off_as_it(make, origin):
    origin.bend = shifted
    app = make()

    for _ in range(2):
        reply = want(app, "bytes=2000-2999")
        assert_part(reply, 2000, 3000)
    reply = want(app, "bytes=500-1499")
    assert (reply.status, reply.error) == (206, None)
    start, stop = map(int, re.findall(r"\d+", reply.get("Content-Range"))[:2])
    assert reply.body == BODY[start : stop + 1]


@pytest.mark.parametrize(
    "value",
    ["bytes 0-262143/*", "bytes 9-3/10", "bytes 0-262143", "bytes 0-99/100", "lines 0-3/9", ""],
)
def test_content_range_that_is_wrong(make, origin, value):
    """The app's own answer to the client's own range goes out, if ours has none that is right."""

    def bend(asked, sent):
        if asked.range == spell(0, CHUNK):
            relabel(sent, value)

    origin.bend = bend
    app = make()

    for _ in range(2):
        reply = want(app, "bytes=1000-1999")
        assert_part(reply, 1000, 2000)
    assert partial(app) == 0


def test_length_that_contradicts_the_part_is_no_part(make, origin):
    def bend(asked, sent):
        if asked.range == spell(0, CHUNK):
            relabel(sent, f"bytes 0-{CHUNK - 1}/{len(BODY)}", CHUNK - 1)

    origin.bend = bend

    assert_part(want(make(), "bytes=1000-1999"), 1000, 2000)


@pytest.mark.parametrize("fault", ["short", "long", "long-by-a-chunk", "raises"])
def test_part_that_breaks_off_is_not_completed(make, origin, fault):
    size = 3 * CHUNK

    def bend(asked, sent):
        if fault == "short":
            del sent.chunks[10:]
        elif fault == "long":
            sent.chunks[-1] += b"more"
        elif fault == "long-by-a-chunk":
            sent.chunks.append(b"more")
        else:
            sent.chunks[10:] = [RuntimeError("broken")]

    origin.bend = bend
    app = make()

    reply = want(app, spell(0, size))

    assert reply.error is not None
    assert len(reply.body) < size
    assert BODY.startswith(reply.body)
    assert partial(app) >= 2 * CHUNK
    origin.bend = lambda asked, sent: None
    assert want(app, spell(0, 2 * CHUNK)).cache == "hit; detail=partial"
    assert_part(want(app, spell(0, size)), 0, size)
    assert origin.asked[-1].if_range == '"one"'
    assert_whole(get(app, PATH))


def test_app_that_fails_at_once(make, origin):
    def bend(asked, sent):
        raise RuntimeError("broken")

    origin.bend = bend
    app = make()
    with pytest.raises(RuntimeError):
        want(app, "bytes=0-9")
    origin.closed += 1  # it never gave a body
    origin.bend = lambda asked, sent: None

    assert_part(want(app, "bytes=0-9"), 0, 10)


@pytest.mark.parametrize(
    "status", ["503 Service Unavailable", "403 Forbidden", "302 Found", "404 Not Found"]
)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("is_partial", [False, True])
def test_error_of_the_app_is_passed_on(make, origin, status, is_partial, whole):
    """What is kept stays, unless the image is gone."""
    app = make()
    if is_partial:
        want(app, "bytes=0-0")

    def bend(asked, sent):
        sent.status, sent.fields, sent.chunks = status, [("Content-Type", "text/plain")], [b"no"]

    origin.bend = bend

    reply = get(app, PATH) if whole else want(app, spell(CHUNK, CHUNK + 10))

    assert (reply.status, reply.body) == (int(status[:3]), b"no")
    assert (partial(app) > 0) == (is_partial and status[:3] != "404")


def test_client_that_leaves_in_mid_slice_leaves_what_was_whole(make, origin):
    app = make()
    begun = begin(app, PATH, Range=spell(0, 4 * CHUNK))
    for _ in range(2 * CHUNK // origin.chunk):
        begun.step()

    begun._body.close()

    assert partial(app) >= 2 * CHUNK
    assert want(app, spell(0, 2 * CHUNK)).cache == "hit; detail=partial"
    assert_part(want(app, spell(0, 4 * CHUNK)), 0, 4 * CHUNK)


@pytest.mark.parametrize("stop", [CHUNK, len(BODY)])
def test_app_whose_close_fails_spoils_nothing(make, origin, stop):
    class Failing:
        def __init__(self, body):
            self._body = body

        def __iter__(self):
            return iter(self._body)

        def close(self):
            self._body.close()
            raise RuntimeError("broken")

    app = make(app=lambda environ, start: Failing(origin(environ, start)))

    assert_part(want(app, spell(10, stop)), 10, stop)
    assert want(app, spell(10, stop)).cache == "hit; detail=partial"


def test_client_that_never_reads_leaves_nothing_held(make, origin):
    app = make()
    begin(app, PATH, Range=spell(0, CHUNK))._body.close()

    assert_part(want(app, spell(0, CHUNK)), 0, CHUNK)


# Several at once


def test_kept_part_is_held_by_nobody_while_it_is_read(make, origin):
    app = make()
    want(app, spell(0, 3 * CHUNK))
    reading = begin(app, PATH, Range=spell(0, 3 * CHUNK))
    reading.step()

    assert want(app, spell(4 * CHUNK, 4 * CHUNK + 1)).cache == "fwd=uri-miss; stored"

    assert_part(reading.finish(), 0, 3 * CHUNK)


@pytest.mark.parametrize("whole", [False, True])
def test_client_that_stops_reading_holds_nobody_up(make, origin, whole):
    """A player that is paused: the image is everybody's all the same."""
    app = make(follow_timeout=3 * PATIENCE)
    paused = begin(app, PATH, Range=spell(10, 5 * CHUNK))
    paused.step()

    replies = []
    ask = functools.partial(*((get, app, PATH) if whole else (want, app, spell(9, len(BODY)))))
    thread = threading.Thread(target=lambda: replies.append(ask()))
    thread.start()
    thread.join(PATIENCE)

    assert replies != []
    assert replies[0].cache == "fwd=uri-miss; stored"
    if whole:
        assert_whole(replies[0])
    else:
        assert_part(replies[0], 9, len(BODY))
    assert_part(paused.finish(), 10, 5 * CHUNK)
    assert origin.ranges_asked[0] == spell(0, 5 * CHUNK)


@pytest.mark.parametrize("fault", ["short", "raises"])
def test_long_part_that_breaks_off_goes_out_as_far_as_it_came(make, origin, fault):
    def bend(asked, sent):
        sent.chunks[18:] = [RuntimeError("broken")] if fault == "raises" else []

    origin.bend = bend
    app = make()

    reply = want(app, spell(10, len(BODY)))

    assert reply.error is not None
    assert reply.body == BODY[10 : 18 * origin.chunk]
    assert partial(app) == 18 * origin.chunk


def test_long_part_whose_client_leaves_is_left(make, origin):
    app = make()
    go_on = threading.Event()
    origin.before_chunk = lambda asked, number: number < 10 or go_on.wait(PATIENCE)
    begun = begin(app, PATH, Range=spell(0, len(BODY)))
    size = 0
    while size < 2 * CHUNK:
        size += len(begun.step())
    begun._body.close()
    go_on.set()

    wait_until(lambda: origin.closed == 1, "the answer is closed")
    assert 2 * CHUNK <= partial(app) < len(BODY)
    assert_part(want(app, spell(0, len(BODY))), 0, len(BODY))


@pytest.mark.parametrize("size", [CHUNK, len(BODY)])
def test_part_that_cannot_be_written_goes_out_all_the_same(make, origin, monkeypatch, size):
    app = make()
    written = []

    def write(self, data, position=None, real=FileSink.write):
        written.append(position)
        if len(written) > 2:
            raise DriverError(IMAGE_ID, "no space left on device")
        return real(self, data, position)

    monkeypatch.setattr(FileSink, "write", write)

    reply = want(app, spell(10, size))

    assert_part(reply, 10, size)
    assert len(written) == 3
    monkeypatch.undo()
    assert_whole(get(app, PATH))


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("second", ["slice", "overlapping", "whole"])
def test_second_request_while_a_part_comes(make, origin, where, second):
    """It waits for the part, and asks for the rest; or is answered beside it."""
    first = make()
    app = first if where == "same" else make()
    wanted = {"slice": (3 * CHUNK, 4 * CHUNK), "overlapping": (CHUNK, 3 * CHUNK)}.get(second)
    came, go_on = threading.Event(), threading.Event()

    def stop(asked, number):
        if asked.range == spell(0, 2 * CHUNK) and number == 2:
            came.set()
            assert go_on.wait(PATIENCE)

    origin.before_chunk = stop
    replies = {}
    threads = [
        threading.Thread(target=lambda: replies.update(first=want(first, spell(0, 2 * CHUNK)))),
        threading.Thread(
            target=lambda: replies.update(
                second=get(app, PATH) if wanted is None else want(app, spell(*wanted))
            )
        ),
    ]
    threads[0].start()
    assert came.wait(PATIENCE)
    threads[1].start()
    threads[1].join(0.3)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()

    assert_part(replies["first"], 0, 2 * CHUNK)
    assert len(origin.asked) == 2
    if wanted is None:
        assert_whole(replies["second"])
    else:
        assert_part(replies["second"], *wanted)
        # Not all the rest of the image, as whoever follows a fill would have it.
        missing = (max(wanted[0], 2 * CHUNK), wanted[1])
        assert origin.asked[1].range == spell(*missing)
    assert replies["second"].cache == "fwd=uri-miss; stored"
    assert_whole(get(app, PATH))


def test_many_ranges_at_once_are_all_right(make, origin):
    apps = [make(), make()]
    failed = []

    def ask(seed):
        chosen = random.Random(seed)
        for _ in range(8):
            start = chosen.randrange(len(BODY))
            stop = min(start + chosen.choice([1, 1000, CHUNK]), len(BODY))
            try:
                assert_part(want(chosen.choice(apps), spell(start, stop)), start, stop)
            except BaseException as exc:
                failed.append(exc)
                raise

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failed == []
    assert_whole(get(apps[0], PATH))


@pytest.mark.parametrize("is_far", [False, True])
def test_slice_while_the_whole_is_fetched(make, origin, is_far):
    """It is answered from the fill, or by the app if that is quicker."""
    origin.body = body = BODY * 14  # more than 16 MiB
    origin.chunk = CHUNK
    app = make()
    whole = begin(app, PATH)
    whole.step()
    start = len(body) - 1000 if is_far else CHUNK

    assert_part(want(app, spell(start, start + 10)), start, start + 10, body)

    assert_whole(whole.finish(), body)
    assert get(app, PATH).cache == "hit"
    assert len(origin.asked) == (2 if is_far else 1)
