"""The index's statements for listing and searching.

Pure: each function gives a statement and its parameters.

Imports: drivers.base, drivers.listing.
"""

from __future__ import annotations

from typing import Any

from .base import MOST_VARIANTS
from .listing import Query

#: Of an entry, in the order of a listing's keys.
COLUMNS = "id, size, hits, accessed, modified, checksum"

#: By what a listing is sorted, in the index's words.
_SORTS = {
    "image_id": "id",
    "size": "size",
    "hits": "hits",
    "last_accessed": "accessed",
    "last_modified": "modified",
}

_HAS = "instr(id, ?) > 0"


def find(query: Query) -> tuple[Any, ...]:
    """Find the entries of a page, and as many behind as may belong to it."""
    column = _SORTS[query.sort]
    # From one place on, since an offset would go through all that is before it.
    conditions, parameters = _conditions(query, column)
    direction = "DESC" if query.descending else "ASC"
    order = dict.fromkeys((column, "id"))
    statement = (
        f"SELECT {COLUMNS} FROM entries"
        + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        + f" ORDER BY {', '.join(f'{name} {direction}' for name in order)}"
    )
    if query.limit is None:
        return statement, *parameters
    return f"{statement} LIMIT ?", *parameters, query.limit + MOST_VARIANTS


def _conditions(query: Query, column: str) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    if query.marker is not None:
        behind = "<" if query.descending else ">"
        if column == "id":
            conditions.append(f"id {behind} ?")
        else:
            conditions.append(f"({column}, id) {behind} (?, ?)")
            parameters.append(query.marker_value)
        parameters.append(_bytes(query.marker))
    if query.search:
        conditions.append(_HAS)
        parameters.append(_bytes(query.search))
    return conditions, parameters


def marker_value(query: Query) -> tuple[Any, ...]:
    """Find what the marker is sorted by; of several entries of it, the last one's."""
    function = "min" if query.descending else "max"
    statement = f"SELECT {function}({_SORTS[query.sort]}) FROM entries WHERE id = ?"
    return statement, _bytes(query.marker or "")


def count(search: str) -> tuple[Any, ...]:
    """Count the entries with a text in their id."""
    if not search:
        return ("SELECT count(*) FROM entries",)
    return f"SELECT count(*) FROM entries WHERE {_HAS}", _bytes(search)


def images(image_id: str) -> tuple[Any, ...]:
    """Find the entries of one image."""
    return f"SELECT {COLUMNS} FROM entries WHERE id = ? ORDER BY name", _bytes(image_id)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
