"""Fills that broke off: the next request fetches what is missing, and nothing twice."""

import pytest

from tests.functional.fills import (
    MIB,
    SLACK,
    assert_never_mixed,
    assert_whole,
    content,
    md5,
    start_reading,
    wait_for_bytes,
)
from tests.waiting import wait_until

PATH = "/disk.img"
BODY = content(8 * MIB)
NEW = content(8 * MIB, seed=2)
HALF = len(BODY) // 2


def break_off(world, image, offset=HALF, **options):
    """Have the app's first answer end too early; gives the server, which goes on."""
    image.cuts[0] = offset
    server = world.serve(**options)
    reply = server.request(PATH)
    assert (reply.status, reply.complete) == (200, False)
    assert BODY.startswith(reply.body)
    return server


def second_request(world):
    """What the app was asked the second time, of two."""
    asked = world.origin.gets(PATH)
    assert len(asked) == 2
    return asked[1]


def assert_only_the_rest_was_fetched(world, offset, slack=SLACK):
    asked = second_request(world)
    assert asked.fields.get("if-range") == '"one"'
    assert asked.start is not None
    assert offset - slack <= asked.start <= offset
    assert asked.sent == len(BODY) - asked.start


@pytest.mark.parametrize("world", ["sqlite", "xattr"], indirect=True)
@pytest.mark.parametrize("percent", [25, 50, 99])
def test_only_what_is_missing_is_fetched(world, percent):
    image = world.origin.put(PATH, BODY)
    offset = len(BODY) * percent // 100
    server = break_off(world, image, offset)

    reply = server.request(PATH)

    assert_whole(reply, BODY)
    assert reply.headers["content-length"] == str(len(BODY))
    assert_only_the_rest_was_fetched(world, offset)
    hit = server.request(PATH)
    assert_whole(hit, BODY)
    assert hit.cache_status == "hit"
    assert len(world.origin.gets(PATH)) == 2


def test_kept_bytes_come_while_the_app_is_still_silent(world):
    """The first byte of a resumed image is on this machine's disk."""
    image = world.origin.put(PATH, BODY)
    gate = image.gate(HALF + 2 * MIB, only=1)
    server = break_off(world, image)

    reader = start_reading(server, PATH)
    wait_for_bytes([reader], HALF - SLACK)
    gate.open()

    assert_whole(reader.result(), BODY)
    assert_only_the_rest_was_fetched(world, HALF)


def test_image_that_breaks_off_again_and_again_gets_whole(world):
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image, 2 * MIB)
    image.cuts |= {1: 4 * MIB, 2: 6 * MIB}

    for _ in range(2):
        assert not server.request(PATH).complete
    assert_whole(server.request(PATH), BODY)

    starts = [asked.start or 0 for asked in world.origin.gets(PATH)]
    assert len(starts) == 4
    for start, offset in zip(starts, (0, 2 * MIB, 4 * MIB, 6 * MIB), strict=True):
        assert offset - SLACK <= start <= offset


def test_checksum_of_a_resumed_image_is_of_the_whole(world):
    image = world.origin.put(PATH, BODY)
    image.fields.append(f"Content-MD5: {md5(BODY)}")
    server = break_off(world, image)

    assert_whole(server.request(PATH), BODY)

    assert_only_the_rest_was_fetched(world, HALF)
    assert server.request(PATH).cache_status == "hit"


def test_resumed_image_that_is_wrong_is_not_completed(world):
    """The app promises another checksum than the bytes have, of both parts together."""
    image = world.origin.put(PATH, BODY)
    image.fields.append(f"Content-MD5: {md5(NEW)}")
    server = break_off(world, image)

    assert not server.request(PATH).complete

    assert not world.is_cached(PATH)
    assert len(world.origin.gets(PATH)) == 2
    assert any(reason.startswith("md5 is ") for reason in world.invalid_reasons())


@pytest.mark.parametrize("asked", [None, (10, HALF + 10)], ids=["whole", "range"])
def test_rest_that_is_not_stored_any_more_comes_with_what_was_kept(world, asked):
    """The app takes back that it may be stored, when only the rest is asked for."""
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image, range_miss="fill")
    image.fields.append("Cache-Control: no-store")

    if asked is None:
        reply, expected = server.request(PATH), BODY
    else:
        start, stop = asked
        reply = server.request(PATH, ("Range", f"bytes={start}-{stop - 1}"))
        expected = BODY[start:stop]

    assert reply.complete
    assert reply.body == expected
    word = "no-store" if asked is None else "range"
    assert reply.cache_status == f"fwd=uri-miss; detail={word}"
    assert not world.is_cached(PATH)


