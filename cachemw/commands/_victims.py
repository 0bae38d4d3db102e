"""Printing what a command removed, or would.

Imports: commands._output, commands._shown, drivers.base.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..drivers.base import Victim
from . import _output, _shown
from ._output import Column

_COLUMNS = (
    Column("image_id", "ID"),
    Column("size", "SIZE", _shown.size, is_number=True),
    Column("kind", "KIND"),
)


def print_victims(victims: Sequence[Victim], as_json: bool) -> None:
    """Print one line each: id, bytes, and whether it is an image, a fill or invalid."""
    rows = [victim._asdict() for victim in victims]
    if as_json:
        _output.print_json(rows)
    else:
        _output.print_rows(_COLUMNS, rows)
