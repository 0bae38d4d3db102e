"""Show what the cache did and has, in numbers.

Imports: commands._output, commands._settings, commands._shown, core.statistics.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..core import statistics
from . import _output, _settings, _shown
from ._output import Fact

#: Lists of rows, which have commands of their own; how many there are is said.
_LISTS = ("fills", "queue", "invalid", "jobs")

#: Lists that show no more than the listing does.
_LEFT_OUT = ("biggest", "hottest", "coldest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print one number a line."""
    with _settings.opened_cache(args) as cache:
        snapshot = statistics.snapshot(cache)
    if args.json:
        _output.print_json(snapshot)
    else:
        _output.print_facts(list(facts_of(snapshot)))
    return 0


def facts_of(snapshot: dict[str, Any]) -> Iterator[Fact]:
    """Give the numbers of a snapshot, named by where they stand in it: ``totals.bytes.app``."""
    for name, value in snapshot.items():
        if name in _LISTS:
            yield Fact(name, len(value), _shown.number)
        elif name not in _LEFT_OUT:
            yield from _flat((name,), value)


def _flat(path: tuple[str, ...], value: Any) -> Iterator[Fact]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat((*path, name), inner)
        return
    yield Fact(".".join(path), value, lambda value: _show(path, value))


def _show(path: tuple[str, ...], value: Any) -> str:
    is_rate = path[0] == "rates"
    if path == ("time",):
        return _shown.moment(value)
    if path[-1].endswith("ratio"):
        return _shown.percent(value)
    if path[0] == "size" or "bytes" in path or path[-1].startswith("bytes"):
        return _shown.size(value) + ("/s" if is_rate else "")
    if is_rate:
        return f"{_shown.per_second(value)}/s"
    return _shown.number(value) if isinstance(value, int) else _shown.text(value)
