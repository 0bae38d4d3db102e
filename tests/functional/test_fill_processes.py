"""Shared fills on the servers that people run, and what happens when a process dies."""

import time

import pytest

from tests.functional.fills import (
    MIB,
    SLACK,
    assert_never_mixed,
    assert_whole,
    content,
    results,
    start_reading,
    wait_for_bytes,
)
from tests.waiting import wait_until

PATH = "/disk.img"
BODY = content(8 * MIB)
NEW = content(8 * MIB, seed=2)

LEADER = "fwd=uri-miss; stored"
FOLLOWER = "fwd=uri-miss; collapsed"

#: Servers as people start them: kind, processes, threads in each.
DEPLOYMENTS = {
    "gunicorn-one": [("gunicorn", 1)],
    "gunicorn-two-workers": [("gunicorn", 2)],
    "gunicorn-four-workers": [("gunicorn", 4)],
    "gunicorn-twice": [("gunicorn", 1), ("gunicorn", 1)],
    "uwsgi": [("uwsgi", 2)],
    "uwsgi-twice": [("uwsgi", 1), ("uwsgi", 1)],
    "waitress": [("waitress", 1)],
    "waitress-twice": [("waitress", 1), ("waitress", 1)],
    "gevent": [("gevent", 1)],
    "gevent-twice": [("gevent", 1), ("gevent", 1)],
    "mixed": [("gunicorn", 1), ("uwsgi", 1), ("waitress", 1), ("gevent", 1)],
}


