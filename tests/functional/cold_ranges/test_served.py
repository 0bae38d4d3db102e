"""Ranges of images that are not there, over real sockets: processes, threads, greenlets."""

import pytest

from cachemw.drivers.base import CHUNK
from tests.functional.fills import (
    LARGE,
    MIB,
    assert_whole,
    content,
    results,
    start_reading,
    wait_for_bytes,
)
from tests.waiting import PATIENCE

PATH = "/disk.img"
BODY = content(8 * MIB)


def ranged(start, stop):
    return ("Range", f"bytes={start}-{stop - 1}")


def assert_part(reply, start, stop):
    assert (reply.status, reply.complete) == (206, True)
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert reply.body == BODY[start:stop]


def asked_bytes(world):
    return sum(asked.sent for asked in world.origin.gets(PATH))


@pytest.mark.parametrize("kind", ["gunicorn", "uwsgi", "waitress", "gevent"])
def test_parts_add_up_to_the_image_on_every_server(world, kind):
    world.origin.put(PATH, BODY)
    server = world.serve(kind, range_miss="slice")
    for start, stop in ((1000, 2000), (3 * MIB, 5 * MIB + 5)):
        first = server.request(PATH, ranged(start, stop))
        assert_part(first, start, stop)
        assert first.cache_status == "fwd=uri-miss; stored"
        again = server.request(PATH, ranged(start, stop))
        assert_part(again, start, stop)
        assert again.cache_status == "hit; detail=partial"
    assert asked_bytes(world) == 2 * MIB + 2 * CHUNK

    assert_whole(server.request(PATH), BODY)

    assert asked_bytes(world) == len(BODY)
    assert server.request(PATH).cache_status == "hit"


@pytest.mark.parametrize("kind", ["gunicorn", "uwsgi", "waitress", "gevent"])
def test_rest_is_fetched_in_the_background_on_every_server(world, kind):
    world.origin.put(PATH, BODY)
    server = world.serve(kind, range_miss="slice")

    assert_part(server.request(PATH, ranged(2 * MIB, 6 * MIB + 5)), 2 * MIB, 6 * MIB + 5)

    world.wait_until_cached(PATH)
    reply = server.request(PATH)
    assert_whole(reply, BODY)
    assert reply.cache_status == "hit"
    assert asked_bytes(world) == len(BODY)


@pytest.mark.parametrize("kind", ["gunicorn", "uwsgi", "waitress", "gevent"])
def test_range_is_answered_from_the_fill_that_it_begins(world, kind):
    world.origin.put(PATH, BODY)
    server = world.serve(kind, range_miss="fill")

    assert_part(server.request(PATH, ranged(3 * MIB, 4 * MIB)), 3 * MIB, 4 * MIB)

    world.wait_until_cached(PATH)
    assert_whole(server.request(PATH), BODY)
    assert len(world.origin.gets(PATH)) == 1


def test_parts_of_two_processes_add_up(world):
    world.origin.put(PATH, BODY)
    servers = [world.serve(range_miss="slice") for _ in range(2)]
    readers = [
        start_reading(servers[number % 2], PATH, ranged(number * MIB, number * MIB + MIB))
        for number in range(3)
    ]
    for number, reply in enumerate(results(readers)):
        assert_part(reply, number * MIB, number * MIB + MIB)
    assert asked_bytes(world) == 3 * MIB

    for server in servers:
        reply = server.request(PATH, ranged(10, 3 * MIB - 10))
        assert_part(reply, 10, 3 * MIB - 10)
        assert reply.cache_status == "hit; detail=partial"


def test_part_whose_process_dies_is_fetched_by_another(world):
    """What came is there, and nobody waits for the dead."""
    image = world.origin.put(PATH, BODY)
    gate = image.gate(4 * MIB, only=0)
    first, second = (world.serve(range_miss="slice") for _ in range(2))
    lost = start_reading(first, PATH, ranged(0, 6 * MIB))
    gate.wait()
    wait_for_bytes([lost], 2 * MIB)
    world.kill_workers(first)

    reply = second.request(PATH, ranged(0, 6 * MIB))

    assert_part(reply, 0, 6 * MIB)
    assert not lost.result().complete
    asked = world.origin.gets(PATH)[-1]
    assert asked.fields["if-range"] == '"one"'
    assert asked.start >= 2 * MIB - CHUNK


@pytest.mark.parametrize("where", ["same", "other"])
def test_client_that_leaves_frees_the_image(world, where):
    image = world.origin.put(PATH, BODY)
    gate = image.gate(4 * MIB, only=0)
    first, second = world.pair(where, range_miss="slice")
    client = world.begin(first, PATH, ranged(0, 6 * MIB))
    client.read_head()
    assert client.read(2 * MIB) == BODY[: 2 * MIB]
    gate.wait()
    client.close()
    gate.open()

    assert_whole(second.request(PATH), BODY)

    assert second.request(PATH).cache_status == "hit"


@pytest.mark.parametrize("where", ["same", "other"])
def test_client_that_does_not_read_holds_nobody(world, where):
    body = content(LARGE)
    world.origin.put(PATH, body)
    first, second = world.pair(where, range_miss="slice", follow_timeout=2 * PATIENCE)
    paused = world.begin(first, PATH, ranged(0, LARGE - MIB))
    paused.read_head()

    reply = start_reading(second, PATH).result()

    assert_whole(reply, body)
    # Itself, or the thread that goes on when so much is kept.
    assert reply.cache_status in ("fwd=uri-miss; stored", "fwd=uri-miss; collapsed", "hit")
    assert paused.read(LARGE) == body[:-MIB]
    paused.close()
