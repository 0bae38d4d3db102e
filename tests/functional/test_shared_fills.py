"""One request to the app, however many clients want a cold image.

``same``: the followers ask the process that has the leader; ``other``: another
process with the same directory.
"""

import hashlib

import pytest

from tests.functional.fills import (
    LARGE,
    MIB,
    SLACK,
    assert_never_mixed,
    assert_whole,
    content,
    results,
    start_reading,
    wait_for_bytes,
)
from tests.waiting import PATIENCE, wait_until

PATH = "/disk.img"
BODY = content(8 * MIB)
HALF = len(BODY) // 2

LEADER = "fwd=uri-miss; stored"
FOLLOWER = "fwd=uri-miss; collapsed"

#: Who follows leaves soon. Only the leader waits for the app itself, and cannot leave.
IMPATIENT = {"follow_timeout": 1, "pump": "leader"}

in_both = pytest.mark.parametrize("where", ["same", "other"])


def follow(world, where, image, offset=HALF, **options):
    """Start servers and a leader, which stands at ``offset``.

    :return: the leader, both servers, the gate.
    """
    gate = image.gate(offset, only=0)
    first, second = world.pair(where, **options)
    leader = start_reading(first, PATH, ("X-Client", "leader"))
    gate.wait()
    return leader, first, second, gate


# Followers


@in_both
@pytest.mark.parametrize("world", ["sqlite", "xattr"], indirect=True)
def test_follower_gets_bytes_while_the_app_stands_in_the_middle(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]

    wait_for_bytes([leader, *followers], MIB)
    assert len(world.origin.gets(PATH)) == 1
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    assert leader.result().cache_status == LEADER
    assert {reply.cache_status for reply in results(followers)} == {FOLLOWER}
    assert {reply.headers["etag"] for reply in results(followers)} == {'"one"'}
    assert len(world.origin.gets(PATH)) == 1
    assert second.request(PATH).cache_status == "hit"


def test_follower_that_comes_before_the_head_waits_for_it(world):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, "other", image, offset=-1)
    middle = image.gate(HALF)
    followers = [start_reading(second, PATH) for _ in range(4)]

    gate.open()
    wait_for_bytes([leader, *followers], MIB)
    middle.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    assert {reply.cache_status for reply in results(followers)} == {FOLLOWER}
    assert len(world.origin.gets(PATH)) == 1


@in_both
def test_image_of_unknown_length_is_followed(world, where):
    image = world.origin.put(PATH, BODY)
    image.chunked = True
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]

    wait_for_bytes([leader, *followers], MIB)
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    assert len(world.origin.gets(PATH)) == 1
    assert second.request(PATH).cache_status == "hit"


@in_both
def test_client_that_asks_again_at_once_gets_a_hit(world, where):
    """The last bytes are held back until the next lookup would find the image."""
    image = world.origin.put(PATH, BODY)
    leader, first, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes(followers, MIB)
    gate.open()

    followers[0].result()
    assert first.request(PATH).cache_status == "hit"
    assert second.request(PATH).cache_status == "hit"
    results([leader, *followers])


def test_small_images_are_asked_for_once(world):
    """No chunk of them is ever anything but the last one."""
    image = world.origin.put(PATH, content(5000))
    leader, _, second, gate = follow(world, "other", image, offset=2500)
    followers = [start_reading(second, PATH) for _ in range(8)]
    heads = world.origin.gets(PATH)
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, content(5000))
    # One that came after the end has a hit.
    assert {reply.cache_status for reply in results(followers)} <= {FOLLOWER, "hit"}
    assert len(heads) == len(world.origin.gets(PATH)) == 1


def test_empty_image_ends_for_all(world):
    image = world.origin.put(PATH, b"")
    leader, _, second, gate = follow(world, "other", image, offset=-1)
    followers = [start_reading(second, PATH) for _ in range(4)]
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, b"")
    assert len(world.origin.gets(PATH)) == 1


# Clients of every speed


@in_both
def test_leader_that_does_not_read_holds_nobody(world, where):
    body = content(LARGE)
    world.origin.put(PATH, body)
    first, second = world.pair(where)
    leader = world.begin(first, PATH)
    status, headers = leader.read_head()
    followers = [start_reading(second, PATH) for _ in range(4)]

    for reply in results(followers):
        assert_whole(reply, body)
        assert reply.cache_status == FOLLOWER
    assert len(world.origin.gets(PATH)) == 1
    assert (status, leader.read(len(body)) == body) == (200, True)
    assert headers["cache-status"] == f"cachemw; {LEADER}"
    leader.close()


