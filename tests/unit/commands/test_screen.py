"""What ``top`` shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.commands._screen import NARROWEST, layout, shares

from .snapshots import NOON, RATE, snapshot

SCREEN = """\
cachemw 0.1.0  /var/cache/images  sqlite                                12:00:00
Disk
 [##############..............] 50 % of 10.0 GiB  free 120.0 GiB (keeps 1.0 GiB)
 images 1,234 (4.0 GiB)  in parts 1  queued 1 (set aside 1)  invalid 1
Over the last               10 s         1 min        10 min
 requests/s                  1.5           120           0.0
 hits                       90 %          50 %             -
 bytes/s                 2.5 MiB       2.5 MiB           0 B
   from the cache        2.0 MiB       2.0 MiB           0 B
   from the app        512.0 KiB     512.0 KiB           0 B
 bytes from cache           80 %          80 %             -
In all
 hit 10,000  miss 200  collapsed 30  pass 4
 fills 200  failed 2  evicted 17 (3.0 GiB)  damaged 2
Fills under way: 2
 http://im..-amd64.iso [##....]  33 % of    3.0 GiB   10.0 MiB/s  3 min 24 s  +3
 unknown-l..th\\x1b[31m [??????]             5.0 MiB    1.0 MiB/s           -  +0
Hottest images
 image-1                                  10,000 hits    1.0 MiB        30 s ago
 image-2                                   5,000 hits    2.0 MiB  1 min 00 s ago
 image-3                                   3,333 hits    3.0 MiB  1 min 30 s ago
 image-4                                   2,500 hits    4.0 MiB  2 min 00 s ago
 image-5                                   2,000 hits    5.0 MiB  2 min 30 s ago
 image-6                                   1,666 hits    6.0 MiB  3 min 00 s ago
"""


def test_everything_is_on_a_screen_of_80_columns_and_24_lines():
    assert "\n".join(layout(snapshot(), 80, 24)) + "\n" == SCREEN


def test_without_a_height_every_fill_is_shown():
    fills = snapshot()["fills"] * 5

    lines = layout(snapshot(fills=fills), 80)

    assert "Fills under way: 10" in lines
    assert sum(line.endswith(("+3", "+0")) for line in lines) == 10


def test_what_there_is_no_room_for_is_said():
    fills = snapshot()["fills"] * 10

    lines = layout(snapshot(fills=fills), 80, 24)

    assert len(lines) == 24
    assert "Fills under way: 20, 4 shown" in lines
    assert sum(line.endswith(" ago") for line in lines) == 4


def test_an_empty_cache_is_no_trouble():
    nothing = {**RATE, "hit_ratio": None, "byte_hit_ratio": None, "requests": 0}
    size = {"used": 0, "entries": 0, "max": 0, "free": None, "min_free": 0}
    empty = snapshot(
        size=size,
        rates={"10s": nothing, "1m": nothing, "10m": nothing},
        fills=[],
        hottest=[],
        queue=[],
        invalid=[],
    )

    lines = layout(empty, 80, 24)

    assert "Fills under way: 0" in lines
    assert " hits                          -             -             -" in lines


def test_a_fill_of_an_empty_image_or_a_stalled_one_is_no_trouble():
    fill = {"image_id": "x", "received": 0, "length": 0, "followers": 0, "since": NOON, "rate": 0}

    lines = layout(snapshot(fills=[fill, {**fill, "length": 10}]), 80, 24)

    assert any("100 % of        0 B" in line for line in lines)
    assert any("0 % of       10 B        0 B/s           -" in line for line in lines)


@given(st.integers(1, 200), st.integers(1, 60), st.text(max_size=300), st.integers(0, 2**60))
def test_no_line_is_wider_or_more_than_the_screen(width, height, image_id, number):
    fill = {
        "image_id": image_id,
        "received": number,
        "length": number * 2,
        "followers": number,
        "since": NOON,
        "rate": number,
    }
    image = {"image_id": image_id, "size": number, "hits": number, "last_accessed": NOON - number}

    lines = layout(snapshot(fills=[fill] * 7, hottest=[image] * 10, dir=image_id), width, height)

    assert len(lines) <= height
    assert all(len(line) <= max(width, NARROWEST) and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("first", "second", "room", "expected"),
    [
        (2, 10, 8, (2, 6)),
        (10, 10, 8, (4, 4)),
        (10, 2, 8, (6, 2)),
        (10, 10, 7, (3, 4)),
        (0, 3, 8, (0, 3)),
        (5, 5, 0, (0, 0)),
        (3, 3, 20, (3, 3)),
    ],
)
def test_what_one_list_leaves_the_other_has(first, second, room, expected):
    assert shares(first, second, room) == expected
