"""Go on with an image from where somebody stopped: what is kept, and the rest from the app.

Two need it. A request that asks the app for an image of which parts were kept
has only the rest sent; and a reader whose fill was lost goes on elsewhere
(``web.onward``), without its client noticing. Both hold on to one version, by
its strong validator, and take nothing without one.

Source: RFC 9110, sections 13.1.5, 14.2 and 15.3.7.

Imports: core.cache, core.config, core.fill, core.growing, drivers.base, errors, metrics.counters,
metrics.declared, web.exchange, web.fields, web.hits, web.storing, web.validation, web.vary.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fill import Fill
from ..core.growing import CutShort, FillLost
from ..drivers.base import CHUNK, Entry, Kept, MemoryEntry, Part
from ..errors import LengthMismatch
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import APP_BYTES
from . import fields, hits, storing, validation, vary
from .exchange import Answer, nobody

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]

#: Fields that are about the part that an answer has (RFC 9110, section 15.3.7).
_OF_PART = frozenset({"content-digest", "content-length", "content-md5", "content-range"})

#: Fields of one answer, which say whether and for how long it may be kept.
_OF_ANSWER = frozenset({"age", "set-cookie", "set-cookie2"})

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class Resumer:
    """Finds the rest of images. Safe for threads."""

    def __init__(self, app: App, cache: ImageCache, settings: Settings) -> None:
        self._app = app
        self._cache = cache
        self._settings = settings

    def kept_for(self, lead: Fill, environ: Environ) -> Kept | None:
        """Give what is kept of an image, if the rest can be asked for and a request may have it."""
        sink = lead.sink
        kept = None if sink is None else sink.kept
        if kept is None or not kept.parts:
            return None
        if kept.record.variant or validation.strong_validator(kept.record.headers) is None:
            return None
        if kept.record.guarded and self._settings.authorize == "off":
            return None  # kept when the app was asked about each request
        return kept if vary.selected(kept.record.vary, environ) else None

    def ask_for_all(self, request: Environ, image_id: str) -> Answer:
        """Ask the app for all of an image."""
        return self._fetch(request, image_id, "fwd=uri-miss", {})

    def ask(
        self, request: Environ, image_id: str, headers: fields.Headers, part: Part, length: int
    ) -> Answer:
        """Ask the app for a part of a version.

        :param headers: of the version.
        :param length: of the whole, bytes.
        """
        return self._fetch(request, image_id, "fwd=partial", part_of(headers, part, length))

    def _fetch(
        self, request: Environ, image_id: str, status: str, asked: Mapping[str, str]
    ) -> Answer:
        """Put a GET of ours to the app.

        :param request: is copied, since the app may change it.
        :param asked: the conditions, as environ keys.
        """
        environ = {**request, "REQUEST_METHOD": "GET"}
        answer = Answer(environ, nobody, hits.cache_status(status))
        answer.deletion_before = self._cache.mark_of_deletion(image_id)
        with asking(environ, asked):
            answer.fetch(self._app)
        return answer

    def complete(self, answer: Answer, kept: Kept) -> None:
        """Make an answer with the first hole in what is kept one of the whole image.

        Its body then has the parts that are kept, and asks the app for the other holes.
        """
        request = validation.unconditional(answer.request)
        first = Answer(request, nobody, hits.cache_status("fwd=partial"))
        first.body = answer.body
        answer.body = cast(Iterable[bytes], _Patchwork(self, first, kept, request))
        make_whole(answer, kept.record.headers, kept.length)


class _Patchwork:
    """All of an image: parts that are kept, and the app's bytes for what is between.

    :param first: the app's answer for the first hole.
    :param request: to ask for the others with.
    """

    def __init__(self, resumer: Resumer, first: Answer, kept: Kept, request: Environ) -> None:
        self._resumer = resumer
        self._answer: Answer | None = first
        self._kept = kept
        self._request = request

    def __iter__(self) -> Iterator[bytes | Part]:
        position, length = 0, self._kept.length
        for hole in holes(self._kept):
            if hole.start > position:
                yield Part(position, hole.start)
            position = hole.start
            for chunk in self._ask(hole, length).body:
                position += len(chunk)
                if position > hole.stop:
                    raise LengthMismatch(self._kept.record.image_id, f"longer than {hole}")
                yield chunk
            self.close()
            if position != hole.stop:
                return  # cut short
        if position < length:
            yield Part(position, length)

    def _ask(self, hole: Part, length: int) -> Answer:
        if self._answer is None:
            record = self._kept.record
            answer = self._resumer.ask(self._request, record.image_id, record.headers, hole, length)
            self._answer = answer
            if not is_part(answer, record.headers, hole, length):
                raise FillLost(record.image_id, "the app did not give the rest of this version")
        return self._answer

    def close(self) -> None:
        """Close the app's answer; a second close does nothing."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


def is_movable(environ: Mapping[str, Any], settings: Settings) -> bool:
    """Say whether another thread than the request's own may read the app's answer."""
    return settings.pump == "any" and bool(environ.get("wsgi.multithread", True))


