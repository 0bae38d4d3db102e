"""What processes tell of their fills."""

import os

from cachemw.core import live
from cachemw.core.live import Row, forget_dead, rows, tell

NOW = 1_700_000_000.0


def row(image_id, since=NOW, length=100):
    return Row(image_id=image_id, received=10, length=length, followers=2, since=since)


def test_what_is_told_is_seen_until_it_is_not_so_any_more(tmp_path):
    told = [row("b", NOW + 1), row("a\udcff", NOW, None)]
    tell(str(tmp_path), told, NOW)

    assert rows(str(tmp_path), NOW + 1) == told[::-1]

    tell(str(tmp_path), [], NOW + 2)
    assert rows(str(tmp_path), NOW + 2) == []
    assert list((tmp_path / ".stats").iterdir()) == []


def test_dead_process_tells_nothing(tmp_path):
    tell(str(tmp_path), [row("a")], NOW)

    assert rows(str(tmp_path), NOW + 60) == []
    forget_dead(str(tmp_path), NOW + 3600)
    assert list((tmp_path / ".stats").iterdir()) == []


def test_rows_of_several_processes_come_together(tmp_path, monkeypatch):
    for number in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        tell(str(tmp_path), [row(f"image {number}", NOW - number)], NOW)

    assert [one["image_id"] for one in rows(str(tmp_path), NOW)] == ["image 2", "image 1"]


def test_followers_elsewhere_belong_to_the_fill_that_is_led(tmp_path, monkeypatch):
    told = [row("a"), row("a", 0.0), row("a", 0.0), row("nobody leads it", 0.0)]
    for number, one in enumerate(told):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        tell(str(tmp_path), [one], NOW)

    (found,) = rows(str(tmp_path), NOW)

    assert (found["image_id"], found["since"], found["followers"]) == ("a", NOW, 6)


def test_what_is_not_ours_is_nothing(tmp_path):
    folder = tmp_path / ".stats"
    folder.mkdir()
    for number, data in enumerate([b"", b"[]", b'{"time": 1}', b'{"time": 9e9, "fills": [3]}']):
        (folder / f"{number}{live.SUFFIX}").write_bytes(data)

    assert rows(str(tmp_path), NOW) == []
    forget_dead(str(tmp_path), NOW)
    assert list(folder.iterdir()) == []
