"""Fetch images from the queue through whatever has the filter in it.

Imports: core.cache, core.config, core.outcomes, core.prefetch, core.targets, errors.
"""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import ConfigError
from . import outcomes, targets
from .cache import ImageCache
from .config import Settings
from .outcomes import Outcome
from .prefetch import Fetch, Prefetcher
from .targets import Target

App = Callable[..., Iterable[bytes]]
Fields = Sequence[tuple[str, str]]

_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t\x80-\xff]*?)[ \t]*")

#: What the cache decides itself, or what would make another request of it.
_REFUSED = re.compile(
    r"range|if-.*|host|connection|content-length|transfer-encoding|expect|te|upgrade|user-agent"
)

#: A longer file has no request fields (bytes).
_LONGEST = 64 * 1024


def read_fields(source: str) -> list[tuple[str, str]]:
    """Read the request fields for prefetching; each time anew, since tokens run out.

    :param source: as the option ``prefetch_headers`` has it.
    :raises ConfigError: they cannot be read; no message has anything of them.
    """
    kind, _, place = source.partition(":")
    if not source:
        return []
    if kind == "env":
        if place not in os.environ:
            raise ConfigError(f"prefetch_headers: the environment variable {place} is not set")
        return _parsed(os.environ[place])
    try:
        with open(place, encoding="latin-1") as file:
            return _parsed(file.read(_LONGEST))
    except OSError as exc:
        raise ConfigError(f"prefetch_headers: {place}: {exc.strerror}") from None


def _parsed(text: str) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            raise ConfigError(f"prefetch_headers: line {number} is not 'Name: value'")
        if _REFUSED.fullmatch(match[1].lower()):
            raise ConfigError(f"prefetch_headers: line {number}: {match[1]} cannot be set")
        found.append((match[1], match[2]))
    return found


def add_fields(environ: dict[str, Any], fields: Fields) -> None:
    """Add request fields to a request."""
    for name, value in fields:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
        environ[key] = f"{environ[key]}, {value}" if key in environ else value


def without(text: str, fields: Fields) -> str:
    """Take from a text for logs and listings whatever it has of the values of request fields."""
    for _, value in fields:
        for word in (value, *value.split()):
            if len(word) > 3:
                text = text.replace(word, "...")
    return text


def call(app: App, environ: dict[str, Any], advance: Callable[[int], None]) -> Outcome | None:
    """Ask an app for an image, and read its answer to the end if it is being stored.

    :param advance: called with the number of bytes that came.
    :return: ``None``: it was read to its end.
    :raises Exception: whatever the app raises.
    """
    heads: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        heads.append((status, list(headers)))
        advance(0)
        return lambda data: advance(len(data))

    body = app(environ, start_response)
    try:
        chunks = iter(body)
        first = b"" if heads else next(chunks, b"")
        if not heads:
            return Outcome("the app did not call start_response")
        judged = outcomes.of_answer(*heads[-1])
        if judged is not None:
            return judged
        advance(len(first))
        for chunk in chunks:
            advance(len(chunk))
        return None
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


class Fetcher(Prefetcher):
    """Works a queue, and asks for each image as its id or URL says.

    :param settings: of the filter.
    :param observe: as for :class:`~cachemw.core.prefetch.Prefetcher`.
    """

    def __init__(
        self,
        cache: ImageCache,
        settings: Settings,
        observe: Callable[[Fetch], object] = lambda fetch: None,
    ) -> None:
        super().__init__(cache, settings.follow_timeout, observe)
        self._settings = settings

    @abc.abstractmethod
    def ask(self, target: Target, fields: Fields, fetch: Fetch) -> Outcome | None:
        """Ask for an image, and read the answer to its end if it is being stored.

        :param fields: request fields of the operator's.
        :return: ``None``: it was read to its end.
        """

    def fetch(self, fetch: Fetch) -> Outcome:
        try:
            fields = read_fields(self._settings.prefetch_headers)
        except ConfigError as exc:
            return Outcome(str(exc))
        target = targets.target_of(fetch.image_id, fetch.url, self._settings)
        if target is None:
            return outcomes.NOT_FETCHABLE
        try:
            judged = self.ask(target, fields, fetch)
        except Exception as exc:
            judged = outcomes.of_error(exc, fetch.received)
        if judged is None:
            judged = outcomes.of_end(self.cache.is_cached(fetch.image_id))
        return Outcome(without(judged.reason, fields), judged.is_lasting)


class AppFetcher(Fetcher):
    """Asks a WSGI app, such as a pipeline with the filter in it.

    :param app: the app.
    """

    def __init__(
        self,
        app: App,
        cache: ImageCache,
        settings: Settings,
        observe: Callable[[Fetch], object] = lambda fetch: None,
    ) -> None:
        super().__init__(cache, settings, observe)
        self._app = app

    def ask(self, target: Target, fields: Fields, fetch: Fetch) -> Outcome | None:
        environ = targets.environ_of(target)
        add_fields(environ, fields)
        return call(self._app, environ, fetch.advance)
