"""Put an image in the queue because of a request that did not fetch all of it.

Imports: core.cache, errors, web.routes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..core.cache import ImageCache
from ..errors import DriverError
from .routes import Routes

log = logging.getLogger(__name__)


class Queuer:
    """Queues images, with what fetches them. Safe for threads."""

    def __init__(self, cache: ImageCache, routes: Routes) -> None:
        self._cache = cache
        self._routes = routes

    def __call__(self, request: Mapping[str, Any], image_id: str) -> None:
        """Have an image fetched later; one that keeps failing is not begun anew.

        :param request: as the client made it.
        """
        url = self._routes.url(request)
        try:
            self._cache.queue_image(image_id, None if url == image_id else url, anew=False)
        except DriverError as exc:
            log.info("%s is not queued: %s", image_id, exc.reason)
