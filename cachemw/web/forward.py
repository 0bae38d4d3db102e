"""Put a request for what is not stored to the app, and decide by what it answers.

What the app answers is stored by ``web.keeping``. What is stored, and has to be
asked about, is in ``web.revalidate``.

Imports: concurrency, core.cache, core.config, core.fill, core.growing, drivers.base, errors,
web.exchange, web.growing, web.hits, web.keeping, web.lasting, web.onward, web.queueing,
web.refresh, web.respond, web.resuming, web.slices, web.storing, web.validation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

from .. import concurrency
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fill import Fill
from ..core.growing import FillLost
from ..drivers.base import Entry, Record
from ..errors import ImageCorrupt
from . import hits, resuming, storing, validation
from .exchange import Answer
from .growing import GrowingEntry
from .hits import AnyEntry
from .keeping import Keeper
from .lasting import GoOn
from .onward import Onward
from .queueing import Queuer
from .refresh import Refresher
from .respond import Representation
from .resuming import Resumer, asking
from .slices import Slicer

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
StartResponse = Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Miss:
    """A request for what is not stored.

    :param forward: the ``fwd`` parameter of Cache-Status.
    :param replaces: what is stored for this request already.
    :param adopted: another program's copy, used if the app's checksum says so.
    :param lead: the image's fill, which this request has claimed, and others wait for.
    """

    environ: Environ
    start_response: StartResponse
    image_id: str
    forward: str
    replaces: Record | None = None
    adopted: Entry | None = None
    lead: Fill | None = None


class Forwarder:
    """Asks the app for what is not stored. Safe for threads."""

    def __init__(
        self, app: App, cache: ImageCache, settings: Settings, keeper: Keeper, queue: Queuer
    ) -> None:
        self._app = app
        self._cache = cache
        self._sharing = cache.sharing
        self._settings = settings
        self._keeper = keeper
        self._queue = queue
        self._resumer = Resumer(app, cache, settings)
        self._completer = Refresher(self._complete)
        self._slicer = Slicer(
            app, cache, settings, keeper, self._resumer, self.answer, self._completer.start, queue
        )

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
        miss = _Miss(environ, start_response, image_id, forward, replaces, adopted, lead)
        with contextlib.ExitStack() as stack:
            if adopted is not None:
                stack.callback(adopted.close)
            if lead is not None:
                stack.callback(lead.decline, "")
            answer, is_kept = self._ask_as_leader(miss)
            if answer.written:
                return answer.server_body()
            stack.callback(answer.close)
            body = self._keep_or_pass(miss, answer, is_kept)
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
                miss = _Miss(environ, start_response, image_id, forward, lead=lead)
                body = self._keep_or_pass(miss, sliced, is_kept=False)
            elif sliced is not None:
                body = sliced
            else:
                stack.pop_all()
                rest = None if lead.is_over else lead
                return self.miss(environ, start_response, image_id, forward, lead=rest)
            stack.pop_all()
            return body

    def _ask_as_leader(self, miss: _Miss) -> tuple[Answer, bool]:
        """Ask the app for an image that others wait for too: all of it, or what is not kept.

        :return: the answer, as of the whole, and whether it goes on with what is kept.
        """
        environ = miss.environ
        if miss.lead is None:
            answer = self.answer(environ, miss.start_response, miss.forward, miss.image_id)
            answer.fetch(self._app)
            return answer, False
        kept = concurrency.run_blocking(self._resumer.kept_for, miss.lead, environ)
        if kept is not None:
            hole, headers = resuming.holes(kept)[0], kept.record.headers
            answer = self.answer(environ, miss.start_response, miss.forward, miss.image_id)
            with asking(environ, resuming.part_of(headers, hole, kept.length)):
                answer.fetch(self._app)
            if resuming.is_part(answer, headers, hole, kept.length):
                self._resumer.complete(answer, kept)
                return answer, True
            if answer.written or answer.code not in (206, 416):
                return answer, False
            answer.close()
            environ = given_back(environ, answer)
        answer = self.answer(environ, miss.start_response, miss.forward, miss.image_id)
        with asking(environ, {}):
            answer.fetch(self._app)
        return answer, False

    def _keep_or_pass(self, miss: _Miss, answer: Answer, is_kept: bool) -> Iterable[bytes]:
        """Send the app's answer, and store it if it may be; closes what is adopted.

        :param is_kept: whether the answer goes on with what is kept of the image.
        """
        request = answer.known_request
        if miss.lead is not None:
            request = validation.unconditional(request)
        reason = self._keeper.refusal(answer, request)
        if reason is None:
            body = self._keep(miss, answer, is_kept)
            if not isinstance(body, str):
                return body
            if not is_kept:
                return self._keeper.decline(answer, miss.forward, body)
            reason = body
        if is_kept:
            return self._ask_for_all(miss, answer, reason)
        return self._pass(miss, answer, reason)

    def _keep(self, miss: _Miss, answer: Answer, is_kept: bool) -> Iterable[bytes] | str:
        """Send an answer that may be stored, and store it.

        :return: a word for why it could not be stored, and nothing was sent; else the body.
        """
        record = self._keeper.record(answer, miss.image_id, miss.replaces)
        expected = self._keeper.expected(miss.environ, answer, record)
        if miss.adopted is not None:
            if self._keeper.adopt(miss.adopted, record, expected):
                return self._serve_adopted(miss, miss.adopted, answer)
            miss.adopted.close()
        if is_kept:
            record = dataclasses.replace(record, variant=0)  # as it was kept
        reader = self._keeper.begin(answer, record, expected, miss.lead, is_kept)
        if isinstance(reader, str):
            return reader
        if miss.lead is None or "HTTP_RANGE" not in answer.request:
            return self._keeper.send(answer, reader, miss.forward)
        go_on = self.going_on(answer.request)
        entry = GrowingEntry(miss.lead, reader, patience=math.inf, go_on=go_on)
        request, status = answer.request, f"fwd={miss.forward}; stored"
        return self.serve_validated(
            request, answer, answer.start_response, entry, entry.record, status
        )

    def _pass(self, miss: _Miss, answer: Answer, reason: str) -> Iterable[bytes]:
        """Send an answer that is not stored, and do what it means for what is.

        :param reason: why it is not.
        """
        if miss.adopted is not None:
            miss.adopted.close()
        self._fetch_later(answer, miss.image_id, reason)
        self._keeper.give_back(miss.lead, reason, answer)
        body = self._keeper.decline(answer, miss.forward, reason)
        if miss.replaces is not None:
            self._keeper.forget_if_gone(answer, miss.replaces, reason)
        return body

    def _ask_for_all(self, miss: _Miss, answer: Answer, reason: str) -> Iterable[bytes]:
        """Have all of an image sent, since what is kept of it is not to be used.

        :param answer: of the app, with what is missing.
        :param reason: why its answer is not stored.
        """
        assert miss.lead is not None
        answer.close()
        miss.lead.decline(reason if reason in storing.TAKEN_BACK else "")
        request = given_back(miss.environ, answer)
        return self.miss(request, miss.start_response, miss.image_id, miss.forward)

    def _fetch_later(self, answer: Answer, image_id: str, reason: str) -> None:
        """Have an image fetched later of which a part was asked for."""
        is_wanted = reason == "range" and self._settings.range_miss != "pass"
        if is_wanted and answer.code == 206:
            self._queue(answer.request, image_id)

    def going_on(self, environ: Environ) -> GoOn:
        """Give what finds another reader for a request's answer, where its own is lost."""
        return Onward(self._resumer, self._sharing, self._settings, self._keeper, environ)

    def _complete(self, environ: Environ, record: Record) -> None:
        """Fetch what is missing of an image of which parts are kept."""
        Onward(self._resumer, self._sharing, self._settings, self._keeper, environ).complete(record)

    def pass_on(
        self, environ: Environ, start_response: StartResponse, reason: str
    ) -> Iterable[bytes]:
        """Let the app answer, and look at nothing.

        :param reason: the ``detail`` parameter of Cache-Status.
        """
        answer = self.answer(environ, start_response, "bypass", None)
        answer.fetch(self._app)
        if answer.written:
            return answer.server_body()
        try:
            return self._keeper.decline(answer, "bypass", reason)
        except BaseException:
            answer.close()
            raise

    def answer(
        self,
        environ: Environ,
        start_response: StartResponse,
        forward: str,
        image_id: str | None,
    ) -> Answer:
        """Begin an answer, for which the app is still to be called.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :param image_id: what it may be stored as, if it may be.
        """
        field = hits.cache_status(f"fwd={forward}; detail=write")
        answer = Answer(environ, start_response, field)
        if image_id is not None:
            answer.deletion_before = self._cache.mark_of_deletion(image_id)
        return answer

    # Serving what is stored

    def _serve_adopted(self, miss: _Miss, entry: Entry, answer: Answer) -> Iterable[bytes]:
        answer.close()
        assert entry.record is not None
        status = "hit; detail=adopted"
        return self.serve_validated(
            miss.environ, answer, miss.start_response, entry, entry.record, status
        )

    def serve_validated(
        self,
        environ: Environ,
        answer: Answer,
        start_response: StartResponse,
        entry: AnyEntry,
        record: Record,
        status: str,
    ) -> Iterable[bytes]:
        """Answer from an entry of which the app has just said that it holds.

        :param status: parameters of Cache-Status.
        """
        representation = hits.describe(record, self._settings.freshness).representation
        return self.serve(
            environ, answer.request, start_response, entry, representation, record.age, status
        )

    def serve(
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
                self._cache.entries,
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


def given_back(environ: Environ, answer: Answer) -> Environ:
    """Make a request what it was before the app had it, to be asked once more."""
    environ.update(answer.request)
    return environ
