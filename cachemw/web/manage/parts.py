"""What the management API shows of parts that may not be there.

Imports: core.cache, web.manage.answers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...core.cache import ImageCache
from .answers import Problem


def snapshot(cache: ImageCache) -> dict[str, Any]:
    """Look at everything once.

    :raises Problem: there are no statistics here.
    """
    taken: dict[str, Any] = _of("cachemw.core.statistics", "snapshot")(cache)
    return taken


def past(cache: ImageCache, hours: float) -> dict[str, Any]:
    """Give what was counted in the last hours.

    :raises Problem: there are no statistics here.
    """
    counted: dict[str, Any] = _of("cachemw.core.statistics", "past")(cache, hours)
    return counted


def exposition(cache: ImageCache) -> str:
    """Give the metrics as Prometheus reads them.

    :raises Problem: there are none here.
    """
    text: str = _of("cachemw.core.statistics", "exposition")(cache)
    return text


def dashboard() -> tuple[Mapping[str, tuple[str, Callable[[], bytes]]], str]:
    """Give the dashboard's files by name (media type, and what gives the bytes), and its
    Content-Security-Policy.

    :raises Problem: there is none here.
    """
    module = _module("cachemw.web.dashboard")
    return module.FILES, module.CONTENT_SECURITY_POLICY


def can_fetch(cache: ImageCache, image_id: str) -> bool:
    """Say whether anything tells how to fetch an image."""
    known: Callable[[str], bool] | None = getattr(cache, "can_fetch", None)
    return known is None or known(image_id)


def queue(cache: ImageCache) -> list[dict[str, Any]]:
    """List what is in the queue, the longest waiting first."""
    listing: Callable[[], list[dict[str, Any]]] | None = getattr(cache, "get_queue", None)
    if listing is None:
        return [{"image_id": image_id} for image_id in cache.get_queued_images()]
    return listing()


def _of(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(_module(module), name, None)
    if function is None:
        raise _not_built(module)
    return function


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not name.startswith(exc.name):
            raise
        raise _not_built(name) from None


def _not_built(module: str) -> Problem:
    return Problem(501, f"this version of the cache has no {module.rpartition('.')[2]}")
