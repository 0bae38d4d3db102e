"""What is stale, or not wanted as it is: the app is asked, over every driver."""

import threading

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.drivers import _memory

from .test_filter import call
from .versions import NEW, OLD, URL, Clock, VersionedOrigin, client_of, status_of

MODIFIED = "Fri, 20 Nov 2026 10:00:00 GMT"
HIT = "cachemw; hit"
HELD = "cachemw; fwd=stale; fwd-status=304"
STORED = "cachemw; fwd=stale; stored"
LATER = 100  # seconds, more than the origin's max-age


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def origin():
    return VersionedOrigin()


@pytest.fixture(params=["disk", "memory"])
def cache(request, driver_name, tmp_path, monkeypatch):
    """A cache whose answers come from the disk, and one that soon has the image in memory."""
    if request.param == "memory":
        now = _memory.time.time_ns
        monkeypatch.setattr(_memory.time, "time_ns", lambda: now() + 10**10)
    size = 0 if request.param == "disk" else "1MiB"
    cache = ImageCache(
        dir=tmp_path / "cache", driver=driver_name, driver_fallback=False, memory_size=size
    )
    yield cache
    cache.close()


@pytest.fixture
def client(origin, cache, clock):
    return client_of(origin, cache)


def warm(client):
    """Have the image stored, and in memory where there is one."""
    for _ in range(4):
        assert client.get(URL).body == OLD


# 304


def test_image_that_has_not_changed_is_not_sent_again(client, origin, clock):
    """RFC 9111, section 4.3.3."""
    warm(client)
    clock.tick(LATER)

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == HELD
    assert int(response.headers["Age"]) < 5
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]
    assert origin.closed == origin.opened == 2


