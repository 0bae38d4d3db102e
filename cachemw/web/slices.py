"""Answer a range of an image that is not cached from its parts: what is kept, or one more.

The aligned part that is missing is fetched, kept, and answered from; parts add
up, and whoever fetches the whole image has only the holes sent: a client that
wants it, or a thread in the background once much of it is there. Nobody holds
the image's fill while a client reads what was kept before.

Source: RFC 9110, sections 13.1.5, 14 and 15.3.7.

Imports: concurrency, core.cache, core.config, core.fill, drivers.base, errors, web.arrivals,
web.exchange, web.fields, web.freshness, web.hits, web.keeping, web.respond, web.resuming,
web.storing, web.validation.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import concurrency
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fill import Fill
from ..drivers.base import CHUNK, Kept, Part, Record, Sink
from ..errors import CacheFull, DriverError
from . import fields, freshness, hits, storing, validation
from .arrivals import Arrival, Slice
from .exchange import Answer
from .keeping import Keeper
from .respond import Representation, part_headers, serve, wanted_slices
from .resuming import Resumer, asking, is_movable, is_same_version, make_whole, part_in

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
StartResponse = Callable[..., Any]

#: The share of an image from which on the rest is fetched without anybody asking for it.
COMPLETED_FROM = 0.5

#: A longer part is not kept by itself (bytes): whoever wants so much soon has the whole.
MOST = 64 * 2**20

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class Slicer:
    """Answers ranges of images that are not cached. Safe for threads.

    :param ask: makes an answer that the app has not given yet.
    :param complete: has the rest of an image fetched in the background, with a request like
        this one; the record has its size.
    :param queue: has an image fetched by somebody else.
    """

    def __init__(
        self,
        app: App,
        cache: ImageCache,
        settings: Settings,
        keeper: Keeper,
        resumer: Resumer,
        ask: Callable[[Environ, StartResponse, str, str], Answer],
        complete: Callable[[Environ, Record], None],
        queue: Callable[[Environ, str], None],
    ) -> None:
        self._app = app
        self._cache = cache
        self._settings = settings
        self._keeper = keeper
        self._resumer = resumer
        self._ask = ask
        self._complete = complete
        self._queue = queue

    def answer(
        self, environ: Environ, start_response: StartResponse, forward: str, lead: Fill
    ) -> Iterable[bytes] | Answer | None:
        """Answer a request for a range.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :param lead: the image's fill, claimed by this request.
        :return: the body; or an answer of the app that is not a part, with ``lead`` still
            claimed; or ``None``: the whole is to be fetched, or the range passed on if ``lead``
            is over.
        """
        kept = concurrency.run_blocking(self._resumer.kept_for, lead, environ)
        wanted: list[Part] | None = None
        if kept is not None:
            selected = self._representation(kept.record, kept.length)
            slices = wanted_slices(environ, selected)
            wanted = None if slices is None else [Part(*ends) for ends in slices]
            if self._is_fresh(environ, kept.record):
                if wanted is None:
                    return None
                if is_there(kept, wanted):
                    status = "hit; detail=partial"
                    return self._serve_kept(
                        environ, start_response, kept.record, selected, lead, status
                    )
            if not wanted:
                kept = None  # the client means another version, and so may the app by now
        asked = aligned(environ["HTTP_RANGE"]) if kept is None else to_ask(kept, wanted or [])
        if asked is None:
            lead.decline("")
            return None
        return self._fetch(environ, start_response, forward, lead, kept, asked)

    def _is_fresh(self, environ: Environ, record: Record) -> bool:
        """Whether what is kept may be given out without asking the app."""
        # A hook is asked about copies that are whole; of parts the app says who may have them.
        if self._settings.authorize != "off":
            return False
        if self._settings.freshness == "immutable":
            return True
        age = freshness.current_age(record.age, record.stored, time.time())
        policy = hits.stored(record, self._settings.freshness).policy
        return freshness.decide(environ, age, policy).action == freshness.SERVE

    def _representation(self, record: Record, length: int) -> Representation:
        sized = dataclasses.replace(record, size=length)
        return hits.describe(sized, self._settings.freshness).representation

    def _serve_kept(
        self,
        environ: Environ,
        start_response: StartResponse,
        record: Record,
        selected: Representation,
        lead: Fill,
        status: str,
    ) -> Iterable[bytes]:
        sink = lead.hand_over()
        assert sink is not None
        age = freshness.current_age(record.age, record.stored, time.time())
        extra = (("Age", str(int(age))), hits.cache_status(status))
        return serve(environ, start_response, KeptEntry(sink), selected, extra)

    def _fetch(
        self,
        environ: Environ,
        start_response: StartResponse,
        forward: str,
        lead: Fill,
        kept: Kept | None,
        asked: str,
    ) -> Iterable[bytes] | Answer | None:
        """Have the app send a part more, or say that what is kept still holds."""
        answer = self._ask(environ, start_response, forward, lead.image_id)
        conditions = {"HTTP_RANGE": asked}
        if kept is not None:
            validator = validation.strong_validator(kept.record.headers)
            assert validator is not None
            conditions["HTTP_IF_RANGE"] = validator
        with asking(environ, conditions):
            answer.fetch(self._app)
        found = part_in(answer)
        if found is not None:
            return self._use(environ, forward, lead, kept, answer, *found)
        if not answer.written and is_about_range(answer, kept):
            self._give_up(answer, environ, lead)
            return None
        return answer

    def _use(
        self,
        environ: Environ,
        forward: str,
        lead: Fill,
        kept: Kept | None,
        answer: Answer,
        part: Part,
        length: int,
    ) -> Iterable[bytes] | None:
        """Answer by what the app sent, and by what is kept of the same version."""
        if kept is not None and (
            length != kept.length or not is_same_version(kept.record.headers, answer.headers)
        ):
            kept = None
        make_whole(answer, kept.record.headers if kept is not None else (), length)
        record = dataclasses.replace(self._keeper.record(answer, lead.image_id, None), variant=0)
        selected = self._representation(record, length)
        slices = wanted_slices(answer.request, selected)
        if slices is None:
            # The client has another version, and gets all of this one.
            answer.close()
            environ.update(answer.request)
            return None
        wanted = [Part(*ends) for ends in slices]
        there = (*kept.parts, part) if kept is not None else (part,)
        if not can_answer(there, kept, wanted):
            # The app gave another part than was asked for, or of another version.
            self._give_up(answer, environ, lead)
            return None
        reason = self._begin(answer, record, lead, kept, part, length)
        if reason is not None and not can_answer((part,), None, wanted):
            self._give_up(answer, environ, lead)
            return None
        if reason is None and kept is not None and is_there(kept, wanted):
            answer.close()
            status = "fwd=stale; fwd-status=206; detail=partial"
            return self._serve_kept(
                answer.request, answer.start_response, record, selected, lead, status
            )
        status = f"fwd={forward}; " + (f"detail={reason}" if reason else "stored")
        head = part_headers(selected, wanted[0].start, wanted[0].stop)
        head += [*aged(answer), hits.cache_status(status)]
        answer.start_response("206 Partial Content", head)
        sized = dataclasses.replace(record, size=length)
        request = answer.request

        def when_kept() -> None:
            if self._is_worth_completing(there, length):
                self._complete_later(request, sized)

        arrival = Arrival(answer, lead, part, when_kept)
        if is_movable(environ, self._settings):
            arrival.run_ahead()
        return Slice(arrival, wanted[0])

    def _give_up(self, answer: Answer, environ: Environ, lead: Fill) -> None:
        """Have the request passed on as it came."""
        answer.close()
        environ.update(answer.request)
        lead.decline("")

    def _begin(
        self,
        answer: Answer,
        record: Record,
        lead: Fill,
        kept: Kept | None,
        part: Part,
        length: int,
    ) -> str | None:
        """Be ready to keep a part. :return: a word for why it is not kept."""
        reason = self._keeper.refusal(answer, validation.unconditional(answer.known_request))
        if reason is None:
            reason = self._make_ready(record, lead, kept, part, length)
        if reason is not None:
            # What was kept of another version, or before the app forbade it, goes.
            is_over = kept is None or reason in storing.TAKEN_BACK
            lead.decline(reason if is_over else "")
        elif self._cache.mark_of_deletion(record.image_id) != answer.deletion_before:
            self._keeper.forget(record.image_id)
        return reason

    def _make_ready(
        self, record: Record, lead: Fill, kept: Kept | None, part: Part, length: int
    ) -> str | None:
        if validation.strong_validator(record.headers) is None:
            return "validator"
        if not storing.fits(record):
            return "fields"
        try:
            concurrency.run_blocking(self._announce, record, lead, kept, part, length)
        except CacheFull as exc:
            log.info("%s", exc)
            return "full"
        except DriverError as exc:
            log.info("%s", exc)
            return "not-writable"
        return None

    def _announce(
        self, record: Record, lead: Fill, kept: Kept | None, part: Part, length: int
    ) -> None:
        sink = lead.sink
        if sink is None:
            sink = lead.sink = self._cache.driver.start_fill(record.image_id)
        sink.announce(record, length, keep=kept is not None)
        there = sum(stop - start for start, stop in kept.parts) if kept is not None else 0
        more = part.stop - part.start
        self._cache.capacity.make_room(record.image_id, sink, there + more, more)

    def _is_worth_completing(self, there: Iterable[Part], length: int) -> bool:
        """Say whether so much of an image is kept that the rest will be wanted too."""
        if length > self._cache.capacity.max_image_size:
            return False
        return sum(part.stop - part.start for part in there) >= COMPLETED_FROM * length

    def _complete_later(self, request: Environ, record: Record) -> None:
        """Have the rest fetched in the background, or put the image in the queue where no other
        thread may call the app."""
        if request.get("wsgi.multithread", True):
            self._complete(request, record)
            return
        self._queue(request, record.image_id)


class KeptEntry:
    """An image of which the parts that are asked for are there, as something to answer from.

    :param sink: not anybody's fill any more; closed with it.
    """

    data = None
    is_checked = False
    is_offloaded = True

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``."""
        return self._sink.pread(size, position)

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("only parts are there")

    def close(self) -> None:
        """Let go of it; a second close does nothing."""
        self._sink.close()


