"""What each of the storm's workers runs: the filter in front of the proxy to the origin."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from cachemw import CacheFilter
from cachemw.web.apps.proxy import ProxyApp

#: Idle connections to the origin that a worker keeps.
POOL = 4


def application() -> Callable[..., Iterable[bytes]]:
    """Build it from the environment; every answer says which process gave it."""
    options = json.loads(os.environ["TEST_CACHE_OPTIONS"])
    proxy = ProxyApp(os.environ["TEST_ORIGIN"], timeout=60, pool_size=POOL)

    def asked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Tell the origin when a client that has a head already needs more."""
        if environ["storm.heads"]:
            environ["HTTP_X_AGAIN"] = "1"
        return proxy(environ, start_response)

    cached = CacheFilter(asked, **options)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        heads: list[str] = []
        environ["storm.heads"] = heads

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            heads.append(status)
            return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], *exc_info)

        return cached(environ, start)

    return app