def test_304_makes_it_fresh_again(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    client.get(URL)

    clock.tick(50)
    assert status_of(client.get(URL)) == HIT
    assert origin.calls == 2
    clock.tick(50)
    assert status_of(client.get(URL)) == HELD


def test_304_makes_it_fresh_as_long_as_the_304_says(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.control = "max-age=1000"
    client.get(URL)

    clock.tick(900)
    hit = client.get(URL)

    assert status_of(hit) == HIT
    assert hit.headers["Cache-Control"] == "max-age=1000"
    assert 900 <= int(hit.headers["Age"]) < 910


def test_304_that_was_under_way_for_long_counts_from_when_it_was_made(client, origin, clock):
    """RFC 9111, section 4.2.3."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("Age", "50")]
    client.get(URL)

    clock.tick(20)
    assert status_of(client.get(URL)) == HELD


def test_fields_of_a_304_take_the_place_of_the_stored_ones(client, origin, clock):
    """RFC 9111, section 3.2: also in the hits after it."""
    origin.fields = [("X-Kept", "1"), ("X-Changed", "1"), ("X-Changed", "2")]
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-Changed", "3"), ("X-New", "4")]

    for response in (client.get(URL), client.get(URL), client.get(URL)):
        assert response.body == OLD
        assert response.headers["X-Kept"] == "1"
        assert response.headers.getall("X-Changed") == ["3"]
        assert response.headers["X-New"] == "4"


def test_fields_that_the_bytes_depend_on_stay(client, origin, clock):
    """RFC 9111, section 3.2."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [
        ("Content-Length", "0"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-0/1"),
        ("Set-Cookie", "a=b"),
    ]

    for response in (client.get(URL), client.get(URL)):
        assert response.body == OLD
        assert response.headers["Content-Length"] == str(len(OLD))
        assert "Content-Encoding" not in response.headers
        assert "Content-Range" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_what_a_304_renewed_is_seen_by_other_processes(
    client, origin, cache, clock, driver_name, tmp_path
):
    warm(client)
    other = ImageCache(dir=tmp_path / "cache", driver=driver_name)
    other_client = client_of(origin, other)
    for _ in range(3):
        assert other_client.get(URL).body == OLD
    clock.tick(LATER)
    origin.fields_304 = [("X-New", "4")]

    client.get(URL)
    hit = other_client.get(URL)

    assert status_of(hit) == HIT
    assert hit.headers["X-New"] == "4"
    other.close()


def test_app_is_asked_with_both_of_its_own_validators(client, origin, clock):
    """RFC 9111, section 4.3.1."""
    origin.modified = MODIFIED
    warm(client)
    clock.tick(LATER)

    client.get(URL)

    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"', "IF_MODIFIED_SINCE": MODIFIED}


def test_last_modified_alone_will_do(client, origin, clock):
    origin.tag, origin.modified = None, MODIFIED
    origin.control = "max-age=60"
    warm(client)
    clock.tick(LATER)

    assert status_of(client.get(URL)) == HELD
    assert origin.asked[-1] == {"IF_MODIFIED_SINCE": MODIFIED}


def test_conditions_of_the_client_do_not_reach_the_app(client, origin, clock):
    """They are about the client's copy; ours has to be asked about."""
    warm(client)
    clock.tick(LATER)

    response = client.get(
        URL,
        headers={
            "If-None-Match": '"hers"',
            "If-Modified-Since": MODIFIED,
            "If-Range": '"old"',
            "Range": "bytes=0-9",
        },
        status=206,
    )

    assert response.body == OLD[:10]
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}


# 200


def test_same_image_sent_once_more_is_not_read(client, origin, clock):
    """An app that does not look at conditions: as good as a 304."""
    origin.is_conditional = False
    warm(client)
    clock.tick(LATER)
    read = origin.chunks_read

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert origin.chunks_read == read
    assert origin.closed == origin.opened == 2
    assert status_of(client.get(URL)) == HIT


@pytest.mark.parametrize("change", ["tag", "weak", "length", "coding"])
def test_what_is_not_certainly_the_same_is_read(client, origin, clock, change):
    origin.is_conditional = False
    if change == "weak":
        origin.tag = 'W/"old"'
    warm(client)
    clock.tick(LATER)
    body = NEW[:-1] if change == "length" else NEW
    origin.body = body
    if change == "tag":
        origin.tag = '"new"'
    elif change == "coding":
        origin.fields = [("Content-Encoding", "identity")]

    assert client.get(URL).body == body
    assert client.get(URL).body == body


def test_changed_image_takes_the_place_of_the_old(client, origin, cache, clock):
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert response.headers["ETag"] == '"new"'
    hit = client.get(URL)
    assert (status_of(hit), hit.body, hit.headers["ETag"]) == (HIT, NEW, '"new"')
    assert cache.get_cache_size() == len(NEW)
    assert origin.closed == origin.opened == 2


def test_who_reads_the_old_one_gets_all_of_it(origin, cache, clock):
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    readers = [call(app, URL) for _ in range(3)]
    begun = [next(iter(reader.body)) for reader in readers]
    clock.tick(LATER)
    origin.change()

    assert call(app, URL).read() == NEW
    assert call(app, URL).read() == NEW

    for start, reader in zip(begun, readers, strict=True):
        # A body of one block starts again where it is iterated again.
        rest = reader.read()
        assert rest == OLD or start + rest == OLD


def test_new_image_that_fails_half_way_leaves_the_old_one(origin, cache, clock):
    origin.control = "max-age=60, stale-if-error=1000"
    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    clock.tick(LATER)
    origin.change()

    def fail(number):
        if number == 2:
            raise RuntimeError("disk on fire")

    origin.before_chunk = fail
    call(app, URL).read_until(RuntimeError)
    origin.status = "503 No"

    assert call(app, URL).read() == OLD


# Requests that want it fresher


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=0"},
        {"Cache-Control": "max-age=30"},
        {"Cache-Control": "min-fresh=30"},
        {"Pragma": "no-cache"},
    ],
)
def test_client_may_have_a_fresh_one_asked_about(client, origin, clock, headers):
    """RFC 9111, sections 5.2.1 and 5.4."""
    warm(client)
    clock.tick(40)

    response = client.get(URL, headers=headers)

    assert response.body == OLD
    assert status_of(response) == "cachemw; fwd=request; fwd-status=304"
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}


def test_client_may_have_a_stale_one(client, origin, clock):
    """RFC 9111, section 5.2.1.2."""
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"Cache-Control": "max-stale=50"})

    assert status_of(response) == HIT
    assert origin.calls == 1


def test_what_has_no_validator_is_fetched_anew(client, origin, clock):
    origin.tag = None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW

    response = client.get(URL)

    assert (status_of(response), response.body) == (STORED, NEW)
    assert origin.asked[-1] == {}
    assert (status_of(client.get(URL)), client.get(URL).body) == (HIT, NEW)