def is_there(kept: Kept, wanted: list[Part]) -> bool:
    """Say whether all of some parts is kept."""
    return all(is_covered(kept.parts, want) for want in wanted)


def is_covered(parts: Iterable[Part], want: Part) -> bool:
    """Say whether parts, which may touch or overlap, have all of another."""
    position = want.start
    for part in sorted(parts):
        if part.start <= position < part.stop:
            position = part.stop
    return position >= want.stop


def can_answer(there: Iterable[Part], kept: Kept | None, wanted: list[Part]) -> bool:
    """Say whether an answer can be made of what is there; several parts only of what is kept."""
    if len(wanted) == 1:
        return is_covered(there, wanted[0])
    return bool(wanted) and kept is not None and is_there(kept, wanted)


def to_ask(kept: Kept, wanted: list[Part]) -> str | None:
    """Give the Range field that asks for what is missing of a range; for one byte where nothing
    is, since the app is asked whether what is kept still holds.

    :return: ``None``: it is more than one range, or too much.
    """
    if is_there(kept, wanted):
        return _as_range(Part(wanted[0].start, wanted[0].start + 1))
    if len(wanted) != 1:
        return None
    part = missing(kept, wanted[0])
    return _as_range(part) if part.stop - part.start <= MOST + CHUNK else None