def started(world, deployment):
    return [world.serve(kind, workers) for kind, workers in DEPLOYMENTS[deployment]]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_cold_clients_make_one_request(world, deployment):
    """Nobody waits for the end: all have the beginning while the app stands in the middle."""
    image = world.origin.put(PATH, BODY)
    head, middle = image.gate(-1), image.gate(len(BODY) // 2)
    running = started(world, deployment)
    readers = [start_reading(running[number % len(running)], PATH) for number in range(16)]
    head.wait()
    head.open()

    wait_for_bytes(readers, MIB)
    assert len(world.origin.gets(PATH)) == 1
    middle.open()

    replies = results(readers)
    for reply in replies:
        assert_whole(reply, BODY)
    statuses = [reply.cache_status for reply in replies]
    assert sorted(statuses) == sorted([LEADER, *[FOLLOWER] * 15])
    assert len(world.origin.gets(PATH)) == len(world.calls(PATH)) == 1
    for server in running:
        assert server.request(PATH).cache_status == "hit"


@pytest.mark.parametrize("deployment", ["gunicorn-two-workers", "uwsgi", "gevent", "mixed"])
def test_wrong_image_completes_on_no_server(world, deployment):
    image = world.origin.put(PATH, BODY)
    image.fields.append("Content-MD5: " + "0" * 32)
    middle = image.gate(len(BODY) // 2)
    running = started(world, deployment)
    readers = [start_reading(running[number % len(running)], PATH) for number in range(16)]
    wait_for_bytes(readers, MIB)
    assert len(world.origin.gets(PATH)) == 1
    middle.open()

    for reply in results(readers):
        assert not reply.complete
        assert BODY.startswith(reply.body)
    assert any(reason.startswith("md5 is ") for reason in world.invalid_reasons())


# A leader that dies


@pytest.mark.parametrize("world", ["sqlite", "xattr"], indirect=True)
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_followers_of_a_killed_leader_all_finish(world, percent):
    """One of them goes on from the bytes that are there."""
    body = content(16 * MIB)
    image = world.origin.put(PATH, body)
    offset = len(body) * percent // 100
    gate = image.gate(offset)
    first, second, third = world.serve(), world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(server, PATH) for server in (second, third) for _ in range(10)]
    wait_for_bytes(followers, max(MIB // 2, offset - SLACK))
    assert len(world.origin.gets(PATH)) == 1

    world.kill_workers(first)
    gate.open()

    for reply in results(followers):
        assert_whole(reply, body)
        assert reply.headers["etag"] == '"one"'
    asked = world.origin.gets(PATH)
    assert len(asked) <= 2
    assert asked[0].left
    assert max(1, offset - 2 * SLACK) <= asked[1].start <= offset
    assert asked[1].fields["if-range"] == '"one"'
    assert second.request(PATH).cache_status == "hit"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_followers_of_a_killed_leader_finish_an_image_of_unknown_length(world, ranges):
    """One has all of it sent once more, for all: nothing of it was kept."""
    image = world.origin.put(PATH, BODY)
    image.chunked, image.ranges = True, ranges
    gate = image.gate(len(BODY) // 2)
    first, second = world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(3)]
    wait_for_bytes(followers, len(BODY) // 2 - SLACK)

    world.kill_workers(first)
    gate.open()

    for reply in results(followers):
        assert_whole(reply, BODY)
    assert [asked.start for asked in world.origin.gets(PATH)] == [None, None]
    assert second.request(PATH).cache_status == "hit"


def test_leader_that_dies_before_the_head_is_replaced(world):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(-1, only=0)
    first, second = world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(10)]

    world.kill_workers(first)

    for reply in results(followers):
        assert_whole(reply, BODY)
    assert len(world.origin.gets(PATH)) == 2
    assert second.request(PATH).cache_status == "hit"


def test_leader_that_dies_at_the_last_byte_is_replaced(world):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(len(BODY) - 1, only=0)
    first, second = world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(10)]
    wait_for_bytes(followers, len(BODY) - SLACK)

    world.kill_workers(first)

    for reply in results(followers):
        assert_whole(reply, BODY)
    asked = world.origin.gets(PATH)
    assert len(asked) == 2
    assert asked[1].sent <= 2 * SLACK


def test_second_leader_that_dies_is_replaced_too(world):
    body = content(16 * MIB)
    image = world.origin.put(PATH, body)
    gates = [image.gate(4 * MIB), image.gate(12 * MIB)]
    running = [world.serve(), world.serve(), world.serve()]
    start_reading(running[0], PATH)
    gates[0].wait()
    middle = start_reading(running[1], PATH)
    wait_for_bytes([middle], 4 * MIB - SLACK)
    world.kill_workers(running[0])
    gates[0].open()
    gates[1].wait()
    followers = [start_reading(running[2], PATH) for _ in range(4)]
    wait_for_bytes(followers, 12 * MIB - SLACK)

    world.kill_workers(running[1])
    gates[1].open()

    for reply in results(followers):
        assert_whole(reply, body)
    asked = world.origin.gets(PATH)
    assert len(asked) == 3
    assert asked[2].start >= 12 * MIB - 2 * SLACK


def test_dead_leaders_image_that_has_changed_is_never_mixed(world):
    versions = {'"one"': BODY, '"two"': content(8 * MIB, seed=2)}
    image = world.origin.put(PATH, BODY)
    gate = image.gate(len(BODY) // 2, only=0)
    first, second = world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(10)]
    wait_for_bytes(followers, MIB)
    assert len(world.origin.gets(PATH)) == 1
    image.body, image.etag = versions['"two"'], '"two"'

    world.kill_workers(first)

    for reply in results(followers):
        assert_never_mixed(reply, versions)
    reply = second.request(PATH)
    assert_whole(reply, versions['"two"'])
    assert reply.headers["etag"] == '"two"'


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_request_that_had_nothing_yet_of_a_dead_leaders_image_gets_the_new_one(world, chunked):
    """Of the old one nothing is to be had any more."""
    image = world.origin.put(PATH, BODY)
    image.chunked = chunked
    # A range of what nobody knows the length of is ignored: it begins at once.
    gate = image.gate(0 if chunked else MIB, only=0)
    first, second = world.serve(range_miss="fill"), world.serve(range_miss="fill")
    start_reading(first, PATH)
    gate.wait()
    start = 4 * MIB
    follower = start_reading(second, PATH, ("Range", f"bytes={start}-"))
    time.sleep(0.5)
    image.body, image.etag = NEW, '"two"'

    world.kill_workers(first)

    reply = follower.result()
    assert reply.headers["etag"] == '"two"'
    assert reply.complete
    if reply.status == 206:
        assert reply.body == NEW[start:]
    else:
        assert_whole(reply, NEW)


def test_wrong_image_of_two_leaders_completes_nowhere(world):
    """The checksum is of the whole image, also of what the dead one wrote."""
    image = world.origin.put(PATH, BODY)
    image.fields.append("Content-MD5: " + "0" * 32)
    gate = image.gate(len(BODY) // 2, only=0)
    first, second = world.serve(), world.serve()
    start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(10)]
    wait_for_bytes(followers, MIB)
    assert len(world.origin.gets(PATH)) == 1

    world.kill_workers(first)

    for reply in results(followers):
        assert not reply.complete
        assert BODY.startswith(reply.body)
    assert not world.is_cached(PATH)


def test_killed_follower_harms_nobody(world):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(len(BODY) // 2)
    first, second = world.serve(), world.serve()
    leader = start_reading(first, PATH)
    gate.wait()
    lost = start_reading(second, PATH)
    wait_for_bytes([leader, lost], MIB)

    world.kill_workers(second)
    gate.open()

    assert_whole(leader.result(), BODY)
    assert not lost.result().complete
    assert len(world.origin.gets(PATH)) == 1
    assert first.request(PATH).cache_status == "hit"


# Processes that come and go


def test_workers_that_are_renewed_lose_no_download(world):
    """gunicorn's ``--max-requests``: a worker ends while it has a fill under way."""
    image = world.origin.put(PATH, BODY)
    world.origin.put("/small.img", content(5000))
    gate = image.gate(len(BODY) // 2)
    server = world.serve(workers=2, server_options=["--max-requests", "4"])
    leader = start_reading(server, PATH)
    gate.wait()
    before = set(server.workers())
    wait_until(
        lambda: server.request("/small.img").status == 200 and set(server.workers()) - before,
        "a worker was renewed",
    )
    followers = [start_reading(server, PATH) for _ in range(3)]
    wait_for_bytes(followers, MIB)
    gate.open()

    for reply in results(followers):
        assert_whole(reply, BODY)
    assert BODY.startswith(leader.result().body)
    # A worker whose time to end is over is killed with what it has under way.
    world.died(*before)
    asked = world.origin.gets(PATH)
    assert len(asked) == 1 or (len(asked) == 2 and asked[1].start is not None)
    assert server.request(PATH).cache_status == "hit"


def test_worker_that_is_told_to_end_finishes_its_fill(world):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(len(BODY) // 2)
    first, second = world.serve(), world.serve()
    leader = start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(4)]
    wait_for_bytes([leader, *followers], MIB)
    assert len(world.origin.gets(PATH)) == 1
    (worker,) = first.workers()

    world.reload(first)
    wait_until(lambda: set(first.workers()) - {worker}, "a new worker has started")
    gate.open()

    for reply in results([leader, *followers]):
        assert_whole(reply, BODY)
    assert len(world.origin.gets(PATH)) == 1
    assert second.request(PATH).cache_status == "hit"
