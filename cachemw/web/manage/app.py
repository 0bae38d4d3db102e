"""The management API over one cache: who may, what for, and how trouble is told.

Imports: core.cache, errors, web.manage.access, web.manage.answers, web.manage.asked,
web.manage.images, web.manage.routing, web.manage.views, web.manage.work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...core.cache import ImageCache
from ...errors import CacheMwError
from . import access, images, routing, views, work
from .answers import Answer, Problem
from .asked import Asked, path_of, quoted
from .routing import Route

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]

Handler = Callable[[ImageCache, Asked], Answer]

#: Named as the routes.
_HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        *(views.page, views.file, views.metrics, views.stats, views.history, views.versions),
        *(images.list_cached, images.show_cached, images.delete_cached, images.delete_all_cached),
        *(images.list_queued, images.show_queued, images.delete_queued, images.delete_all_queued),
        *(images.queue, images.list_all, images.clear, images.delete_anywhere, images.list_nodes),
        *(work.start_job, work.list_jobs, work.show_job),
    )
}

#: A page must be there before it can ask for the token, and has nothing secret in it.
_OPEN_WITH_TOKEN = frozenset({"page", "file"})


class ManagementApp:
    """The management API as a WSGI app. Safe for threads, and for processes that share the
    cache directory.

    :param cache: what is managed; its setting ``admin_token`` says who may.
    """

    def __init__(self, cache: ImageCache) -> None:
        self.cache = cache
        self._token = cache.settings.admin_token
        self._health = views.Health(cache)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        base = quoted(environ.get("SCRIPT_NAME", ""))
        return self.answer(environ, base, path_of(environ)).send(
            environ["REQUEST_METHOD"], start_response
        )

    def answer(self, environ: Environ, base: str, path: str) -> Answer:
        """Answer a request. Never raises.

        :param base: the mount point, quoted.
        :param path: below it, unquoted.
        """
        try:
            return self._answer(environ, base, path)
        except Problem as problem:
            return problem.answer()
        except (CacheMwError, OSError) as exc:
            log.warning("%s %r: %s", environ["REQUEST_METHOD"], path, exc)
            return Problem(503, f"the cache cannot do it now: {exc}").answer()
        except Exception:
            log.exception("%s %r failed", environ["REQUEST_METHOD"], path)
            return Problem(500, "the cache failed; its log says how").answer()

    def _answer(self, environ: Environ, base: str, path: str) -> Answer:
        if not path:
            # What the page loads is beside it, which the slash decides.
            return Answer(308, headers={"Location": f"{base}/"})
        method = environ["REQUEST_METHOD"]
        route = routing.find(method, path)
        if route is not None and route.name == "health":
            return views.health(self._health)
        self._admit(environ, route)
        if route is None:
            raise Problem(404, "there is nothing here")
        if not route.name:
            allow = ", ".join(route.methods)
            raise Problem(405, f"the methods here are {allow}", {"Allow": allow})
        answer = _HANDLERS[route.name](self.cache, Asked(environ, base, path, route.argument))
        if method not in ("GET", "HEAD"):
            log.info("%s %r by %s", method, path, environ.get("REMOTE_ADDR") or "somebody")
        return answer

    def _admit(self, environ: Mapping[str, Any], route: Route | None) -> None:
        """Let pass who may.

        :raises Problem: it may not.
        """
        refused = access.refuse_across_sites(environ)
        is_open = self._token and route is not None and route.name in _OPEN_WITH_TOKEN
        if refused is None and not is_open:
            refused = access.refuse(environ, self._token)
        if refused is None:
            return
        if refused.asks_token:
            # Not Basic: a browser would ask for a password, and send it from then on.
            raise Problem(401, refused.detail, {"WWW-Authenticate": 'Bearer realm="cachemw"'})
        raise Problem(403, refused.detail)


class ManagementFilter:
    """The management API in front of an app, which gets all other requests untouched.

    :param app: the WSGI app.
    :param management: answers those that are for the API.
    """

    def __init__(self, app: App, management: ManagementApp) -> None:
        self.app = app
        self.management = management

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not environ.get("PATH_INFO", "").startswith(routing.BEGINNINGS):
            return self.app(environ, start_response)
        path = path_of(environ)
        base = quoted(environ.get("SCRIPT_NAME", ""))
        below = routing.below_folder(path)
        if below is not None:
            answer = self.management.answer(environ, f"{base}{routing.FOLDER}", below)
        elif routing.is_in_front(path):
            answer = self.management.answer(environ, base, path)
        else:
            return self.app(environ, start_response)
        return answer.send(environ["REQUEST_METHOD"], start_response)