@in_both
def test_follower_that_does_not_read_holds_nobody(world, where):
    body = content(LARGE)
    image = world.origin.put(PATH, body)
    leader, _, second, gate = follow(world, where, image, offset=4 * MIB)
    slow = world.begin(second, PATH)
    slow.read_head()
    quick = start_reading(second, PATH)
    wait_for_bytes([quick], MIB)
    gate.open()

    for reply in results([leader, quick]):
        assert_whole(reply, body)
    assert slow.read(len(body)) == body
    slow.close()
    assert len(world.origin.gets(PATH)) == 1


# Other requests during a fill


@in_both
def test_range_that_is_there_is_answered_while_the_app_stands(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)
    wait_for_bytes([leader], MIB)

    reply = start_reading(second, PATH, ("Range", "bytes=1000-99999")).result()

    assert not gate.is_open
    assert (reply.status, reply.complete, reply.body == BODY[1000:100000]) == (206, True, True)
    assert reply.headers["content-range"] == f"bytes 1000-99999/{len(BODY)}"
    assert reply.headers["etag"] == '"one"'
    assert len(world.origin.gets(PATH)) == 1
    gate.open()
    assert_whole(leader.result(), BODY)


@in_both
def test_range_that_is_about_to_come_is_answered_when_it_comes(world, where):
    image = world.origin.put(PATH, BODY)
    start, stop = HALF + 65536, HALF + 524288
    leader, _, second, gate = follow(world, where, image)
    wait_for_bytes([leader], MIB)
    part = start_reading(second, PATH, ("Range", f"bytes={start}-{stop - 1}"))
    whole = start_reading(second, PATH)
    wait_for_bytes([whole], MIB)
    assert part.received == 0

    gate.open()

    reply = part.result()
    assert (reply.status, reply.complete, reply.body == BODY[start:stop]) == (206, True, True)
    assert_whole(leader.result(), BODY)
    assert_whole(whole.result(), BODY)
    assert len(world.origin.gets(PATH)) == 1


@in_both
def test_condition_that_holds_is_answered_during_a_fill(world, where):
    """RFC 9110, section 13.1.2."""
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)

    reply = start_reading(second, PATH, ("If-None-Match", '"one"')).result()

    assert (reply.status, reply.body) == (304, b"")
    assert len(world.origin.gets(PATH)) == 1
    gate.open()
    assert_whole(leader.result(), BODY)


@in_both
def test_condition_that_does_not_hold_follows(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)

    follower = start_reading(second, PATH, ("If-None-Match", '"two"'))
    wait_for_bytes([follower], MIB)
    gate.open()

    assert_whole(follower.result(), BODY)
    assert_whole(leader.result(), BODY)
    assert len(world.origin.gets(PATH)) == 1


@in_both
def test_head_during_a_fill_does_not_wait_for_it(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)

    reply = start_reading(second, PATH, method="HEAD").result()

    assert not gate.is_open
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(BODY)))
    assert len(world.origin.gets(PATH)) == 1
    gate.open()
    assert_whole(leader.result(), BODY)


@in_both
def test_delete_during_a_fill_spares_the_response_and_stores_nothing(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)
    wait_for_bytes([leader], MIB)

    assert second.request(PATH, method="DELETE").status == 204
    gate.open()

    assert_whole(leader.result(), BODY)
    assert not world.is_cached(PATH)
    assert second.request(PATH).cache_status == LEADER
    assert len(world.origin.gets(PATH)) == 2


@in_both
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_followers_of_a_deleted_image_get_all_of_it(world, where, chunked):
    """Also its end, though the app has another version by then."""
    image = world.origin.put(PATH, BODY)
    image.chunked = chunked
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)

    assert second.request(PATH, method="DELETE").status == 204
    world.origin.put(PATH, content(len(BODY), 2), '"two"')
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    assert not world.is_cached(PATH)