def test_only_if_cached(client, origin, clock):
    """RFC 9111, section 5.2.1.7."""
    headers = {"Cache-Control": "only-if-cached"}
    assert client.get(URL, headers=headers, status=504).headers["Cache-Status"] == (
        "cachemw; detail=only-if-cached"
    )
    warm(client)
    assert status_of(client.get(URL, headers=headers)) == HIT
    clock.tick(LATER)
    client.get(URL, headers=headers, status=504)
    client.head(URL, headers=headers, status=504)
    stale = client.get(URL, headers={"Cache-Control": "only-if-cached, max-stale"})

    assert (status_of(stale), stale.body) == (HIT, OLD)
    assert origin.calls == 1


def test_no_cache_is_stored_and_asked_about_each_time(client, origin):
    """RFC 9111, section 5.2.2.4."""
    origin.control = "no-cache"
    assert status_of(client.get(URL)) == "cachemw; fwd=uri-miss; stored"

    for _ in range(3):
        response = client.get(URL)
        assert (status_of(response), response.body) == (HELD, OLD)
    assert origin.asked == [{}, *[{"IF_NONE_MATCH": '"old"'}] * 3]


def test_no_cache_without_a_validator_is_not_stored(client, origin):
    origin.control, origin.tag = "no-cache", None

    assert status_of(client.get(URL)) == "cachemw; fwd=uri-miss; detail=not-fresh"


# Errors


def fail(environ):
    raise RuntimeError("no database")


def break_down(origin, how):
    if how == "raises":
        origin.before = fail
    else:
        origin.status = how


FAILURES = ["raises", "500 Oh", "502 Oh", "503 Oh", "504 Oh"]


@pytest.mark.parametrize("tag", ['"old"', None])
@pytest.mark.parametrize("how", FAILURES)
def test_stale_is_better_than_an_error_where_the_answer_says_so(client, origin, clock, how, tag):
    """RFC 5861, section 4."""
    origin.control, origin.tag = "max-age=60, stale-if-error=100", tag
    warm(client)
    clock.tick(LATER)
    break_down(origin, how)

    response = client.get(URL)

    assert response.body == OLD
    status = "" if how == "raises" else f" fwd-status={how[:3]};"
    assert status_of(response) == f"cachemw; fwd=stale;{status} detail=stale-if-error"
    assert 100 <= int(response.headers["Age"]) < 110
    assert origin.closed == origin.opened
    clock.tick(LATER)  # beyond the grace
    if how == "raises":
        with pytest.raises(RuntimeError):
            client.get(URL)
    else:
        assert client.get(URL, status=int(how[:3])).body == b"sorry"
    assert origin.closed == origin.opened


@pytest.mark.parametrize("how", FAILURES)
def test_stale_is_better_than_an_error_where_the_request_says_so(client, origin, clock, how):
    warm(client)
    clock.tick(LATER)
    break_down(origin, how)

    response = client.get(URL, headers={"Cache-Control": "stale-if-error=100"})

    assert response.body == OLD
    assert status_of(response).endswith("detail=stale-if-error")


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize(
    "forbid", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"]
)
def test_stale_is_never_served_where_the_answer_forbids_it(client, origin, clock, how, forbid):
    """RFC 9111, section 4.2.4."""
    origin.control = f"max-age=60, stale-if-error=1000, stale-while-revalidate=1000, {forbid}"
    client.get(URL)
    clock.tick(LATER)
    break_down(origin, how)
    headers = {"Cache-Control": "stale-if-error=1000, max-stale=1000"}

    if how == "raises":
        with pytest.raises(RuntimeError):
            client.get(URL, headers=headers)
    else:
        response = client.get(URL, headers=headers, status=int(how[:3]))
        assert status_of(response) == f"cachemw; fwd=stale; fwd-status={how[:3]}; detail=status"
    assert origin.closed == origin.opened


@pytest.mark.parametrize("status", ["403 Forbidden", "503 Oh", "429 Slow Down", "302 Found"])
def test_other_answers_pass_and_the_copy_stays(client, origin, clock, status):
    warm(client)
    clock.tick(LATER)
    origin.status = status

    response = client.get(URL, status=int(status[:3]))

    assert response.body == b"sorry"
    assert status_of(response) == f"cachemw; fwd=stale; fwd-status={status[:3]}; detail=status"
    origin.status = None
    assert status_of(client.get(URL)) == HELD


@pytest.mark.parametrize("tag", ['"old"', None])
@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_gone_is_dropped(client, origin, cache, clock, status, tag):
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.status = status

    assert client.get(URL, status=int(status[:3])).body == b"sorry"
    assert cache.get_cached_images() == []


