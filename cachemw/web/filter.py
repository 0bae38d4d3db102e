"""The caching filter.

Put it in front of an app that hands out images::

    [filter:cache]
    use = egg:cachemw#cache
    dir = /var/cache/images
    max_size = 50GiB

    [pipeline:main]
    pipeline = cache app

or wrap the app: ``app = CacheFilter(app, dir="/var/cache/images")``.

An image that was read to its end once is served from this machine's disk from
then on, for as long as its headers say that it is fresh. ``Cache-Status`` on
every answer says what happened. Whatever goes wrong with the cache, the
request goes to the app.

Imports: errors, core.cache, core.checksum, core.config, drivers.base,
web.exchange, web.fields, web.freshness, web.respond, web.routes, web.storing.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..core import checksum
from ..core.cache import ImageCache
from ..core.config import Settings
from ..drivers.base import Entry, MemoryEntry, Record
from ..errors import CacheFull, DriverError
from . import fields, freshness, storing
from .exchange import Answer, Headers
from .respond import Representation, serve
from .routes import Routes

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]

#: Methods that do not change what they name (RFC 9110, section 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def filter_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[[App], CacheFilter]:
    """Build the caching filter: ``use = egg:cachemw#cache``.

    :param global_conf: the ``[DEFAULT]`` section; our names begin with ``image_cache_`` there.
    :param local_conf: our own section; a name that we do not know is an error.
    :raises ConfigError: names the option, its value and what was expected.
    """
    settings = Settings.from_conf(global_conf, local_conf)

    def make_filter(app: App) -> CacheFilter:
        return CacheFilter(app, cache=ImageCache.from_settings(settings))

    return make_filter


class CacheFilter:
    """A WSGI app that answers for another from a cache.

    Safe for threads, and for processes that share the directory.

    :param app: the WSGI app that has the images.
    :param cache: the cache to use; without it one is made from the options.
    :param options: see the reference page; with ``cache``, the filter's own only.
    :raises ConfigError: names the option, its value and what was expected.
    """

    def __init__(self, app: App, cache: ImageCache | None = None, **options: Any) -> None:
        if cache is None:
            settings = Settings.from_options(options)
            cache = ImageCache.from_settings(settings)
        else:
            settings = cache.settings.changed(options)
        self.app = app
        self.cache = cache
        self.settings = settings
        self._routes = Routes(settings.routes)
        self._immutable = settings.freshness == "immutable"
        self._credential_keys = (
            *storing.CREDENTIALS,
            *(storing.environ_key(name) for name in settings.credential_headers),
        )

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        image_id = self._routes.image_id(environ)
        if image_id is None:
            return self.app(environ, start_response)
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            return self._read(environ, start_response, image_id)
        return self._change(environ, start_response, image_id)

    # Reading

    def _read(
        self, environ: Environ, start_response: Callable[..., Any], image_id: str
    ) -> Iterable[bytes]:
        entry = self._lookup(image_id)
        if entry is None:
            return self._miss(environ, start_response, image_id, "uri-miss")
        record = entry.record
        if record is None:
            assert isinstance(entry, Entry)
            return self._meet_adopted(environ, start_response, entry)
        stored = _stored(record, self._immutable)
        age = freshness.current_age(record.age, record.stored, time.time())
        forward = _forward_reason(environ, record, age, stored.lifetime)
        if forward is not None:
            entry.close()
            return self._miss(environ, start_response, image_id, forward)
        return self._hit(environ, start_response, entry, stored, age, "hit")

    def _lookup(self, image_id: str) -> Entry | MemoryEntry | None:
        try:
            return self.cache.lookup(image_id)
        except Exception:
            log.exception("looking up %s failed; the request goes to the app", image_id)
            return None

    def _hit(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        entry: Entry | MemoryEntry,
        stored: Stored,
        age: float,
        status: str,
    ) -> Iterable[bytes]:
        self.cache.count_hit(entry)
        extra = (("Age", str(int(age))), _status(status))
        return serve(environ, start_response, entry, stored.representation, extra)

    def _meet_adopted(
        self, environ: Environ, start_response: Callable[..., Any], entry: Entry
    ) -> Iterable[bytes]:
        """Answer for an image that another program left, of which only the bytes are known."""
        try:
            if environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" not in environ:
                return self._miss(environ, start_response, entry.image_id, "uri-miss", entry)
        except BaseException:
            entry.close()
            raise
        entry.close()
        return self._miss(environ, start_response, entry.image_id, "uri-miss")

    # Asking the app

    def _miss(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        image_id: str,
        forward: str,
        adopted: Entry | None = None,
    ) -> Iterable[bytes]:
        """Ask the app, and store its answer if it may be.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :param adopted: another program's copy, used if the app's checksum says so; closed here.
        """
        asked = time.time()
        answer = Answer(environ, start_response, _status(f"fwd={forward}; detail=write"))
        try:
            answer.fetch(self.app)
        except BaseException:
            _close(adopted)
            raise
        if answer.written:
            _close(adopted)
            return answer.server_body()
        now = time.time()
        try:
            reason = self._refusal(environ, answer, now)
            if reason is None:
                record = storing.new_record(image_id, environ, answer.headers, asked, now)
                expected = checksum.from_headers(answer.headers)
                if adopted is not None and self._adopt(adopted, record, expected):
                    return self._serve_adopted(environ, start_response, adopted, answer)
                _close(adopted)
                return self._fill(answer, record, expected, forward)
        except BaseException:
            _close(adopted)
            answer.close()
            raise
        _close(adopted)
        return self._decline(answer, forward, reason)

    def _refusal(self, environ: Environ, answer: Answer, now: float) -> str | None:
        if environ["REQUEST_METHOD"] == "HEAD":
            return "head"
        return storing.refusal(
            environ,
            answer.code,
            answer.headers,
            content_types=self.settings.content_types,
            credential_keys=self._credential_keys,
            immutable=self._immutable,
            now=now,
        )

    def _fill(
        self,
        answer: Answer,
        record: Record,
        expected: tuple[checksum.Checksum, ...],
        forward: str,
    ) -> Iterable[bytes]:
        try:
            fill = self.cache.start_fill(
                record.image_id,
                answer.body,
                record,
                length=storing.content_length(answer.headers),
                expected=expected,
            )
        except CacheFull as exc:
            log.info("%s", exc)
            return self._decline(answer, forward, "full")
        except DriverError as exc:
            log.info("%s", exc)
            return self._decline(answer, forward, "not-writable")
        except Exception:
            log.exception("%s could not be cached", record.image_id)
            return self._decline(answer, forward, "error")
        try:
            answer.send(_status(f"fwd={forward}; stored"))
        except BaseException:
            fill.close()
            raise
        return fill

    def _decline(self, answer: Answer, forward: str, reason: str) -> Iterable[bytes]:
        answer.send(_status(f"fwd={forward}; detail={reason}"))
        return answer.server_body()

    def _adopt(self, entry: Entry, record: Record, expected: tuple[checksum.Checksum, ...]) -> bool:
        if not expected:
            return False
        known = dataclasses.replace(record, size=entry.size, checksum=str(expected[0]))
        return self.cache.adopt(entry, known)

    def _serve_adopted(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        entry: Entry,
        answer: Answer,
    ) -> Iterable[bytes]:
        answer.close()
        assert entry.record is not None
        stored = _stored(entry.record, self._immutable)
        age = entry.record.age
        return self._hit(environ, start_response, entry, stored, age, "hit; detail=adopted")

    # Not reading

    def _change(
        self, environ: Environ, start_response: Callable[..., Any], image_id: str
    ) -> Iterable[bytes]:
        """Pass another method on; where it changed the image, what is stored is out of date.

        Source: RFC 9111, section 4.4.
        """
        changes = environ["REQUEST_METHOD"] not in SAFE_METHODS
        field = _status("fwd=bypass; detail=method")

        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            if changes and status[:1] in ("2", "3"):
                self._invalidate(image_id)
            return start_response(status, [*headers, field], *exc_info)

        return self.app(environ, start)

    def _invalidate(self, image_id: str) -> None:
        try:
            self.cache.delete_cached_image(image_id)
        except Exception as exc:
            log.error("%s was changed, but its copy could not be removed: %s", image_id, exc)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """What a hit needs of a record, worked out once.

    :param lifetime: seconds for which it is fresh.
    """

    representation: Representation
    lifetime: float


@functools.lru_cache(maxsize=4096)
def _stored(record: Record, immutable: bool) -> Stored:
    headers = list(record.headers)
    if fields.get(headers, "content-type") is None:
        headers.append(("Content-Type", "application/octet-stream"))
    if fields.get(headers, "etag") is None and fields.get(headers, "last-modified") is None:
        headers.append(("ETag", f'"{record.checksum}"'))
    return Stored(Representation.of(headers, record.size), storing.lifetime(record, immutable))


def _forward_reason(environ: Environ, record: Record, age: float, lifetime: float) -> str | None:
    """Why a stored answer cannot be used, as RFC 9211, section 2.2, calls it."""
    if record.vary and not storing.is_selected(record, environ):
        return "vary-miss"
    if math.isinf(lifetime):
        return None  # it cannot have changed, whatever the client fears
    if age >= lifetime:
        return "stale"
    if not freshness.request_allows(environ, age, lifetime):
        return "request"
    return None


def _status(parameters: str) -> tuple[str, str]:
    return "Cache-Status", f"cachemw; {parameters}"


def _close(entry: Entry | None) -> None:
    if entry is not None:
        entry.close()
