"""Fetch images from the queue through a server that runs.

Imports: core.cache, core.config, core.fetching, core.outcomes, core.prefetch, core.targets,
errors.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from ..core import outcomes
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fetching import Fetcher, Fields
from ..core.outcomes import Outcome
from ..core.prefetch import Fetch
from ..core.targets import USER_AGENT, Target
from ..errors import ConfigError, DriverError

_BLOCK = 256 * 1024


def parse_server(url: str) -> SplitResult:
    """Read the URL of a server.

    :raises ConfigError: it is none.
    """
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or parts.query or parts.username is not None:
        raise ConfigError("--url: expected http://HOST[:PORT] or https://HOST[:PORT]")
    return parts


def connect(server: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """Give a connection, not made yet."""
    assert server.hostname is not None
    if server.scheme == "https":
        return http.client.HTTPSConnection(server.hostname, server.port, timeout=timeout)
    return http.client.HTTPConnection(server.hostname, server.port, timeout=timeout)


class ServerFetcher(Fetcher):
    """Asks a server over HTTP; what it stores is looked up in the cache directory.

    :param server: where it is; the path of its URL is put before paths that ids give.
    """

    def __init__(
        self,
        server: SplitResult,
        cache: ImageCache,
        settings: Settings,
        observe: Callable[[Fetch], object],
    ) -> None:
        super().__init__(cache, settings, observe)
        self._server = server

    def ask(self, target: Target, fields: Fields, fetch: Fetch) -> Outcome | None:
        patience = self._settings.follow_timeout
        # The server itself gives up first, and says why.
        connection = connect(self._server, patience * 2 + 1)
        try:
            return self._ask(connection, target, fields, fetch)
        except TimeoutError:
            return outcomes.of_stall(patience, fetch.received)
        except (OSError, http.client.HTTPException) as exc:
            said = str(exc) or type(exc).__name__
            return self._failed(fetch, f"the server did not answer to the end: {said}")
        finally:
            connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, target: Target, fields: Fields, fetch: Fetch
    ) -> Outcome | None:
        base = "" if target.host else self._server.path.rstrip("/")
        path = f"{base}{target.relative}" or "/"
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", target.host or self._server.netloc)
        connection.putheader("User-Agent", USER_AGENT)
        for name, value in fields:
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders()
        response = connection.getresponse()
        fetch.advance(0)
        status = f"{response.status} {response.reason}"
        judged = outcomes.of_answer(status, response.getheaders())
        if judged is not None:
            return self._failed(fetch, judged.reason) if response.status >= 500 else judged
        while block := response.read1(_BLOCK):
            fetch.advance(len(block))
        if response.length:
            return self._failed(fetch, f"the server broke off after {fetch.received} bytes")
        return None

    def _failed(self, fetch: Fetch, reason: str) -> Outcome:
        """Say why a fetch failed: what the server noted of it is nearer to the cause."""
        try:
            noted = self.cache.driver.get_invalid_images()
        except DriverError:
            noted = []
        for image in noted:
            if image["image_id"] == fetch.image_id and image["last_modified"] >= fetch.began - 1:
                return Outcome(image["reason"])
        return Outcome(reason)
