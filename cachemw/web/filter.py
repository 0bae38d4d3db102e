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

Imports: core.cache, core.config, core.growing, core.sharing, core.targets, core.upkeep,
drivers.base, errors, web.access_log, web.authorize, web.background, web.directives, web.fields,
web.forward, web.freshness, web.growing, web.hits, web.keeping, web.measuring, web.prefetching,
web.queueing, web.ranges, web.resuming, web.revalidate, web.routes, web.storing, web.validation,
web.vary.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.growing import FillLost
from ..core.sharing import Joined
from ..core.targets import OWN_REQUEST
from ..core.upkeep import Upkeep
from ..drivers.base import Entry, MemoryEntry, Record
from ..errors import ImageCorrupt
from . import fields, freshness, hits, ranges, resuming, storing, validation, vary
from .access_log import AccessLog
from .authorize import Hook
from .background import Background
from .directives import request_directives
from .forward import Forwarder
from .growing import GrowingEntry
from .hits import AnyEntry
from .keeping import Keeper
from .measuring import Meter, Watch
from .prefetching import Prefetching
from .queueing import Queuer
from .revalidate import Revalidator
from .routes import Routes

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]

#: Methods that do not change what they name (RFC 9110, section 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

#: Fills that one request reads along with, after one was lost before its first byte; then it
#: asks the app for itself.
_MOST_FILLS = 2


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
        self._entries = cache.entries
        self._sharing = cache.sharing
        service = settings.service
        self._routes = Routes(
            settings.routes, service.resources, service.query_in_id, service.query_apart
        )
        self._immutable = settings.freshness == "immutable"
        self._asks_app = settings.authorize == "app"
        self._hook = Hook(settings.authorize) if settings.authorize.startswith("python:") else None
        rules = storing.Rules(
            content_types=settings.content_types,
            credential_keys=(
                *storing.CREDENTIALS,
                *map(fields.environ_key, settings.credential_headers),
            ),
            authorized=settings.authorize != "off",
            unconditional=settings.freshness != "http",
            uncoded=service.id_is_checksum,
            not_images=service.not_images,
        )
        keeper = Keeper(cache, settings, rules, self._hook)
        self._forward = Forwarder(app, cache, settings, keeper, Queuer(cache, self._routes))
        log = AccessLog(settings.access_log) if settings.access_log else None
        self._meter = Meter(cache.counters, log)
        self._revalidator = Revalidator(app, cache, settings, rules, keeper, self._forward)
        prefetching = Prefetching(self, cache, self._routes, settings)
        self._background = Background(cache, prefetching, Upkeep(cache))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self._background.is_begun:
            self._background.begin(environ)
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return self._change(environ, start_response)
        image_id = self._routes.image_id(environ)
        if image_id is None:
            return self.app(environ, start_response)
        if OWN_REQUEST in environ:
            return self._respond(environ, start_response, image_id)  # no client asked
        watch = Watch(start_response)
        try:
            body = self._respond(environ, watch, image_id)
        except BaseException:
            self._meter.failed(watch, image_id)
            raise
        return self._meter.measured(environ, watch, image_id, body)

    def _respond(
        self, environ: Environ, start_response: Callable[..., Any], image_id: str
    ) -> Iterable[bytes]:
        reason = storing.bypass(environ)
        if reason is not None:
            return self._forward.pass_on(environ, start_response, reason)
        return self._read(environ, start_response, image_id)

    # Reading

    def _read(
        self, environ: Environ, start_response: Callable[..., Any], image_id: str
    ) -> Iterable[bytes]:
        for _ in range(_MOST_FILLS):
            selection = self._selection(environ)
            entry = None
            if not self._sharing.is_filling(image_id, selection):
                entry = self._lookup(image_id, selection)
            try:
                if entry is None:
                    return self._miss(environ, start_response, image_id, selection)
                return self._answer_or_meet(environ, start_response, entry)
            except FillLost as exc:
                # Of this version nothing is to be had any more, and nothing was sent.
                log.info("%s; the request looks for another", exc)
        return self._forward.miss(environ, start_response, image_id, "uri-miss")

    def _answer_or_meet(
        self, environ: Environ, start_response: Callable[..., Any], entry: AnyEntry
    ) -> Iterable[bytes]:
        try:
            if entry.record is None:
                assert isinstance(entry, Entry)
                return self._meet_adopted(environ, start_response, entry)
            return self._answer(environ, start_response, entry, entry.record)
        except BaseException:
            entry.close()
            raise

    def _answer(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        entry: AnyEntry,
        record: Record,
    ) -> Iterable[bytes]:
        """Answer from an entry, if it is fresh and this client may have it.

        :raises FillLost: it is a fill that was lost before its first byte; nothing was sent.
        """
        if self._hook is not None:
            refused = self._refuse(environ, start_response, entry, record)
            if refused is not None:
                return refused
        stored = hits.stored(record, self.settings.freshness)
        age = freshness.current_age(record.age, record.stored, time.time())
        if self._asks_app:
            decision = _ASK
        elif self._immutable:
            decision = _SERVE  # it cannot have changed, whatever the client fears
        else:
            decision = freshness.decide(environ, age, stored.policy)
        if decision.action == freshness.SERVE_STALE_AND_REVALIDATE and not (
            environ.get("wsgi.multithread", True)
        ):
            # The app must not be called by another thread.
            decision = dataclasses.replace(decision, action=freshness.REVALIDATE)
        if decision.action == freshness.REVALIDATE:
            if freshness.only_if_cached(environ):
                entry.close()
                return _gateway_timeout(environ, start_response)
            return self._revalidator.revalidate(environ, start_response, entry, stored, decision)
        is_hit = not isinstance(entry, GrowingEntry) or entry.is_verified
        status = "hit" if is_hit else "fwd=uri-miss; collapsed"
        if decision.action == freshness.SERVE_STALE_AND_REVALIDATE:
            status = "hit; detail=stale-while-revalidate"
            self._revalidator.refresh(environ, record)
        try:
            return hits.answer(
                self._entries,
                environ,
                start_response,
                entry,
                stored.representation,
                age,
                status,
                self._forward.going_on(environ) if entry.is_checked else None,
            )
        except ImageCorrupt:
            return self._miss(environ, start_response, record.image_id)

    def _lookup(
        self, image_id: str, selects: Callable[[Record], bool]
    ) -> Entry | MemoryEntry | None:
        try:
            return self._entries.lookup(image_id, selects)
        except Exception:
            log.exception("looking up %s failed; the request goes to the app", image_id)
            return None

    def _miss(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        image_id: str,
        selection: _Selection | None = None,
    ) -> Iterable[bytes]:
        """Answer what is not stored: from a fill under way, or from the app."""
        if freshness.only_if_cached(environ):
            return _gateway_timeout(environ, start_response)
        selection = selection or self._selection(environ)
        joined = self._join(environ, image_id, selection)
        if joined.entry is not None:
            return self._answer_or_meet(environ, start_response, joined.entry)
        if joined.growing is not None:
            assert joined.reader is not None
            if self.settings.range_miss != "fill" and ranges.is_far(
                environ, joined.growing.available, joined.growing.length
            ):
                joined.reader.close()
                return self._forward.miss(environ, start_response, image_id, "uri-miss")
            entry = GrowingEntry(
                joined.growing,
                joined.reader,
                patience=self.settings.follow_timeout,
                go_on=self._forward.going_on(environ),
            )
            return self._answer_or_meet(environ, start_response, entry)
        forward = "vary-miss" if selection.others else "uri-miss"
        lead = joined.lead
        if lead is not None and "HTTP_RANGE" in environ and self.settings.range_miss == "slice":
            return self._forward.slice(environ, start_response, image_id, forward, lead)
        return self._forward.miss(environ, start_response, image_id, forward, lead=lead)

    def _join(self, environ: Environ, image_id: str, selection: _Selection) -> Joined:
        try:
            return self._sharing.join(
                image_id,
                selection,
                patience=self.settings.follow_timeout,
                may_lead=self._may_lead(environ) and image_id not in self._sharing.declined,
                finish_from=self.settings.on_abort,
                is_movable=resuming.is_movable(environ, self.settings),
            )
        except Exception as exc:
            log.warning("%s is fetched without its fill: %s", image_id, exc)
            return Joined()

    def _may_lead(self, environ: Environ) -> bool:
        """Whether the app's answer to a request is likely to be the whole image, for everybody."""
        if environ["REQUEST_METHOD"] != "GET" or "no-store" in request_directives(environ):
            return False
        conditions = {key for key in validation.CLIENT_CONDITIONS if key in environ}
        if self.settings.range_miss in ("fill", "slice"):
            conditions -= {"HTTP_RANGE", "HTTP_IF_RANGE"}
        return not conditions

    def _selection(self, environ: Environ) -> _Selection:
        return _Selection(environ, self.settings.authorize != "off")

    def _miss_adopted(
        self, environ: Environ, start_response: Callable[..., Any], entry: Entry
    ) -> Iterable[bytes]:
        if freshness.only_if_cached(environ):
            entry.close()
            return _gateway_timeout(environ, start_response)
        return self._forward.miss(
            environ, start_response, entry.image_id, "uri-miss", adopted=entry
        )

    def _meet_adopted(
        self, environ: Environ, start_response: Callable[..., Any], entry: Entry
    ) -> Iterable[bytes]:
        """Answer for an image that another program left, of which only the bytes are known."""
        if environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" not in environ:
            return self._miss_adopted(environ, start_response, entry)
        entry.close()
        if freshness.only_if_cached(environ):
            return _gateway_timeout(environ, start_response)
        return self._forward.miss(environ, start_response, entry.image_id, "uri-miss")

    def _refuse(
        self,
        environ: Environ,
        start_response: Callable[..., Any],
        entry: AnyEntry,
        record: Record,
    ) -> Iterable[bytes] | None:
        """Let the app answer whom the hook does not allow the copy, or if the copy is wrong.

        :return: ``None``: it is allowed, and the entry is still open.
        """
        assert self._hook is not None
        try:
            if self._hook.allows(environ, record.image_id, entry):
                return None
        except ImageCorrupt as exc:
            entry.close()
            log.warning("%s", exc)
            self._invalidate(record.image_id)
            return self._miss(environ, start_response, record.image_id)
        entry.close()
        if freshness.only_if_cached(environ):
            return _gateway_timeout(environ, start_response)
        return self._forward.pass_on(environ, start_response, "authorize")

    # Changing

    def _change(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Pass another method on; where it changed images, what is stored is out of date.

        Source: RFC 9111, section 4.4.
        """
        is_image = self._routes.image_id(environ) is not None
        is_safe = environ["REQUEST_METHOD"] in SAFE_METHODS
        if is_safe and not is_image:
            return self.app(environ, start_response)
        changed_by = self._routes.changes(environ)
        field = hits.cache_status("fwd=bypass; detail=method")
        changed: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if not is_safe and status[:1] in ("2", "3"):
                changed.extend(changed_by(headers))
                self._invalidate(*changed)
            if is_image:
                headers = [*headers, field]
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        body = self.app(environ, start)
        if is_safe:
            return body
        if isinstance(body, list | tuple):
            # All is done, and nobody has heard of it yet who could ask again.
            self._invalidate(*changed)
            return body
        return _Ending(body, lambda: self._invalidate(*changed))

    def _invalidate(self, *image_ids: str) -> None:
        for image_id in dict.fromkeys(image_ids):
            try:
                self.cache.delete_cached_image(image_id)
            except Exception as exc:
                log.error("%s was changed, but its copy could not be removed: %s", image_id, exc)


class _Selection:
    """Which of an image's variants a request is for (RFC 9111, section 4.1)."""

    __slots__ = ("_is_authorized", "environ", "others")

    def __init__(self, environ: Environ, is_authorized: bool) -> None:
        self.environ = environ
        self._is_authorized = is_authorized
        #: Whether one was met that is for other requests.
        self.others = False

    def __call__(self, record: Record) -> bool:
        if record.guarded and not self._is_authorized:
            return False  # stored when each hit was asked about
        if not record.vary or vary.selected(record.vary, self.environ):
            return True
        self.others = True
        return False


class _Ending:
    """The body of the answer to a change, after which the images are invalidated once more.

    An app may well change them after it called ``start_response``: what was
    stored between the two is out of date as well.
    """

    def __init__(self, body: Iterable[bytes], ended: Callable[[], None]) -> None:
        self._body = body
        self._ended = ended

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:  # noqa: UP028 (it would close the body with this, once more)
            yield chunk
        # Before the server tells the client that this was all.
        self._end()

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, _nothing
        ended()


def _nothing() -> None:
    pass


_SERVE = freshness.Decision(freshness.SERVE)
_ASK = freshness.Decision(freshness.REVALIDATE, "stale")


def _gateway_timeout(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """RFC 9111, section 5.2.1.7."""
    text = b"not in the cache, and the request says only-if-cached\n"
    start_response(
        "504 Gateway Timeout",
        [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(text))),
            hits.cache_status("detail=only-if-cached"),
        ],
    )
    # Not every server leaves the body of an answer to HEAD away.
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
