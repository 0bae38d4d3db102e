"""Rows of what a command lists: searched, sorted, and not too many.

Imports: nothing of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def select(
    rows: Iterable[dict[str, Any]],
    *,
    search: str = "",
    sort: str = "",
    is_descending: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Give the rows that are asked for, in order.

    :param search: part of the id.
    :param sort: key of the value to go by, then by id; empty: in the order they have.
    :param limit: rows; ``None``: all.
    """
    found = [row for row in rows if search in row["image_id"]]
    if sort:
        found.sort(key=lambda row: row["image_id"])
        found.sort(key=lambda row: row[sort], reverse=is_descending)
    elif is_descending:
        found.reverse()
    return found[:limit]
