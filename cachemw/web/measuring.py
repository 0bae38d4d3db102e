"""Count what goes out: how a request was answered, its bytes, and the time to the first one.

A body that the server hands out by itself (a file by sendfile, or what is in
memory) is not touched: it counts with the length that was declared.

Imports: core.reader, metrics.counters, metrics.declared, web.access_log, web.arrivals,
web.growing, web.respond.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..core.reader import Reader
from ..metrics.counters import Counters, observed
from ..metrics.declared import APP_BYTES, FIRST_BYTE, OUTCOMES, REQUESTS, SENT_BYTES
from .access_log import AccessLog
from .arrivals import Slice
from .growing import Stream
from .respond import Segments

Environ = dict[str, Any]

#: Bodies of ours whose bytes are counted as they go out.
_STREAMS = (Reader, Segments, Slice, Stream)

#: Of a number of bytes, at most.
_DIGITS = 15

#: Whose bytes come from the app, one by one.
_FROM_APP = frozenset({"pass", "bypass"})

#: Answers that have no body whatever length they declare (RFC 9110, section 6.4.1).
_BODILESS = ("204", "304")

_APP_BYTES = APP_BYTES.place()

#: Of each outcome: its places among requests, bytes and times.
_PLACES = {
    outcome: (REQUESTS.place(outcome), SENT_BYTES.place(outcome), FIRST_BYTE.place(outcome))
    for outcome in OUTCOMES
}


class Watch:
    """A ``start_response`` that notes what it was called with."""

    __slots__ = ("_start_response", "began", "headers", "status")

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self.began = time.perf_counter()
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """Note it, and pass it on."""
        self.status, self.headers = status, headers
        return self._start_response(status, headers, *exc_info)


class Meter:
    """Counts the answers of one filter. Threads may share it.

    :param log: a line for each request; ``None``: there is no log.
    """

    def __init__(self, counters: Counters, log: AccessLog | None) -> None:
        self._counters = counters
        self._log = log

    def measured(
        self, environ: Environ, watch: Watch, image_id: str, body: Iterable[bytes]
    ) -> Iterable[bytes]:
        """Count an answer that begins.

        :param watch: what it began with.
        :return: the body for the server.
        """
        if isinstance(body, _STREAMS):
            return _Counted(self, watch, image_id, body)
        has_none = environ["REQUEST_METHOD"] == "HEAD" or watch.status.startswith(_BODILESS)
        sent = 0 if has_none else declared_length(watch.headers)
        outcome = outcome_in(watch.headers)
        if outcome in _FROM_APP:
            # What is streamed was counted where it came from the app.
            self._counters.add_to((_APP_BYTES, sent))
        self._note(outcome, watch, image_id, sent, time.perf_counter() - watch.began)
        return body

    def failed(self, watch: Watch, image_id: str) -> None:
        """Count a request for which the app, or the filter, raised."""
        self._note("error", watch, image_id, 0, time.perf_counter() - watch.began)

    def ended(self, watch: Watch, image_id: str, sent: int, seconds: float) -> None:
        """Count an answer whose body was streamed.

        :param sent: bytes of its body.
        :param seconds: to the first of them.
        """
        self._note(outcome_in(watch.headers), watch, image_id, sent, seconds)

    def _note(self, outcome: str, watch: Watch, image_id: str, sent: int, seconds: float) -> None:
        requests, sent_bytes, first_byte = _PLACES[outcome]
        counted = ((requests, 1), (sent_bytes, sent), *observed(FIRST_BYTE, first_byte, seconds))
        self._counters.add_to(*counted)
        if self._log is not None:
            size = whole_length(watch.status, watch.headers)
            self._log.write(time.time(), outcome, watch.status[:3], size, sent, image_id)


class _Counted:
    """A body whose bytes are counted as they go out; counts once, when it is closed."""

    def __init__(self, meter: Meter, watch: Watch, image_id: str, body: Iterable[bytes]) -> None:
        self._meter = meter
        self._watch = watch
        self._image_id = image_id
        self._body = body
        self._chunks = iter(body)
        self._sent = 0
        self._first = -1.0
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        if self._first < 0.0:
            self._first = time.perf_counter() - self._watch.began
        self._sent += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the body; a second close does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            watch = self._watch
            first = self._first if self._first >= 0.0 else time.perf_counter() - watch.began
            self._meter.ended(watch, self._image_id, self._sent, first)


def outcome_in(headers: list[tuple[str, str]]) -> str:
    """Say how a request was answered, by what Cache-Status says of us, which is its last."""
    for name, value in reversed(headers):
        if name == "Cache-Status":
            return outcome_of(value)
    return "pass"


@functools.lru_cache(maxsize=256)
def outcome_of(status: str) -> str:
    """Give the outcome that one Cache-Status of ours means.

    Source: RFC 9211; ``docs/reference/cache-status.rst``.
    """
    words = {word.strip() for word in status.split(";")}
    if words & {"detail=stale-while-revalidate", "detail=stale-if-error"}:
        return "stale"
    if "hit" in words:
        return "hit"
    if "collapsed" in words:
        return "collapsed"
    if "stored" in words:
        return "miss"
    if words & {"fwd=bypass", "detail=only-if-cached"}:
        return "bypass"
    if not status.count("detail=") - ("detail=partial" in words) and "fwd-status=" in status:
        return "revalidated"
    return "pass"


def declared_length(headers: list[tuple[str, str]]) -> int:
    """Give the length that an answer declares for its body, in bytes; 0: none."""
    # Where the answers of hits have it, by sight.
    if len(headers) > 2 and headers[-3][0] == "Content-Length":
        return number_in(headers[-3][1]) or 0
    for name, value in headers:
        if name.lower() == "content-length":
            return number_in(value) or 0
    return 0


def number_in(value: str) -> int | None:
    """Read a number of bytes; ``None``: it is none, or more than any image has."""
    return int(value) if len(value) <= _DIGITS and value.isdecimal() else None


def whole_length(status: str, headers: list[tuple[str, str]]) -> int | None:
    """Give the length of the image that an answer has all or a part of; ``None``: it says none.

    Source: RFC 9110, section 14.4.
    """
    if not status.startswith("206"):
        return declared_length(headers) or None if status.startswith("200") else None
    for name, value in headers:
        if name.lower() == "content-range":
            return number_in(value.rpartition("/")[2])
    return None