def missing(kept: Kept, want: Part) -> Part:
    """Give the smallest aligned part that makes ``want`` whole."""
    start, stop = want.start // CHUNK * CHUNK, min(-(-want.stop // CHUNK) * CHUNK, kept.length)
    for part in kept.parts:
        if part.start <= start < part.stop:
            start = part.stop
    for part in reversed(kept.parts):
        if part.start < stop <= part.stop:
            stop = part.start
    return Part(start, stop)


def aligned(value: str) -> str | None:
    """Give the Range field that asks for all chunks of a range, before anything is known.

    :return: ``None``: it is not a single range, or one of no known end.
    """
    match = _RANGE.fullmatch(value.strip(fields.OWS))
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return f"bytes=-{int(last) + CHUNK}" if last and 0 < int(last) <= MOST else None
    if not last or not int(first) <= int(last) < int(first) + MOST:
        return None
    start, stop = int(first) // CHUNK * CHUNK, -(-(int(last) + 1) // CHUNK) * CHUNK
    return f"bytes={start}-{stop - 1}"


def is_about_range(answer: Answer, kept: Kept | None) -> bool:
    """Say whether an answer is about the range that we asked for, and not the client's."""
    return answer.code == 206 or (answer.code == 416 and kept is not None)


def aged(answer: Answer) -> list[tuple[str, str]]:
    """Give the Age field that an answer of the app came with (RFC 9111, section 5.1)."""
    return [pair for pair in answer.headers if pair[0].lower() == "age"]


def _as_range(part: Part) -> str:
    return f"bytes={part.start}-{part.stop - 1}"
