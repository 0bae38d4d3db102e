"""Answer a range of an image that is not cached from its parts: what is kept, or one more.

The aligned part that is missing is fetched, kept, and answered from; parts add
up, and whoever fetches the whole image one day has only the holes sent.
Nobody holds the image's fill while a client reads what was kept before.

Source: RFC 9110, sections 13.1.5, 14 and 15.3.7.

Imports: core.cache, core.fill, core.config, drivers.base, errors, web.exchange, web.fields,
web.freshness, web.growing, web.hits, web.keeping, web.respond, web.resuming, web.storing,
web.validation.
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
from ..errors import CacheFull, DriverError, LengthMismatch
from . import fields, freshness, hits, validation
from .exchange import Answer
from .keeping import Keeper
from .respond import Representation, part_headers, serve, wanted_slices
from .resuming import Resumer, asking, make_whole

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
StartResponse = Callable[..., Any]

#: A longer part is not kept by itself (bytes): whoever wants so much soon has the whole.
MOST = 64 * 2**20

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class Slicer:
    """Answers ranges of images that are not cached. Safe for threads.

    :param ask: makes an answer that the app has not given yet.
    """

    def __init__(
        self,
        app: App,
        cache: ImageCache,
        settings: Settings,
        keeper: Keeper,
        resumer: Resumer,
        ask: Callable[[Environ, StartResponse, str, str], Answer],
    ) -> None:
        self._app = app
        self._cache = cache
        self._settings = settings
        self._keeper = keeper
        self._resumer = resumer
        self._ask = ask

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
        if kept is not None and not self._is_fresh(environ, kept.record):
            kept = None
        if kept is None:
            asked = aligned(environ["HTTP_RANGE"])
        else:
            selected = self._representation(kept.record, kept.length or 0)
            slices = wanted_slices(environ, selected)
            if slices is None:
                return None
            wanted = [Part(*ends) for ends in slices]
            if is_there(kept, wanted):
                return self._serve_kept(environ, start_response, kept, selected, lead)
            asked = _as_range(missing(kept, wanted[0])) if len(wanted) == 1 else None
        if asked is None:
            lead.decline("")
            return None
        return self._fetch(environ, start_response, forward, lead, kept, asked)

    def _is_fresh(self, environ: Environ, record: Record) -> bool:
        """Whether what is kept may be given out without asking the app."""
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
        kept: Kept,
        selected: Representation,
        lead: Fill,
    ) -> Iterable[bytes]:
        sink = lead.hand_over()
        assert sink is not None
        age = freshness.current_age(kept.record.age, kept.record.stored, time.time())
        extra = (("Age", str(int(age))), hits.cache_status("hit; detail=partial"))
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
        """Have the app send a part more."""
        answer = self._ask(environ, start_response, forward, lead.image_id)
        conditions = {"HTTP_RANGE": asked}
        if kept is not None:
            validator = validation.strong_validator(kept.record.headers)
            assert validator is not None
            conditions["HTTP_IF_RANGE"] = validator
        with asking(environ, conditions):
            answer.fetch(self._app)
        found = part_in(answer)
        if found is None:
            return answer
        part, length = found
        headers = answer.headers
        known = kept.record.headers if kept is not None else []
        make_whole(answer, known, length)
        record = self._keeper.record(answer, lead.image_id, None)
        selected = self._representation(record, length)
        slices = wanted_slices(environ, selected)
        if slices is None or len(slices) != 1 or not _is_within(slices[0], part):
            # Another version than the client's, or the app gave another part than was asked for.
            answer.close()
            environ.update(answer.request)
            if slices is not None:
                lead.decline("")
            return None
        if kept is not None and not validation.freshens(known, headers):
            kept = None
        record = dataclasses.replace(record, variant=0)
        reason = self._begin(answer, record, lead, kept, part, length)
        start, stop = slices[0]
        status = f"fwd={forward}; " + (f"detail={reason}" if reason else "stored")
        extra = hits.cache_status(status)
        answer.start_response("206 Partial Content", [*part_headers(selected, start, stop), extra])
        return Slice(answer, lead, part, Part(start, stop))

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
        if reason is None and validation.strong_validator(record.headers) is None:
            reason = "validator"
        if reason is None:
            try:
                concurrency.run_blocking(self._make_ready, record, lead, kept, part, length)
            except CacheFull:
                reason = "full"
            except DriverError as exc:
                log.info("%s", exc)
                reason = "not-writable"
        if reason is not None:
            lead.decline("")
        elif self._cache.mark_of_deletion(record.image_id) != answer.deletion_before:
            self._keeper.forget(record.image_id)
        return reason

    def _make_ready(
        self, record: Record, lead: Fill, kept: Kept | None, part: Part, length: int
    ) -> None:
        sink = lead.sink
        if sink is None:
            sink = lead.sink = self._cache.driver.start_fill(record.image_id)
        sink.announce(record, length, keep=kept is not None)
        there = sum(stop - start for start, stop in kept.parts) if kept is not None else 0
        more = part.stop - part.start
        self._cache.capacity.make_room(record.image_id, sink, there + more, more)


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


class Slice:
    """The body of an answer that asks the app for a part, keeps it, and gives what is wanted.

    :param answer: of the app, with the bytes of ``part``.
    :param lead: the image's fill, claimed until the part is there; it may be over already.
    :param wanted: what the client gets, within ``part``.
    """

    def __init__(self, answer: Answer, lead: Fill, part: Part, wanted: Part) -> None:
        self._answer = answer
        self._lead = lead
        self._wanted = wanted
        self._part = part
        self._position = part.start
        self._chunks = iter(answer.body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self._position < self._part.stop:
            chunk = next(self._chunks, b"")
            start = self._position
            stop = start + len(chunk)
            if not chunk or stop > self._part.stop:
                raise LengthMismatch(self._lead.image_id, f"{stop} is not the end of {self._part}")
            self._keep(chunk, start)
            self._position = stop
            if stop == self._part.stop:
                self.close()  # before the client knows that it was all
            piece = chunk[max(self._wanted.start - start, 0) : max(self._wanted.stop - start, 0)]
            if piece:
                return piece
        raise StopIteration

    def _keep(self, chunk: bytes, start: int) -> None:
        sink = self._lead.sink
        if sink is None:
            return
        try:
            sink.write(chunk, start)
        except DriverError as exc:
            log.warning("%s: its part is not kept: %s", self._lead.image_id, exc.reason)
            self._lead.decline("")

    def close(self) -> None:
        """Close the app's answer, and let others have the image's fill."""
        try:
            self._answer.close()
        finally:
            self._lead.decline("")


def is_there(kept: Kept, wanted: list[Part]) -> bool:
    """Say whether all of some parts is kept."""
    return all(
        any(part.start <= want.start and want.stop <= part.stop for part in kept.parts)
        for want in wanted
    )


def missing(kept: Kept, want: Part) -> Part:
    """Give the smallest aligned part that makes ``want`` whole."""
    assert kept.length is not None
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


def part_in(answer: Answer) -> tuple[Part, int] | None:
    """Give which part an answer has, and the length of the whole; ``None``: it is no part."""
    if answer.code != 206 or answer.written:
        return None
    match = _CONTENT_RANGE.fullmatch(fields.get(answer.headers, "content-range") or "")
    if match is None:
        return None
    first, last, length = map(int, match.groups())
    return (Part(first, last + 1), length) if first <= last < length else None


def _as_range(part: Part) -> str:
    return f"bytes={part.start}-{part.stop - 1}"


def _is_within(ends: tuple[int, int], part: Part) -> bool:
    return part.start <= ends[0] and ends[1] <= part.stop
