"""Ask the app whether what is stored still holds, and decide by what it says.

For a request that waits for the answer (:meth:`Revalidator.revalidate`), or
behind the back of a client that was just served what is stale
(:meth:`Revalidator.refresh`).

Source: RFC 9111, section 4.3; RFC 5861.

Imports: core.cache, core.config, core.reader, drivers.base, web.conditional, web.exchange,
web.fields, web.forward, web.freshness, web.hits, web.keeping, web.refresh, web.resuming,
web.storing, web.validation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.reader import Reader
from ..drivers.base import Record
from . import conditional, fields, freshness, hits, storing, validation
from .exchange import Answer, nobody
from .forward import Forwarder, given_back
from .hits import AnyEntry
from .keeping import Keeper
from .refresh import Refresher
from .resuming import asking

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
StartResponse = Callable[..., Any]

#: The app cannot answer now (RFC 5861, section 4).
_FAILURES = frozenset({500, 502, 503, 504})


class Revalidator:
    """Asks the app about stored answers. Safe for threads.

    :param rules: what may be stored.
    :param forward: asks for what is not stored, or not any more.
    """

    def __init__(
        self,
        app: App,
        cache: ImageCache,
        settings: Settings,
        rules: storing.Rules,
        keeper: Keeper,
        forward: Forwarder,
    ) -> None:
        self._app = app
        self._entries = cache.entries
        self._settings = settings
        self._service = settings.service
        self._rules = rules
        self._keeper = keeper
        self._forward = forward
        self._refresher = Refresher(self._refresh)

    def revalidate(
        self,
        environ: Environ,
        start_response: StartResponse,
        entry: AnyEntry,
        stored: hits.Stored,
        decision: freshness.Decision,
    ) -> Iterable[bytes]:
        """Ask the app whether a stored answer still holds; closes the entry.

        The app gets the client's own request but for its conditions and its range. Only a 304
        that is about what is stored, or a 200 that brings the same, lets the stored bytes out.
        Without a validator nothing but the conditions is missing: all of it is sent anew.

        :param decision: why it is asked, and whether stale is better than an error.

        Source: RFC 9111, sections 4.3.1 to 4.3.4; RFC 5861, section 4.
        """
        record = entry.record
        assert record is not None
        forward = decision.forward or "stale"
        with contextlib.ExitStack() as stack:
            stack.callback(entry.close)
            try:
                answer = self._ask_about(environ, start_response, record, forward)
            except Exception as exc:
                if not self._may_be_stale(decision):
                    raise
                log.warning("%s: the app failed (%s); a stale copy is served", record.image_id, exc)
                stack.pop_all()
                return self._serve_stale(environ, environ, start_response, entry, stored, forward)
            if answer.written:
                return answer.server_body()
            stack.callback(answer.close)
            status = f"{forward}; fwd-status={answer.code}"
            if self._holds(record, answer):
                answer.close()
                fresh = self._validated(entry, record, answer)
                stack.pop_all()
                return self._forward.serve_validated(
                    environ, answer, start_response, entry, fresh, f"fwd={status}"
                )
            if answer.code in _FAILURES and self._may_be_stale(decision):
                answer.close()
                stack.pop_all()
                return self._serve_stale(
                    environ, answer.request, start_response, entry, stored, status
                )
            if answer.code == 304 or self._service.asks_by_head:
                # About something that is not what we have, or without what the client wants.
                answer.close()
                request = given_back(environ, answer)
                return self._forward.miss(
                    request, start_response, record.image_id, forward, replaces=record
                )
            body = self._replace(environ, answer, record, forward)
            stack.pop_all()
            entry.close()
            return body

    def refresh(self, environ: Environ, record: Record) -> None:
        """Ask the app about a stored answer in the background, once at a time.

        Source: RFC 5861, section 3.
        """
        self._refresher.start(environ, record)

    def _refresh(self, environ: Environ, record: Record) -> None:
        entry = self._entries.lookup(record.image_id, lambda other: other.vary == record.vary)
        if entry is None:
            return
        with contextlib.closing(entry):
            if entry.record is not None:
                self._renew(environ, entry, entry.record)

    def _renew(self, environ: Environ, entry: AnyEntry, record: Record) -> None:
        """Ask the app about an entry; read what it has in its place to the end."""
        answer = self._ask_about(environ, nobody, record, "stale")
        if self._holds(record, answer):
            answer.close()
            self._validated(entry, record, answer)
        elif answer.written:
            answer.close()  # what was written is not in the body
        elif answer.code == 304 or self._service.asks_by_head:
            answer.close()
            request = given_back(environ, answer)
            _drain(self._forward.miss(request, nobody, record.image_id, "stale", replaces=record))
        else:
            _drain(self._replace(environ, answer, record, "stale"))

    # What the app says

    def _ask_about(
        self, environ: Environ, start_response: StartResponse, record: Record, forward: str
    ) -> Answer:
        """Ask the app about what is stored."""
        answer = self._forward.answer(environ, start_response, forward, record.image_id)
        asked = validation.conditions(record.headers)
        if self._service.asks_by_head:
            asked = {"REQUEST_METHOD": "HEAD"}
        with asking(environ, asked):
            answer.fetch(self._app)
        return answer

    def _holds(self, record: Record, answer: Answer) -> bool:
        """Whether the app says that what is stored is what it has."""
        if answer.code == 304:
            asked = validation.conditions(record.headers)
            return bool(asked) and validation.freshens(record.headers, answer.headers)
        if answer.code != 200:
            return False
        if self._keeper.named(record) is not None:
            # Other bytes cannot have that name, but may come in the place of the image.
            return _has_length(answer.headers, record.size)
        return validation.same_representation(
            record.headers,
            record.size,
            record.checksum,
            answer.headers,
            self._keeper.promised(answer),
        )

    def _validated(self, entry: AnyEntry, record: Record, answer: Answer) -> Record:
        """Give the record as the app's answer renews it; kept where freshness depends on it.

        Source: RFC 9111, sections 3.2 and 4.3.4.
        """
        now = answer.answered
        headers = validation.updated(
            record.headers,
            answer.headers,
            now,
            whole=answer.code == 304 and self._service.whole_304,
        )
        headers = self._rules.impersonal(headers)
        fresh = dataclasses.replace(
            record,
            headers=headers,
            vary=()
            if self._keeper.named(record) is not None
            else storing.selecting(answer.request, headers),
            stored=now,
            age=freshness.initial_age(answer.headers, answer.asked, now),
        )
        if self._settings.freshness == "http":
            self._keeper.renew(entry, fresh, answer)
        return fresh

    def _replace(
        self, environ: Environ, answer: Answer, record: Record, forward: str
    ) -> Iterable[bytes]:
        """Pass on an answer that is not what is stored; store it if it may be."""
        code = answer.code
        # The range was not asked of the app, so what came is whole.
        reason = self._keeper.refusal(answer, validation.unconditional(answer.known_request))
        if code == 200:
            outcome = _evaluate(answer.request, answer.headers)
            if outcome != 200:
                answer.close()
                if not validation.freshens(record.headers, answer.headers):
                    self._keeper.forget_if_gone(answer, record, reason)
                return answer.instead(outcome, hits.cache_status(f"fwd={forward}; fwd-status=200"))
        if reason is None:
            fresh = self._keeper.record(answer, record.image_id, record)
            return self._keeper.fill(
                answer, fresh, self._keeper.expected(environ, answer, fresh), forward
            )
        body = self._keeper.decline(answer, f"{forward}; fwd-status={code}", reason)
        self._keeper.forget_if_gone(answer, record, reason)
        return body

    # What is stale

    def _may_be_stale(self, decision: freshness.Decision) -> bool:
        return decision.stale_if_error and not self._rules.authorized

    def _serve_stale(
        self,
        environ: Environ,
        request: Environ,
        start_response: StartResponse,
        entry: AnyEntry,
        stored: hits.Stored,
        forward: str,
    ) -> Iterable[bytes]:
        record = entry.record
        assert record is not None
        age = freshness.current_age(record.age, record.stored, time.time())
        return self._forward.serve(
            environ,
            request,
            start_response,
            entry,
            stored.representation,
            age,
            f"fwd={forward}; detail=stale-if-error",
        )


def _has_length(headers: fields.Headers, size: int) -> bool:
    """Whether an answer does not promise another length, or nonsense."""
    try:
        return storing.content_length(headers) in (None, size)
    except ValueError:
        return False


def _evaluate(environ: Environ, headers: fields.Headers) -> int:
    """What the client's own conditions make of a new answer: 200, 304 or 412."""
    modified = fields.get(headers, "last-modified")
    return conditional.evaluate(
        environ,
        fields.get(headers, "etag"),
        fields.parse_http_date(modified) if modified else None,
    )


def _drain(body: Iterable[bytes]) -> None:
    """Read a body that is being stored to its end; close any."""
    try:
        if isinstance(body, Reader):
            for _ in body:
                pass
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
