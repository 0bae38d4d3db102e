"""How commands print data."""

import json
import logging
import sys
from contextlib import redirect_stdout

import pytest

from cachemw.commands import _output, _shown
from cachemw.commands._output import Column, Fact
from tests.terminals import Terminal, without_rich

COLUMNS = (
    Column("image_id", "ID"),
    Column("size", "SIZE", _shown.size, is_number=True),
    Column("checksum", ""),
)
ROWS = [
    {"image_id": "cat", "size": 2048, "checksum": "md5:00"},
    {"image_id": "a\tb\x1b[0m[bold]", "size": None, "checksum": None},
]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_elsewhere_rows_are_lines_apart_by_tabs_without_headings(capsys):
    _output.print_rows(COLUMNS, ROWS)

    assert capsys.readouterr().out == "cat\t2048\tmd5:00\na\\tb\\x1b[0m[bold]\t\t\n"


def test_on_a_terminal_a_table_is_aligned_and_has_headings(terminal, monkeypatch):
    without_rich(monkeypatch)
    with redirect_stdout(terminal):
        _output.print_rows(COLUMNS, ROWS)

    assert terminal.getvalue() == (
        "ID                    SIZE\ncat                2.0 KiB\na\\tb\\x1b[0m[bold]        -\n"
    )


def test_rich_draws_the_table_and_takes_no_id_for_markup(terminal, monkeypatch):
    pytest.importorskip("rich", reason="drawn with the extra 'rich'")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stdout(terminal):
        _output.print_rows(COLUMNS, ROWS)

    lines = [line.split() for line in terminal.getvalue().splitlines() if line.strip()]
    assert lines[0] == ["ID", "SIZE"]
    assert lines[2:] == [["cat", "2.0", "KiB"], ["a\\tb\\x1b[0m[bold]", "-"]]


def test_rich_cuts_no_long_id_off(terminal, monkeypatch):
    pytest.importorskip("rich", reason="drawn with the extra 'rich'")
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stdout(terminal):
        _output.print_rows(COLUMNS, [{"image_id": "i" * 300, "size": 1}])

    assert terminal.getvalue().count("i") == 300


def test_rich_is_not_asked_to_draw_a_table_that_would_take_long(terminal, monkeypatch):
    monkeypatch.setattr(_output, "MOST_RICH", 1)
    with redirect_stdout(terminal):
        _output.print_rows(COLUMNS, ROWS)

    assert terminal.getvalue().startswith("ID                    SIZE\ncat ")


def test_facts_are_for_programs_elsewhere(capsys):
    _output.print_facts([Fact("size", 2048, _shown.size), Fact("guarded", True), Fact("a", None)])

    assert capsys.readouterr().out == "size\t2048\nguarded\tyes\na\t\n"


def test_facts_are_for_people_on_a_terminal(terminal):
    with redirect_stdout(terminal):
        _output.print_facts([Fact("size", 2048, _shown.size), Fact("checksum", "md5:00")])

    assert terminal.getvalue() == "size      2.0 KiB\nchecksum  md5:00\n"


def test_json_keeps_every_value_and_sends_no_control_character(capsys):
    value = [{"image_id": "a\x1b\x7f\x9b\u202e\udc80", "size": 2**60}]
    _output.print_json(value)

    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_complaints_and_log_lines_are_one_line_each(capsys):
    _output.complain("show", "a\n\x1b[31m: C:\\x")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_output._LineFormatter("%(levelname)s %(message)s"))
    handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "%s is bad", ("a\nb\x1b",), None))

    assert capsys.readouterr().err == (
        "cachemw show: a\\n\\x1b[31m: C:\\x\nWARNING a\\nb\\x1b is bad\n"
    )
