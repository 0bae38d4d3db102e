"""Work the queue in a server: each image is asked for by a request of our own, through the filter.

It is the same way that a client's request takes, so that what is stored, and
what is not, is decided in one place.

Imports: core.cache, core.config, core.fetching, core.outcomes, core.prefetch, core.targets,
errors, web.routes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from ..core import fetching, outcomes, targets
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.outcomes import Outcome
from ..core.prefetch import Fetch, Prefetcher
from ..errors import ConfigError
from .routes import Routes

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]


class Prefetching(Prefetcher):
    """The task of the background that works the queue.

    :param app: the filter, which it does not keep alive.
    """

    name = "cachemw-prefetch"
    calls_app = True

    def __init__(self, app: App, cache: ImageCache, routes: Routes, settings: Settings) -> None:
        super().__init__(cache, settings.follow_timeout)
        self.threads = settings.prefetch_workers
        self._app = weakref.ref(app)
        self._routes = routes
        self._settings = settings
        self._server: dict[str, Any] = dict(targets.NO_SERVER)

    def begin(self, environ: Environ) -> None:
        """Learn from a request how the server calls itself; not what its client calls it."""
        self._server = {key: environ.get(key, value) for key, value in targets.NO_SERVER.items()}

    def fetch(self, fetch: Fetch) -> Outcome:
        app = self._app()
        if app is None:
            return Outcome("the server ended")
        try:
            fields = fetching.read_fields(self._settings.prefetch_headers)
        except ConfigError as exc:
            return Outcome(str(exc))
        environ = self._request(fetch)
        if environ is None:
            return outcomes.NOT_FETCHABLE
        fetching.add_fields(environ, fields)
        if self._routes.image_id(environ) != fetch.image_id:
            return Outcome("the request that it gives is for another image", is_lasting=True)
        try:
            judged = fetching.fetch(app, environ, fetch.advance)
        except Exception as exc:
            judged = outcomes.of_error(exc)
        if judged is None:
            judged = outcomes.of_end(self.cache.is_cached(fetch.image_id))
        return Outcome(fetching.without(judged.reason, fields), judged.is_lasting)

    def _request(self, fetch: Fetch) -> Environ | None:
        target = targets.target_of(fetch.image_id, fetch.url, self._settings)
        return None if target is None else targets.environ_of(target, self._server)