# Stale while it is asked about


class Gate:
    """Holds the app until the test lets it go on."""

    def __init__(self, origin):
        self.asked, self.go = threading.Event(), threading.Event()
        origin.before = self

    def __call__(self, environ):
        self.asked.set()
        assert self.go.wait(30)


def wait_for_refresh():
    for thread in threading.enumerate():
        if thread.name == "cachemw-refresh":
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def swr(client, origin, clock):
    """A copy that is stale, and may be served while the app is asked."""
    origin.control = "max-age=60, stale-while-revalidate=600"
    warm(client)
    clock.tick(LATER)
    return client


def test_stale_answers_at_once_and_the_app_is_asked_once_meanwhile(swr, origin, clock):
    """RFC 5861, section 3."""
    gate = Gate(origin)
    origin.change()

    for _ in range(5):
        response = swr.get(URL)
        assert response.body == OLD
        assert status_of(response) == "cachemw; hit; detail=stale-while-revalidate"
        assert int(response.headers["Age"]) >= LATER
    assert gate.asked.wait(30)
    assert origin.calls == 2
    gate.go.set()
    wait_for_refresh()

    response = swr.get(URL)
    assert (status_of(response), response.body) == (HIT, NEW)
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]
    assert origin.closed == origin.opened == 2


def test_304_in_the_background_makes_it_fresh(swr, origin):
    origin.fields_304 = [("X-New", "1")]
    swr.get(URL, headers={"If-None-Match": '"hers"', "Range": "bytes=0-9"}, status=206)
    wait_for_refresh()

    response = swr.get(URL)
    assert (status_of(response), response.body) == (HIT, OLD)
    assert response.headers["X-New"] == "1"
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}]


def test_head_has_it_asked_about_as_a_get(swr, origin):
    origin.change()
    swr.head(URL)
    wait_for_refresh()

    assert origin.requests[-1] == ("GET", URL)
    assert swr.get(URL).body == NEW
    assert origin.calls == 2


def test_without_a_validator_it_is_fetched_in_the_background(client, origin, clock):
    origin.control, origin.tag = "max-age=60, stale-while-revalidate=600", None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    assert client.get(URL).body == OLD
    wait_for_refresh()

    assert (client.get(URL).body, origin.calls) == (NEW, 2)


@pytest.mark.parametrize("how", FAILURES)
def test_failure_in_the_background_leaves_the_copy(swr, origin, how):
    break_down(origin, how)
    swr.get(URL)
    wait_for_refresh()
    origin.before, origin.status = lambda environ: None, None

    assert swr.get(URL).body == OLD
    wait_for_refresh()
    assert status_of(swr.get(URL)) == HIT
    assert origin.calls == 3
    assert origin.closed == origin.opened


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_found_to_be_gone_in_the_background_is_dropped(swr, origin, cache, status):
    origin.status = status
    assert swr.get(URL).body == OLD
    wait_for_refresh()

    assert cache.get_cached_images() == []
    assert origin.closed == origin.opened


def test_304_about_another_image_in_the_background_fetches_it(swr, origin):
    origin.change()
    lie_once(origin)
    conditions = {"If-Match": '"old"', "Range": "bytes=0-9"}
    assert swr.get(URL, headers=conditions, status=206).body == OLD[:10]
    wait_for_refresh()

    assert origin.asked[-1] == {}

    assert (swr.get(URL).body, origin.calls) == (NEW, 3)


def test_app_that_writes_its_body_in_the_background_is_not_stored(origin, cache, clock):
    """What went through the callable is not in the body: half an image."""
    origin.control = "max-age=60, stale-while-revalidate=600"

    def app(environ, start_response):
        if origin.calls == 0:
            return origin(environ, start_response)
        origin.requests.append(("GET", URL))
        write = start_response(
            "200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=9")]
        )
        write(NEW[:10])
        return [NEW[10:]]

    client = client_of(app, cache)
    client.get(URL)
    clock.tick(LATER)
    client.get(URL)
    wait_for_refresh()

    assert client.get(URL).body == OLD
    wait_for_refresh()


def test_beyond_its_grace_it_is_asked_about_first(swr, clock):
    clock.tick(600)

    assert status_of(swr.get(URL)) == HELD


# Answers that take back what an earlier one allowed