@in_both
def test_nobody_joins_a_fill_that_a_change_has_overtaken(world, where):
    """Who asks after a change gets what is there after the change."""
    image = world.origin.put(PATH, BODY)
    changed = content(8 * MIB, seed=2)
    leader, _, second, gate = follow(world, where, image)
    wait_for_bytes([leader], MIB)
    old, image.body, image.etag = image.body, changed, '"two"'

    assert second.request(PATH, method="PUT", body=b"x").status == 204
    reply = start_reading(second, PATH).result()

    assert_whole(reply, changed)
    assert reply.headers["etag"] == '"two"'
    gate.open()
    assert_whole(leader.result(), old)


# Trouble with the app


@in_both
def test_wrong_checksum_completes_nowhere(world, where):
    image = world.origin.put(PATH, BODY)
    image.fields.append("Content-MD5: " + "0" * 32)
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)
    assert len(world.origin.gets(PATH)) == 1
    gate.open()

    for reply in results([leader, *followers]):
        assert not reply.complete
        assert len(reply.body) < len(BODY)
        assert BODY.startswith(reply.body)
    assert any(reason.startswith("md5 is ") for reason in world.invalid_reasons())
    assert not world.is_cached(PATH)


@in_both
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_app_that_fails_in_mid_body_fails_for_who_asked_it(world, where, chunked):
    """A follower may have asked for the rest itself by then; nobody takes a part for the whole."""
    image = world.origin.put(PATH, BODY)
    image.chunked = chunked
    image.cuts[0] = HALF
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)
    assert len(world.origin.gets(PATH)) == 1
    gate.open()

    assert (leader.result().status, leader.result().complete) == (200, False)
    for reply in results([leader, *followers]):
        assert_never_mixed(reply, {'"one"': BODY})
    # However many there are, one of them asked again at most.
    assert len(world.origin.gets(PATH)) <= 2
    assert_whole(second.request(PATH), BODY)


@in_both
@pytest.mark.parametrize("etag", ['"one"', None], ids=["etag", "none"])
def test_who_has_nothing_yet_of_what_breaks_off_gets_it_all_the_same(world, where, etag):
    """No chunk of it may go out, since each may be the last one."""
    image = world.origin.put(PATH, content(5000), etag)
    image.chunked = True
    image.cuts[0] = 3000
    leader, _, second, gate = follow(world, where, image, offset=0)
    followers = [start_reading(second, PATH) for _ in range(4)]
    gate.open()

    assert leader.result().body != content(5000)
    for reply in results(followers):
        assert_whole(reply, content(5000))
    assert len(world.origin.gets(PATH)) <= (2 if etag else 1 + 4)


@in_both
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
def test_who_goes_to_the_app_itself_gets_the_end_only_of_what_was_promised(world, where, is_right):
    """The checksum is of all of it, so all of it is asked for once more."""
    image = world.origin.put(PATH, BODY)
    digest = hashlib.md5(BODY).hexdigest() if is_right else "0" * 32
    image.fields.append(f"Content-MD5: {digest}")
    leader, _, second, gate = follow(world, where, image, offset=HALF, **IMPATIENT)

    reply = start_reading(second, PATH).result()

    assert reply.complete == is_right
    assert BODY.startswith(reply.body)
    assert [asked.start for asked in world.origin.gets(PATH)] == [None, None]
    gate.open()
    assert leader.result().complete == is_right


@in_both
@pytest.mark.parametrize("checksum", [True, False], ids=["checksum", "none"])
def test_who_goes_to_the_app_itself_goes_again_where_that_breaks_off(world, where, checksum):
    image = world.origin.put(PATH, BODY)
    if checksum:
        image.fields.append(f"Content-MD5: {hashlib.md5(BODY).hexdigest()}")
    image.cuts.update({1: HALF + MIB, 2: HALF + 2 * MIB})
    leader, _, second, gate = follow(world, where, image, offset=HALF, **IMPATIENT)

    assert_whole(start_reading(second, PATH).result(), BODY)

    starts = [asked.start for asked in world.origin.gets(PATH)[1:]]
    assert starts == ([None] * 3 if checksum else [HALF, HALF + MIB, HALF + 2 * MIB])
    gate.open()
    assert_whole(leader.result(), BODY)


@in_both
def test_who_goes_to_the_app_itself_in_vain_gives_up(world, where):
    image = world.origin.put(PATH, BODY)
    image.cuts.update(dict.fromkeys(range(1, 20), HALF))
    leader, _, second, gate = follow(world, where, image, offset=HALF, **IMPATIENT)

    reply = start_reading(second, PATH).result()

    assert (reply.complete, reply.body) == (False, BODY[:HALF])
    assert len(world.origin.gets(PATH)) == 1 + 2
    gate.open()
    assert_whole(leader.result(), BODY)


