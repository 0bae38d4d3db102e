"""Work the queue in a server: each image is asked for by a request of our own, through the filter.

It is the same way that a client's request takes, so that what is stored, and
what is not, is decided in one place.

Imports: core.cache, core.config, core.fetching, core.outcomes, core.prefetch, core.targets,
web.routes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from ..core import fetching, targets
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fetching import Fetcher, Fields
from ..core.outcomes import Outcome
from ..core.prefetch import Fetch
from ..core.targets import Target
from .routes import Routes

App = Callable[..., Iterable[bytes]]


class Prefetching(Fetcher):
    """The task of the background that works the queue.

    :param app: the filter, which it does not keep alive.
    """

    name = "cachemw-prefetch"
    calls_app = True

    def __init__(self, app: App, cache: ImageCache, routes: Routes, settings: Settings) -> None:
        super().__init__(cache, settings)
        self.threads = settings.prefetch_workers
        self._app = weakref.ref(app)
        self._routes = routes
        self._server: dict[str, Any] = dict(targets.NO_SERVER)

    def begin(self, environ: dict[str, Any]) -> None:
        """Learn from a request how the server calls itself; not what its client calls it."""
        self._server = {key: environ.get(key, value) for key, value in targets.NO_SERVER.items()}

    def ask(self, target: Target, fields: Fields, fetch: Fetch) -> Outcome | None:
        app = self._app()
        if app is None:
            return Outcome("the server ended")
        environ = targets.environ_of(target, self._server)
        fetching.add_fields(environ, fields)
        if self._routes.image_id(environ) != fetch.image_id:
            return Outcome("its id or URL gives a request for another image", is_lasting=True)
        return fetching.call(app, environ, fetch.advance)