@pytest.mark.parametrize(
    "field",
    [
        ("Cache-Control", "private"),
        ("Cache-Control", "no-store"),
        ("Vary", "*"),
        ("Vary", "Cookie"),
    ],
)
def test_304_that_forbids_storing_has_the_copy_dropped(client, origin, cache, clock, field):
    warm(client)
    clock.tick(LATER)
    origin.control = ""
    origin.fields_304 = [field]

    response = client.get(URL)

    assert response.body == OLD
    assert status_of(response) == HELD
    assert cache.get_cached_images() == []
    assert cache.get_cache_size() == 0


@pytest.mark.parametrize("tag", ['"old"', None])
def test_new_image_that_must_not_be_stored_has_the_copy_dropped(client, origin, cache, clock, tag):
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.body, origin.tag = NEW, tag and '"new"'
    origin.control = "no-store"

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200; detail=no-store"
    assert cache.get_cached_images() == []


def test_client_that_wants_nothing_stored_does_not_take_the_copy_from_others(
    client, origin, cache, clock
):
    """RFC 9111, section 5.2.1.5: nothing of this answer is kept; what was kept before is."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-New", "1")]

    response = client.get(URL, headers={"Cache-Control": "no-store"})

    assert (response.body, status_of(response)) == (OLD, HELD)
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (stale.body, status_of(stale)) == (OLD, HIT)
    assert "X-New" not in stale.headers


def test_304_to_someone_does_not_renew_what_is_for_all(client, origin, clock):
    """RFC 9111, section 3.5."""
    warm(client)
    clock.tick(LATER)
    origin.fields_304 = [("X-Hello", "Ann")]

    response = client.get(URL, headers={"Authorization": "Basic YW5uOmE="})

    assert (response.body, status_of(response)) == (OLD, HELD)
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (stale.body, status_of(stale)) == (OLD, HIT)
    assert "X-Hello" not in stale.headers


def test_304_to_someone_renews_it_where_it_says_that_it_is_for_all(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.control = "public, max-age=60"
    client.get(URL, headers={"Authorization": "Basic YW5uOmE="})

    assert status_of(client.get(URL)) == HIT


# 304 about something else


def lie_once(origin):
    """Let the app's next answer be a 304 about another image than it was asked about."""
    own = origin._is_known

    def is_known(environ):
        origin._is_known = own
        return True

    origin._is_known = is_known


def test_304_about_another_image_is_asked_again_for_all_of_it(client, origin, clock):
    """RFC 9111, section 4.3.4."""
    warm(client)
    clock.tick(LATER)
    origin.change()
    lie_once(origin)

    response = client.get(URL)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert origin.asked == [{}, {"IF_NONE_MATCH": '"old"'}, {}]
    assert origin.closed == origin.opened == 3


def test_304_that_nobody_asked_for_is_not_about_what_is_stored(client, origin, clock):
    """Without a validator of ours nothing was asked that a 304 could answer."""
    origin.tag = None
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    lie_once(origin)

    assert client.get(URL).body == NEW


# HEAD, ranges and conditions of the client