@in_both
@pytest.mark.parametrize("offset", [-1, HALF], ids=["no-head", "mid-body"])
def test_follower_of_a_silent_app_goes_to_the_app_itself(world, where, offset):
    image = world.origin.put(PATH, BODY)
    leader, first, second, gate = follow(world, where, image, offset=offset, **IMPATIENT)

    reply = start_reading(second, PATH).result()

    assert_whole(reply, BODY)
    assert not gate.is_open
    assert len(world.origin.gets(PATH)) == 2
    assert leader.is_alive()
    gate.open()
    assert_whole(leader.result(), BODY)
    assert first.request(PATH).cache_status == "hit"
    assert len(world.origin.gets(PATH)) == 2


@in_both
@pytest.mark.parametrize("offset", [-1, HALF], ids=["before-the-head", "in-the-body"])
def test_answer_that_is_not_stored_is_for_one_client_and_delays_nobody(world, where, offset):
    image = world.origin.put(PATH, BODY)
    image.fields[:] = ["Cache-Control: no-store"]
    head = image.gate(-1, only=0)
    middle = image.gate(HALF)
    first, second = world.pair(where)
    leader = start_reading(first, PATH)
    if offset == HALF:
        head.open()
        middle.wait()
    others = [start_reading(second, PATH) for _ in range(4)]
    head.open()

    # All are at the app at once: nobody waits until another's answer is over.
    wait_until(lambda: len(world.origin.gets(PATH)) == 5, "each has asked the app")
    wait_for_bytes([leader, *others], MIB)
    middle.open()

    replies = results([leader, *others])
    for reply in replies:
        assert_whole(reply, BODY)
        assert "collapsed" not in reply.cache_status
        assert "stored" not in reply.cache_status
    assert sorted(reply.headers["x-answer"] for reply in replies) == list("01234")
    assert not world.is_cached(PATH)


@in_both
def test_request_that_selects_another_variant_asks_for_itself(world, where):
    """RFC 9111, section 4.1."""
    image = world.origin.put(PATH, BODY)
    image.etag = None
    image.languages = {"de": BODY, "en": content(8 * MIB, seed=2)}
    gate = image.gate(HALF, only=0)
    first, second = world.pair(where)
    german = ("Accept-Language", "de")
    leader = start_reading(first, PATH, german)
    gate.wait()
    follower = start_reading(second, PATH, german)
    wait_for_bytes([leader, follower], MIB)

    english = start_reading(second, PATH, ("Accept-Language", "en")).result()

    assert not gate.is_open
    assert_whole(english, image.languages["en"])
    assert "collapsed" not in english.cache_status
    gate.open()
    assert_whole(leader.result(), BODY)
    assert_whole(follower.result(), BODY)
    assert follower.result().cache_status == FOLLOWER
    assert len(world.origin.gets(PATH)) == 2


# Clients that leave


@in_both
def test_leader_that_leaves_takes_no_follower_with_it(world, where):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(HALF, only=0)
    first, second = world.pair(where, on_abort="discard")
    leader = world.begin(first, PATH)
    leader.read_head()
    assert len(leader.read(HALF - SLACK)) == HALF - SLACK
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes(followers, MIB)
    leader.leave()
    gate.open()

    for reply in results(followers):
        assert_whole(reply, BODY)
    # Another process may go on with the fill, which was given up here.
    assert len(world.origin.gets(PATH)) <= (1 if where == "same" else 2)
    assert second.request(PATH).cache_status == "hit"


