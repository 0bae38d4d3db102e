"""How commands print data: for people on a terminal, for programs elsewhere.

On a terminal a table has headings, sizes and times are rounded, and ``rich``
draws it if it is installed. Elsewhere each row is a line, values are apart by
tabs, and numbers are exact (bytes, seconds since the epoch); nothing else is
printed. With ``--json`` it is one document, and every value as it is.

Imports: commands._shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from . import _shown

#: Rows of a table that rich draws at the most: it takes a third of a millisecond for each.
MOST_RICH = 1000


class Column(NamedTuple):
    """One column of a table.

    :param key: of the value in a row.
    :param heading: on a terminal; empty: it has no place there.
    :param show: makes of a value what people read.
    :param is_number: whether it stands to the right.
    """

    key: str
    heading: str
    show: Callable[[Any], str] = _shown.text
    is_number: bool = False


class Fact(NamedTuple):
    """One line of a description.

    :param name: in words; programs go by it.
    :param value: as programs get it.
    :param show: makes of it what people read.
    """

    name: str
    value: Any
    show: Callable[[Any], str] = _shown.text


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print one document, in ASCII without control characters."""
    print(json.dumps(value, indent=indent))


def print_rows(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a table."""
    out = sys.stdout
    if not out.isatty():
        for row in rows:
            print("\t".join(_exact(row.get(column.key), out) for column in columns))
        return
    columns = [column for column in columns if column.heading]
    shown = [[_seen(column.show(row.get(column.key)), out) for column in columns] for row in rows]
    rich_table = rich("rich.table") if len(shown) <= MOST_RICH else None
    if rich_table is None:
        for line in aligned(columns, shown):
            print(line)
        return
    # Narrower than its longest id it would be folded, not cut.
    table = rich_table.Table(box=rich("rich.box").SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify = "right" if column.is_number else "left"
        table.add_column(column.heading, justify=justify, overflow="fold", no_wrap=column.is_number)
    for row_ in shown:
        # As text: an id may look like markup.
        table.add_row(*(rich("rich.text").Text(cell) for cell in row_))
    rich("rich.console").Console(file=out).print(table)


def aligned(columns: Sequence[Column], shown: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table with headings in plain lines."""
    headed = [[column.heading for column in columns], *shown]
    widths = [max(map(len, cells)) for cells in zip(*headed, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in headed
    ]


def print_facts(facts: Sequence[Fact]) -> None:
    """Print a description, one fact a line."""
    out = sys.stdout
    if not out.isatty():
        for fact in facts:
            print(f"{_exact(fact.name, out)}\t{_exact(fact.value, out)}")
        return
    width = max((len(_shown.text(fact.name)) for fact in facts), default=0)
    for fact in facts:
        name = _seen(_shown.text(fact.name), out)
        print(f"{name.ljust(width)}  {_seen(fact.show(fact.value), out)}")


def printable(line: str) -> str:
    """Give a line of ours as standard output can take it."""
    return _seen(line, sys.stdout)


class _LineFormatter(logging.Formatter):
    """Keeps what an id has in it from being more than a part of its line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _shown.line(record.message)
        return super().formatMessage(record)


def begin_logging() -> None:
    """Send warnings to standard error, unless somebody has said already where they go."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def complain(command: str, complaint: object) -> None:
    """Say what went wrong, in one line on standard error."""
    text = _shown.line(str(complaint), _encoding(sys.stderr))
    print(f"cachemw {command}: {text}", file=sys.stderr)


def _exact(value: Any, out: TextIO) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _shown.text(value, _encoding(out))


def _seen(string: str, out: TextIO) -> str:
    return string.encode(_encoding(out), "replace").decode(_encoding(out))


def _encoding(out: TextIO) -> str:
    return out.encoding or "utf-8"


def rich(module: str) -> Any:
    """Give a module of ``rich``; ``None``: it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
