"""What commands ask of parts that may not be there.

Imports: core.cache, errors.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from ..core.cache import ImageCache
from ..errors import CacheMwError


def images(
    cache: ImageCache,
    search: str = "",
    sort: str = "image_id",
    is_descending: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """List complete images, each variant for itself; by the index, where the driver has one.

    :param search: part of the id.
    :param sort: key of the value to go by, then by id.
    """
    find_images = getattr(cache, "find_images", None)
    if find_images is None:
        return select(
            cache.get_cached_images(),
            search=search,
            sort=sort,
            is_descending=is_descending,
            limit=limit,
        )
    rows: list[dict[str, Any]] = find_images(
        search=search, sort=sort, descending=is_descending, limit=limit
    )
    return rows[:limit]


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


def queue(cache: ImageCache) -> list[dict[str, Any]]:
    """List what waits to be fetched, the longest waiting first."""
    get_queue = getattr(cache, "get_queue", None)
    if get_queue is None:
        return [{"image_id": image_id} for image_id in cache.get_queued_images()]
    rows: list[dict[str, Any]] = get_queue()
    return rows


def snapshot(cache: ImageCache) -> dict[str, Any]:
    """Look at everything once.

    :raises CacheMwError: the cache cannot be looked at.
    """
    try:
        statistics = importlib.import_module("cachemw.core.statistics")
    except ImportError:
        raise CacheMwError("statistics are not built yet") from None
    try:
        taken: dict[str, Any] = statistics.snapshot(cache)
    except OSError as exc:
        raise CacheMwError(f"the statistics cannot be read: {exc}") from exc
    return taken
