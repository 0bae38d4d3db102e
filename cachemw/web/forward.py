"""Put a request to the app, and decide by what it answers.

Three ways lead here: nothing is stored (:meth:`Forwarder.miss`), what is
stored has to be asked about (:meth:`Forwarder.revalidate`), and what was just
served stale is asked about behind the client's back (:meth:`Forwarder.refresh`).
What the app answers is stored by ``web.keeping``.

Imports: errors, core.cache, core.config, core.fill, core.growing, drivers.base, web.authorize,
web.conditional, web.exchange, web.fields, web.freshness, web.hits,
web.keeping, web.lasting, web.refresh, web.respond, web.storing, web.validation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from .. import concurrency
from ..core.cache import ImageCache
from ..core.checksum import Checksum
from ..core.config import Settings
from ..core.fill import Fill
from ..core.growing import FillLost
from ..core.reader import Reader
from ..drivers.base import Entry, Record
from ..errors import DriverError, ImageCorrupt
from . import conditional, fields, freshness, hits, resuming, storing, validation
from .authorize import Hook
from .exchange import Answer, nobody
from .growing import GrowingEntry
from .hits import AnyEntry
from .keeping import Keeper
from .lasting import GoOn
from .refresh import Refresher
from .respond import Representation
from .resuming import Resumer, asking
from .slices import Slicer

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
StartResponse = Callable[..., Any]

#: The app cannot answer now (RFC 5861, section 4).
_FAILURES = frozenset({500, 502, 503, 504})


class Forwarder:
    """Asks the app. Safe for threads.

    :param rules: what may be stored.
    :param hook: who may have a copy, if a function says so.
    """

    def __init__(
        self,
        app: App,
        cache: ImageCache,
        settings: Settings,
        rules: storing.Rules,
        hook: Hook | None,
    ) -> None:
        self._app = app
        self._cache = cache
        self._settings = settings
        self._service = settings.service
        self._rules = rules
        self._keeper = Keeper(cache, settings, rules, hook)
        self._resumer = Resumer(app, cache, settings, self._keeper)
        self._slicer = Slicer(app, cache, settings, self._keeper, self._resumer, self._answer)
        self._refresher = Refresher(self._refresh)

    # Nothing stored

    def miss(
        self,
        environ: Environ,
        start_response: StartResponse,
        image_id: str,
        forward: str,
        *,
        replaces: Record | None = None,
        adopted: Entry | None = None,
        lead: Fill | None = None,
    ) -> Iterable[bytes]:
        """Ask the app, and store its answer if it may be.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :param replaces: what is stored for this request already.
        :param adopted: another program's copy, used if the app's checksum says so; closed here.
        :param lead: the image's fill, which this request has claimed, and others wait for.
        """
        with contextlib.ExitStack() as stack:
            if adopted is not None:
                stack.callback(adopted.close)
            if lead is not None:
                stack.callback(lead.decline, "")
            answer, is_kept = self._ask_as_leader(environ, start_response, forward, image_id, lead)
            if answer.written:
                return answer.server_body()
            stack.callback(answer.close)
            body = self._keep_or_pass(
                environ, start_response, answer, forward, image_id, replaces, adopted, lead, is_kept
            )
            stack.pop_all()
            return body

    def slice(
        self,
        environ: Environ,
        start_response: StartResponse,
        image_id: str,
        forward: str,
        lead: Fill,
    ) -> Iterable[bytes]:
        """Answer a request for a part of an image of which at most parts are there.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :param lead: the image's fill, which this request has claimed.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(lead.decline, "")
            sliced = self._slicer.answer(environ, start_response, forward, lead)
            if isinstance(sliced, Answer):
                if sliced.written:
                    return sliced.server_body()
                stack.callback(sliced.close)
                body = self._keep_or_pass(
                    environ, start_response, sliced, forward, image_id, None, None, lead, False
                )
            elif sliced is not None:
                body = sliced
            else:
                stack.pop_all()
                rest = None if lead.is_over else lead
                return self.miss(environ, start_response, image_id, forward, lead=rest)
            stack.pop_all()
            return body

    def _keep_or_pass(
        self,
        environ: Environ,
        start_response: StartResponse,
        answer: Answer,
        forward: str,
        image_id: str,
        replaces: Record | None,
        adopted: Entry | None,
        lead: Fill | None,
        is_kept: bool,
    ) -> Iterable[bytes]:
        """Send the app's answer, and store it if it may be; closes ``adopted``."""
        request = answer.known_request
        if lead is not None:
            request = validation.unconditional(request)
        reason = self._keeper.refusal(answer, request)
        if reason is None:
            record = self._keeper.record(answer, image_id, replaces)
            expected = self._keeper.expected(environ, answer, record)
            if adopted is not None:
                if self._keeper.adopt(adopted, record, expected):
                    return self._serve_adopted(environ, start_response, adopted, answer)
                adopted.close()
            body = self._fill(answer, record, expected, forward, lead, is_kept)
            if not isinstance(body, str):
                return body
            if not is_kept:
                return self._keeper.decline(answer, forward, body)
            reason = body
        if is_kept:
            return self._ask_for_all(environ, start_response, answer, forward, lead, reason)
        if adopted is not None:
            adopted.close()
        self._queue(answer, image_id, reason)
        self._keeper.give_back(lead, reason, answer)
        body = self._keeper.decline(answer, forward, reason)
        if replaces is not None:
            self._keeper.forget_if_gone(answer, replaces, reason)
        return body

    def _ask_as_leader(
        self,
        environ: Environ,
        start_response: StartResponse,
        forward: str,
        image_id: str,
        lead: Fill | None,
    ) -> tuple[Answer, bool]:
        """Ask the app for an image that others wait for too: all of it, or what is not kept.

        :return: the answer, as of the whole, and whether it goes on with what is kept.
        """
        if lead is None:
            return self._ask(environ, start_response, forward, image_id), False
        kept = concurrency.run_blocking(self._resumer.kept_for, lead, environ)
        if kept is not None:
            assert kept.length is not None
            hole, headers = resuming.holes(kept)[0], kept.record.headers
            answer = self._answer(environ, start_response, forward, image_id)
            with asking(environ, resuming.part_of(headers, hole, kept.length)):
                answer.fetch(self._app)
            if resuming.is_part(answer, headers, hole, kept.length):
                self._resumer.complete(answer, kept, environ)
                return answer, True
            if answer.written or answer.code not in (206, 416):
                return answer, False
            answer.close()
            environ = _given_back(environ, answer)
        answer = self._answer(environ, start_response, forward, image_id)
        with asking(environ, {}):
            answer.fetch(self._app)
        return answer, False

    def _fill(
        self,
        answer: Answer,
        record: Record,
        expected: tuple[Checksum, ...],
        forward: str,
        lead: Fill | None,
        keep: bool,
    ) -> Iterable[bytes] | str:
        """Send a new answer, or what the client wants of it, and store it.

        :return: a word for why it is not stored, and nothing was sent; else the body.
        """
        if keep:
            record = dataclasses.replace(record, variant=0)  # as it was kept
        reader = self._keeper.begin(answer, record, expected, lead, keep)
        if isinstance(reader, str):
            return reader
        if lead is None or "HTTP_RANGE" not in answer.request:
            return self._keeper.send(answer, reader, forward)
        go_on = self.going_on(answer.request)
        entry = GrowingEntry(lead, reader, patience=math.inf, go_on=go_on)
        return self._serve_validated(
            answer.request,
            answer,
            answer.start_response,
            entry,
            entry.record,
            f"fwd={forward}; stored",
        )

    def _ask_for_all(
        self,
        environ: Environ,
        start_response: StartResponse,
        answer: Answer,
        forward: str,
        lead: Fill | None,
        reason: str,
    ) -> Iterable[bytes]:
        """Have all of an image sent, since what is kept of it is not to be used.

        :param answer: of the app, with what is missing.
        :param reason: why its answer is not stored.
        """
        assert lead is not None
        answer.close()
        lead.decline(reason if reason in storing.TAKEN_BACK else "")
        request = _given_back(environ, answer)
        return self.miss(request, start_response, lead.image_id, forward)

    def _queue(self, answer: Answer, image_id: str, reason: str) -> None:
        """Have an image fetched later of which a part was asked for."""
        if reason != "range" or self._settings.range_miss == "pass" or answer.code != 206:
            return
        try:
            self._cache.queue_image(image_id)
        except DriverError as exc:
            log.info("%s is not queued: %s", image_id, exc.reason)

    def going_on(self, environ: Environ) -> GoOn:
        """Give what finds another reader for a request's answer, where its own is lost."""
        return self._resumer.going_on(environ)

    def pass_on(
        self, environ: Environ, start_response: StartResponse, reason: str
    ) -> Iterable[bytes]:
        """Let the app answer, and look at nothing.

        :param reason: the ``detail`` parameter of Cache-Status.
        """
        answer = self._ask(environ, start_response, "bypass")
        if answer.written:
            return answer.server_body()
        try:
            return self._keeper.decline(answer, "bypass", reason)
        except BaseException:
            answer.close()
            raise

    # Something stored

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
                return self._serve_validated(
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
                request = _given_back(environ, answer)
                return self.miss(request, start_response, record.image_id, forward, replaces=record)
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
        entry = self._cache.lookup(record.image_id, lambda other: other.vary == record.vary)
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
            request = _given_back(environ, answer)
            _drain(self.miss(request, nobody, record.image_id, "stale", replaces=record))
        else:
            _drain(self._replace(environ, answer, record, "stale"))

    # What the app answered

    def _ask(
        self,
        environ: Environ,
        start_response: StartResponse,
        forward: str,
        image_id: str | None = None,
    ) -> Answer:
        answer = self._answer(environ, start_response, forward, image_id)
        answer.fetch(self._app)
        return answer

    def _ask_about(
        self, environ: Environ, start_response: StartResponse, record: Record, forward: str
    ) -> Answer:
        """Ask the app about what is stored."""
        answer = self._answer(environ, start_response, forward, record.image_id)
        asked = validation.conditions(record.headers)
        if self._service.asks_by_head:
            asked = {"REQUEST_METHOD": "HEAD"}
        with asking(environ, asked):
            answer.fetch(self._app)
        return answer

    def _answer(
        self,
        environ: Environ,
        start_response: StartResponse,
        forward: str,
        image_id: str | None,
    ) -> Answer:
        field = hits.cache_status(f"fwd={forward}; detail=write")
        answer = Answer(environ, start_response, field)
        if image_id is not None:
            answer.deletion_before = self._cache.mark_of_deletion(image_id)
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

    # Serving what is stored

    def _may_be_stale(self, decision: freshness.Decision) -> bool:
        return decision.stale_if_error and not self._rules.authorized

    def _serve_adopted(
        self, environ: Environ, start_response: StartResponse, entry: Entry, answer: Answer
    ) -> Iterable[bytes]:
        answer.close()
        assert entry.record is not None
        return self._serve_validated(
            environ, answer, start_response, entry, entry.record, "hit; detail=adopted"
        )

    def _serve_validated(
        self,
        environ: Environ,
        answer: Answer,
        start_response: StartResponse,
        entry: AnyEntry,
        record: Record,
        status: str,
    ) -> Iterable[bytes]:
        representation = hits.describe(record, self._settings.freshness).representation
        return self._serve(
            environ, answer.request, start_response, entry, representation, record.age, status
        )

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
        return self._serve(
            environ,
            request,
            start_response,
            entry,
            stored.representation,
            age,
            f"fwd={forward}; detail=stale-if-error",
        )

    def _serve(
        self,
        environ: Environ,
        request: Environ,
        start_response: StartResponse,
        entry: AnyEntry,
        representation: Representation,
        age: float,
        status: str,
    ) -> Iterable[bytes]:
        """Answer from an entry; where it is found damaged or lost before that, ask the app for
        all of it.

        :param request: as the client made it, since the app has had ``environ``.
        """
        try:
            return hits.answer(
                self._cache,
                request,
                start_response,
                entry,
                representation,
                age,
                status,
                self.going_on(request),
            )
        except ImageCorrupt:
            record = entry.record
            assert record is not None
            environ.update(request)
            return self.miss(environ, start_response, record.image_id, "uri-miss", replaces=record)
        except FillLost as exc:
            log.info("%s; the request goes to the app", exc)
            environ.update(request)
            return self.miss(environ, start_response, exc.image_id, "uri-miss")


def _given_back(environ: Environ, answer: Answer) -> Environ:
    """Make a request what it was before the app had it, to be asked once more."""
    environ.update(answer.request)
    return environ


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
