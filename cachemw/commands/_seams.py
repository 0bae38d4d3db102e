"""What commands ask of parts that may not be there.

Imports: core.cache, errors.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..core.cache import ImageCache
from ..errors import CacheMwError


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