def test_new_version_begins_at_its_beginning(world):
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image)
    image.body, image.etag = NEW, '"two"'

    reply = server.request(PATH)

    assert_whole(reply, NEW)
    assert reply.headers["etag"] == '"two"'
    assert second_request(world).fields.get("if-range") == '"one"'
    assert server.request(PATH).body == NEW


def test_app_that_ignores_ranges_sends_all_again(world):
    image = world.origin.put(PATH, BODY)
    image.ranges = False
    server = break_off(world, image)

    assert_whole(server.request(PATH), BODY)

    assert second_request(world).sent == len(BODY)
    assert server.request(PATH).cache_status == "hit"


@pytest.mark.parametrize("etag", [None, 'W/"one"'], ids=["none", "weak"])
def test_app_without_a_strong_validator_sends_all_again(world, etag):
    """RFC 9110, section 13.1.5: parts are put together by strong validators only."""
    image = world.origin.put(PATH, BODY, etag)
    server = break_off(world, image)
    image.body = NEW

    assert_whole(server.request(PATH), NEW)

    assert second_request(world).start is None


@pytest.mark.parametrize("lie", ["new-version", "other-place"])
def test_part_that_does_not_fit_is_not_put_behind_what_is_there(world, lie):
    """RFC 9110, section 15.3.7.3: the app may not look at If-Range, or send another part."""
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image)
    versions = {'"one"': BODY}
    if lie == "new-version":
        image.honest = False
        image.body, image.etag = NEW, '"two"'
        versions['"two"'] = NEW
    else:
        image.shift = 1000

    for _ in range(2):
        assert_never_mixed(server.request(PATH), versions)

    reply = server.request(PATH)
    assert_whole(reply, image.body)


def test_part_of_an_image_that_is_gone_is_not_an_image(world):
    """The app has another image now, shorter than what is there of the old one."""
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image)
    image.body, image.etag = NEW[:MIB], '"two"'

    assert_whole(server.request(PATH), NEW[:MIB])


# Servers that died


def stand_and_kill(world, image, **options):
    """Kill the only server, all of it, when half an image has come."""
    gate = image.gate(HALF, only=0)
    server = world.serve(**options)
    reader = start_reading(server, PATH)
    gate.wait()
    wait_for_bytes([reader], HALF - SLACK)
    # Blocks are written behind the client's back.
    wait_until(lambda: world.bytes_left() >= HALF - SLACK, "the bytes are in the file")
    world.kill(server)
    assert not reader.result().complete


def test_fill_of_a_dead_server_is_gone_on_with_after_the_next_start(world):
    image = world.origin.put(PATH, BODY)
    stand_and_kill(world, image)

    server = world.serve()

    assert_whole(server.request(PATH), BODY)
    # The client may have had bytes that were not on the disk yet.
    assert_only_the_rest_was_fetched(world, HALF, 2 * SLACK)
    assert server.request(PATH).cache_status == "hit"


def test_kept_bytes_that_were_damaged_are_not_served(world):
    """Neither to this client nor to the next: they do not match what was noted of them."""
    image = world.origin.put(PATH, BODY)
    stand_and_kill(world, image)
    incomplete = world.directory / "cache" / "incomplete"
    largest = max(
        (path for path in incomplete.rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    with largest.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")

    server = world.serve()

    assert_whole(server.request(PATH), BODY)
    hit = server.request(PATH)
    assert_whole(hit, BODY)
    assert hit.cache_status == "hit"


def test_new_version_after_the_next_start_begins_at_its_beginning(world):
    image = world.origin.put(PATH, BODY)
    stand_and_kill(world, image)
    image.body, image.etag = NEW, '"two"'

    server = world.serve()

    assert_whole(server.request(PATH), NEW)
    assert_whole(server.request(PATH), NEW)


def test_range_of_a_broken_off_image_is_right(world):
    """Whether it is in what is kept or in what is missing."""
    image = world.origin.put(PATH, BODY)
    server = break_off(world, image)

    for start, stop in (
        (1000, 100_000),
        (HALF - 50_000, HALF + 50_000),
        (len(BODY) - 1000, len(BODY)),
    ):
        reply = server.request(PATH, ("Range", f"bytes={start}-{stop - 1}"))
        assert (reply.status, reply.complete, reply.body == BODY[start:stop]) == (206, True, True)