def test_head_of_a_stale_copy(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.head(URL)

    assert status_of(response) == HELD
    assert response.headers["Content-Length"] == str(len(OLD))
    assert origin.requests[-1] == ("HEAD", URL)
    assert status_of(client.get(URL)) == HIT


def test_head_of_a_stale_copy_of_an_image_that_changed(client, origin, clock):
    """RFC 9111, section 4.3.5."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.head(URL)

    assert response.headers["ETag"] == '"new"'
    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200; detail=head"
    assert client.get(URL).body == NEW


def test_head_without_a_validator_leaves_the_copy(client, origin, clock):
    origin.tag = None
    warm(client)
    clock.tick(LATER)

    assert status_of(client.head(URL)) == "cachemw; fwd=stale; fwd-status=200; detail=head"
    stale = client.get(URL, headers={"Cache-Control": "max-stale"})
    assert (status_of(stale), stale.body) == (HIT, OLD)


def test_range_of_a_stale_copy(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"Range": "bytes=5-9"}, status=206)

    assert response.body == OLD[5:10]
    assert status_of(response) == HELD


@pytest.mark.parametrize("tag", ['"old"', None])
def test_range_of_an_image_that_changed_gives_the_whole(client, origin, clock, tag):
    """RFC 9110, section 14.2: Range may be ignored. The whole is stored."""
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.body = NEW
    origin.tag = tag and '"new"'

    response = client.get(URL, headers={"Range": "bytes=5-9"}, status=200)

    assert response.body == NEW
    assert status_of(response) == STORED
    assert "RANGE" not in origin.asked[-1]
    assert client.get(URL, headers={"Range": "bytes=5-9"}, status=206).body == NEW[5:10]


def test_client_with_the_stored_tag_gets_a_304_once_it_is_known_to_hold(client, origin, clock):
    warm(client)
    clock.tick(LATER)

    response = client.get(URL, headers={"If-None-Match": '"old"'}, status=304)

    assert status_of(response) == HELD
    assert response.headers["ETag"] == '"old"'


def test_client_with_the_new_tag_gets_a_304(client, origin, clock):
    """RFC 9110, section 13.1.2: the new answer is what its condition is about."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL, headers={"If-None-Match": '"new"'}, status=304)

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert response.headers["ETag"] == '"new"'
    assert response.body == b""
    assert origin.asked[-1] == {"IF_NONE_MATCH": '"old"'}
    assert origin.closed == origin.opened == 2
    assert client.get(URL).body == NEW


def test_client_with_the_old_tag_gets_the_new_image(client, origin, clock):
    warm(client)
    clock.tick(LATER)
    origin.change()

    assert client.get(URL, headers={"If-None-Match": '"old"'}).body == NEW


def test_client_that_wants_only_the_old_one_is_told_that_it_changed(client, origin, clock):
    """RFC 9110, section 13.1.1."""
    warm(client)
    clock.tick(LATER)
    origin.change()

    response = client.get(URL, headers={"If-Match": '"old"'}, status=412)

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=200"
    assert origin.closed == origin.opened == 2


# What is around


def test_environ_goes_back_as_it_came(origin, cache, clock):
    """What is in front of the filter may look at the request after it."""
    conditions = {
        "HTTP_IF_NONE_MATCH": '"hers"',
        "HTTP_IF_MODIFIED_SINCE": MODIFIED,
        "HTTP_RANGE": "bytes=0-9",
        "HTTP_IF_RANGE": '"old"',
    }
    seen = []

    def outer(environ, start_response):
        environ.update(conditions)
        before = dict(environ)
        body = CacheFilter(origin, cache=cache)(environ, start_response)
        assert {**environ, "left": 0} == {**before, "left": 0}
        seen.append(environ.pop("left", None))
        return body

    call(CacheFilter(origin, cache=cache), URL).read()
    clock.tick(LATER)
    origin.before = lambda environ: environ.__setitem__("left", 1)
    assert call(outer, URL).read() == OLD[:10]
    clock.tick(LATER)
    origin.change()
    assert call(outer, URL).read() == NEW
    clock.tick(LATER)
    origin.before = fail
    with pytest.raises(RuntimeError):
        call(outer, URL)

    assert seen == [1, 1]


def test_hits_are_counted_for_every_answer_from_the_copy(client, origin, cache, clock):
    client.get(URL)
    clock.tick(LATER)
    client.get(URL)  # 304
    client.get(URL)
    client.head(URL)

    assert cache.get_hit_count(cache.get_cached_images()[0]["image_id"]) == 3


def test_trouble_with_the_record_is_not_the_clients(client, origin, cache, clock, monkeypatch):
    warm(client)
    clock.tick(LATER)

    def broken(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("cachemw.drivers._records.write", broken)

    for _ in range(2):
        response = client.get(URL)
        assert (response.body, status_of(response)) == (OLD, HELD)


def test_app_that_threads_must_not_call_is_asked_before_the_answer(swr, origin):
    """PEP 3333: ``wsgi.multithread``; the background is another thread."""
    response = swr.get(URL, extra_environ={"wsgi.multithread": False})

    assert status_of(response) == "cachemw; fwd=stale; fwd-status=304"


def test_renewal_by_a_forwarded_request_leaves_the_copy_to_the_others(client, origin):
    client.get(URL)
    client.get(URL, headers={"X-Forwarded-Host": "evil", "Cache-Control": "no-cache"})

    assert status_of(client.get(URL)) == HIT


def test_outdated_copy_is_no_hit_once_the_app_sent_another(client, origin):
    """Also if this client has the new one already, and gets a 304."""
    client.get(URL)
    origin.change()
    headers = {"Cache-Control": "no-cache", "If-None-Match": origin.tag}
    client.get(URL, headers=headers, status=304)

    assert client.get(URL).body == NEW
