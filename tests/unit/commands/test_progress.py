"""How far a long command is."""

from contextlib import redirect_stderr

import pytest

from cachemw.commands import _progress
from tests.terminals import Terminal, without_rich


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_nothing_is_shown_where_there_is_no_terminal(capsys):
    with _progress.progress("pruning") as progress:
        progress(1, 2)

    assert capsys.readouterr() == ("", "")


def test_without_rich_a_line_is_printed_now_and_then(terminal, monkeypatch):
    without_rich(monkeypatch)
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with redirect_stderr(terminal), _progress.progress("pruning") as progress:
        for step in range(1, 13):
            now[0] += 1
            progress(step * 2**20, 24 * 2**20)

    assert terminal.getvalue().splitlines() == [
        "pruning: 5.0 MiB of 24.0 MiB (20 %), 1.0 MiB/s, 19 s left",
        "pruning: 10.0 MiB of 24.0 MiB (41 %), 1.0 MiB/s, 14 s left",
    ]


def test_rich_draws_a_bar_with_rate_and_time_left(terminal, monkeypatch):
    pytest.importorskip("rich", reason="drawn with the extra 'rich'")
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(terminal), _progress.progress("pruning") as progress:
        progress(0, 4 * 2**20)
        progress(1 * 2**20, 4 * 2**20)

    drawn = terminal.getvalue()
    assert "pruning" in drawn
    assert "25%" in drawn
    assert "1.0/4.0 MiB" in drawn


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("cleaning", 3, None, 1.0, "files"), "cleaning: 3 files, 3.0 a second"),
        (
            ("cleaning", 3, 6, 1.0, "files"),
            "cleaning: 3 of 6 files (50 %), 3.0 a second, 1 s left",
        ),
        (("x", 0, 10, 0.0, "bytes"), "x: 0 B of 10 B (0 %), 0 B/s"),
        (("x", 0, 0, 1.0, "bytes"), "x: 0 B of 0 B (100 %), 0 B/s"),
    ],
)
def test_lines_say_what_is_known(arguments, line):
    assert _progress.line(*arguments) == line