def leave_at(world, percent, stand, **options):
    """Have the only client leave; the origin then stands a little further on.

    :return: server, the request to the origin, and the second gate.
    """
    body = content(16 * MIB)
    image = world.origin.put(PATH, body)
    offset = len(body) * percent // 100
    gate = image.gate(offset, only=0)
    later = image.gate(len(body) * stand // 100, only=0)
    server = world.serve(**options)
    client = world.begin(server, PATH)
    client.read_head()
    # Else nobody would pull the fill forward.
    assert len(client.read(offset - SLACK)) == offset - SLACK
    gate.wait()
    client.leave()
    gate.open()
    return server, world.origin.gets(PATH)[0], later


def test_image_is_finished_without_anybody(world):
    server, asked, later = leave_at(world, 25, 40, on_abort="finish")
    later.wait()
    later.open()

    world.wait_until_cached(PATH)

    assert asked.sent == 16 * MIB
    reply = server.request(PATH)
    assert_whole(reply, content(16 * MIB))
    assert reply.cache_status == "hit"


def test_fill_without_clients_is_dropped_where_the_operator_says_so(world):
    server, asked, _ = leave_at(world, 25, 40, on_abort="discard")

    wait_until(lambda: asked.left, "the connection to the app is closed")
    world.check_closed()
    wait_until(lambda: world.bytes_left() < MIB // 2, "nothing is left")

    assert not world.is_cached(PATH)
    image = world.origin.images[PATH]
    image.gates.clear()
    assert_whole(server.request(PATH), content(16 * MIB))
    assert world.origin.gets(PATH)[1].start is None


def test_fill_is_dropped_before_the_percentage(world):
    server, asked, _ = leave_at(world, 25, 40, on_abort="50%")

    wait_until(lambda: asked.left, "the connection to the app is closed")
    world.check_closed()

    assert not world.is_cached(PATH)
    assert_whole(server.request(PATH), content(16 * MIB))


def test_fill_is_finished_from_the_percentage_on(world):
    server, _, later = leave_at(world, 60, 70, on_abort="50%")
    later.wait()
    later.open()

    world.wait_until_cached(PATH)

    assert server.request(PATH).cache_status == "hit"
    assert len(world.origin.gets(PATH)) == 1


def test_client_that_comes_while_a_fill_goes_on_by_itself_follows_it(world):
    server, _, later = leave_at(world, 25, 40, on_abort="finish")
    later.wait()
    follower = start_reading(server, PATH)
    wait_for_bytes([follower], MIB)
    later.open()

    assert_whole(follower.result(), content(16 * MIB))
    assert follower.result().cache_status == FOLLOWER
    assert len(world.origin.gets(PATH)) == 1


# Threads, contexts and counts


def test_app_is_read_on_its_own_thread_where_it_needs_that(world):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, "same", image, pump="leader")
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    world.check_closed()
    (call,) = world.calls(PATH)
    threads = [n["threads"] for n in world.noted("closed") if n["call"] == call["call"]]
    assert threads == [[call["thread"]]]


def test_app_is_read_in_the_context_of_the_request_that_called_it(world):
    """Whoever pulls the fill forward."""
    body = content(LARGE)
    world.origin.put(PATH, body)
    server = world.serve()
    leader = world.begin(server, PATH, ("X-Client", "leader"))
    leader.read_head()
    follower = start_reading(server, PATH, ("X-Client", "follower"))
    assert_whole(follower.result(), body)
    leader.leave()

    world.check_closed()
    (call,) = world.calls(PATH)
    clients = [n["clients"] for n in world.noted("closed") if n["call"] == call["call"]]
    assert (call["client"], clients) == ("leader", [["leader"]])


@in_both
def test_only_hits_are_counted_as_hits(world, where):
    image = world.origin.put(PATH, BODY)
    leader, _, second, gate = follow(world, where, image)
    followers = [start_reading(second, PATH) for _ in range(5)]
    wait_for_bytes([leader, *followers], MIB)
    gate.open()
    results([leader, *followers])
    assert world.hits(PATH) == 0

    for _ in range(3):
        assert second.request(PATH).cache_status == "hit"

    # Counts are gathered and written together.
    wait_until(lambda: world.hits(PATH) >= 3, "the hits are written", PATIENCE)
    assert world.hits(PATH) == 3


def test_new_version_is_never_mixed_with_the_old_one(world):
    """The app breaks off; who comes next gets all of the new one, not the end of it."""
    versions = {'"one"': BODY, '"two"': content(8 * MIB, seed=2)}
    image = world.origin.put(PATH, BODY)
    image.cuts[0] = HALF
    leader, _, second, gate = follow(world, "other", image)
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)
    image.body, image.etag = versions['"two"'], '"two"'
    gate.open()

    for reply in results([leader, *followers]):
        assert_never_mixed(reply, versions)
    reply = second.request(PATH)
    assert_whole(reply, versions['"two"'])
    assert reply.headers["etag"] == '"two"'