def holes(kept: Kept) -> list[Part]:
    """Give what is missing of an image, in order: at least one part, since the app is asked
    whether it still has this version."""
    missing, position = [], 0
    for part in kept.parts:
        if part.start > position:
            missing.append(Part(position, part.start))
        position = part.stop
    if position < kept.length:
        missing.append(Part(position, kept.length))
    last = (kept.length - 1) // CHUNK * CHUNK
    return missing or [Part(last, kept.length)]


def part_of(headers: fields.Headers, part: Part, length: int) -> dict[str, str]:
    """Give the fields that ask for a part of a version, as environ keys."""
    validator = validation.strong_validator(headers)
    assert validator is not None
    last = "" if part.stop == length else part.stop - 1
    return {"HTTP_RANGE": f"bytes={part.start}-{last}", "HTTP_IF_RANGE": validator}


def part_in(answer: Answer) -> tuple[Part, int] | None:
    """Give which part an answer has, and the length of the whole; ``None``: it is no part."""
    if answer.code != 206 or answer.written:
        return None
    match = _CONTENT_RANGE.fullmatch(fields.get(answer.headers, "content-range") or "")
    if match is None:
        return None
    first, last, length = map(int, match.groups())
    try:
        sent = storing.content_length(answer.headers)
    except ValueError:
        return None
    if not first <= last < length or sent not in (None, last + 1 - first):
        return None
    return Part(first, last + 1), length


def is_part(answer: Answer, headers: fields.Headers, part: Part, length: int) -> bool:
    """Say whether an answer is a part of a version."""
    return part_in(answer) == (part, length) and is_same_version(headers, answer.headers)


def is_same_version(headers: fields.Headers, fresh: fields.Headers) -> bool:
    """Say whether an answer to If-Range is a part of the version that was named there.

    It may leave out fields that whoever asked has already; those it has must be the same.

    Source: RFC 9110, sections 13.1.5 and 15.3.7.3.
    """
    tag = (fields.get(fresh, "etag") or "").strip(fields.OWS)
    return not tag.startswith("W/") and validation.freshens(headers, fresh)


def make_whole(answer: Answer, headers: fields.Headers, length: int) -> None:
    """Give an answer with a part the head of the whole image.

    :param headers: of what is kept of the same version; empty if nothing is.
    """
    whole = [pair for pair in answer.headers if pair[0].lower() not in _OF_PART]
    if headers:
        own = [pair for pair in whole if pair[0].lower() in _OF_ANSWER]
        renewed = validation.updated(headers, whole, answer.answered)
        whole = [*(pair for pair in renewed if pair[0].lower() != "content-length"), *own]
    answer.status = "200 OK"
    answer.headers = [*whole, ("Content-Length", str(length))]


@contextlib.contextmanager
def asking(environ: Environ, asked: Mapping[str, str]) -> Iterator[None]:
    """Have other conditions in a request, and no range, for as long as the block lasts.

    In the environ itself, not in a copy: what is in front of the filter may look for what
    the app leaves in it.

    :param asked: the conditions, and whatever else the app is to see in place of the client's.
    """
    changed = {*validation.CLIENT_CONDITIONS, *asked}
    own = {key: environ.pop(key) for key in changed if key in environ}
    environ.update(asked)
    try:
        yield
    finally:
        for key in changed:
            environ.pop(key, None)
        environ.update(own)


class EntryReader:
    """Reads a complete image as if it grew."""

    def __init__(self, entry: Entry | MemoryEntry) -> None:
        self._entry = entry

    def read(self, position: int, most: int, patience: float) -> bytes:
        """See :class:`~cachemw.core.growing.GrowingReader`."""
        if position > self._entry.size:
            raise FillLost(self._entry.image_id, f"it has {self._entry.size} bytes")
        return self._entry.pread(most, position)

    def close(self) -> None:
        """Let go of it; a second close does nothing."""
        self._entry.close()


class StreamReader:
    """Reads an app's answer for one reader, who goes forward only.

    :param position: in the image, of the first byte that comes.
    :param stop: where it has to end; ``None``: nobody knows.
    :param counters: count the app's bytes.
    """

    def __init__(
        self,
        body: Iterable[bytes],
        position: int,
        stop: int | None,
        counters: Counters = NOBODY,
    ) -> None:
        self._body = body
        self._counters = counters
        self._chunks = iter(body)
        self._chunk = b""
        self._position = position
        self._stop = stop

    def skip(self, position: int) -> None:
        """Read on to a position, for nobody."""
        while self._position < position:
            if not self.read(self._position, position - self._position, 0.0):
                raise CutShort("a stream", f"ended at byte {self._position}")

    def read(self, position: int, most: int, patience: float) -> bytes:
        """See :class:`~cachemw.core.growing.GrowingReader`."""
        if position != self._position:
            raise FillLost("a stream", f"byte {position} is not the next, {self._position}")
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                if self._stop is not None and position < self._stop:
                    raise CutShort("a stream", f"ended at byte {position} of {self._stop}")
                return b""
            if self._stop is not None and position + len(chunk) > self._stop:
                raise LengthMismatch("a stream", f"longer than the {self._stop} bytes promised")
            self._chunk = chunk
            self._counters.add(APP_BYTES, len(chunk))
        data, self._chunk = self._chunk[:most], self._chunk[most:]
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close the answer; a second close does nothing."""
        body, self._body = self._body, ()
        close = getattr(body, "close", None)
        if close is not None:
            close()
