"""Find one answer another reader of its image, where its own was lost.

First another fill, or the entry; of those who come here together one leads,
for all. Else the app is asked for it alone. All hold on to one version, by its
strong validator, and take nothing without one. The app is asked twice at a
byte, and not again once it said that it does not have this version.

Imports: core.checksum, core.config, core.fill, core.growing, core.sharing, drivers.base, errors,
metrics.declared, web.exchange, web.hits, web.keeping, web.respond, web.resuming, web.storing,
web.validation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import sys
from typing import Any

from ..core.checksum import parse_checksum
from ..core.config import Settings
from ..core.fill import Fill
from ..core.growing import MOST, FillGone, FillLost, FillStalled, GrowingReader, as_lost
from ..core.sharing import Sharing
from ..drivers.base import Part, Record
from ..errors import DriverError
from ..metrics.declared import FILLS_TAKEN_OVER
from . import hits, storing, validation
from .exchange import Answer
from .keeping import Keeper
from .respond import wanted_slices
from .resuming import EntryReader, Resumer, StreamReader, holes, is_movable, is_part, part_in

log = logging.getLogger(__name__)

Environ = dict[str, Any]

#: Fills that one answer joins after it lost its own; on a full disk one after the other may be
#: given up.
_MOST_JOINS = 3

#: Of these, at one byte.
_MOST_JOINS_HERE = 2

#: Requests to the app at one byte.
_MOST_REQUESTS_HERE = 2

#: Times that one answer has the app send all of the image.
_MOST_WHOLES = 3


class Onward:
    """Goes on with one answer; see :data:`~cachemw.web.lasting.GoOn`. For one thread at a time.

    :param environ: the client's request, which is copied.
    """

    def __init__(
        self,
        resumer: Resumer,
        sharing: Sharing,
        settings: Settings,
        keeper: Keeper,
        environ: Environ,
    ) -> None:
        self._resumer = resumer
        self._sharing = sharing
        self._settings = settings
        self._keeper = keeper
        self._client = dict(environ)
        self._joins_left = _MOST_JOINS
        self._wholes_left = _MOST_WHOLES
        self._position = -1
        self._joins_here = self._requests_here = 0

    @functools.cached_property
    def _request(self) -> Environ:
        """The request for all of the image, whatever it has."""
        return validation.unconditional(self._client)

    def __call__(
        self, record: Record, length: int | None, position: int, lost: FillLost
    ) -> GrowingReader:
        """Give a reader that goes on from a position.

        :param record: of the version.
        :param length: bytes of it, if they are known.
        :param lost: why the present reader cannot.
        :raises FillLost: there is no other.
        """
        if validation.strong_validator(record.headers) is None:
            raise lost  # nothing could tell whether it would be the same
        if position != self._position:
            self._position = position
            self._joins_here = self._requests_here = 0
        if isinstance(lost, FillStalled):
            self._joins_left = 0  # who comes later may have more luck with that fill
        while self._requests_here < _MOST_REQUESTS_HERE:
            try:
                return self._find(record, length, position, lost)
            except Exception as exc:
                lost = as_lost(record.image_id, exc)
        raise lost

    def complete(self, record: Record) -> None:
        """Have the rest of an image fetched of which parts are kept, for nobody in particular.

        Where that cannot be, it is left as it is.

        :param record: of the version, with its size.
        :raises FillLost: the app broke off, or does not have this version any more.
        """
        reader = self._join(record, record.size, 0)
        if reader is None:
            return
        with contextlib.closing(reader):
            position = 0
            while data := reader.read(position, MOST, math.inf):
                position += len(data)

    def _find(
        self, record: Record, length: int | None, position: int, lost: FillLost
    ) -> GrowingReader:
        if self._joins_left and self._joins_here < _MOST_JOINS_HERE:
            self._joins_left -= 1
            self._joins_here += 1
            log.info("%s; its readers go on elsewhere", lost)
            reader = self._join(record, length, position)
            if reader is not None:
                return reader
        if self._needs_all(record, length):
            answer = self._ask_for_all(record)
            return self._read_all(answer, record, length, position)
        return self._ask_for_rest(record, length, position)

    def _join(self, record: Record, length: int | None, position: int) -> GrowingReader | None:
        """Find another who has the image, here or in another process, or lead for everybody."""

        def is_same(other: Record) -> bool:
            return other.vary == record.vary and (
                validation.same_version(record.headers, other.headers)
            )

        try:
            joined = self._sharing.join(
                record.image_id,
                is_same,
                patience=self._settings.follow_timeout,
                may_lead=True,
                finish_from=self._settings.on_abort,
                is_movable=is_movable(self._request, self._settings),
            )
        except DriverError as exc:
            log.info("%s", exc)
            return None
        if joined.entry is not None:
            return EntryReader(joined.entry)
        if joined.lead is None:
            return joined.reader
        try:
            return self._lead(joined.lead, record, length, position)
        except BaseException:
            joined.lead.decline("")
            raise

    def _lead(
        self, lead: Fill, record: Record, length: int | None, position: int
    ) -> GrowingReader | None:
        """Go on with a fill that was left, for everybody who waits."""
        if length is None:
            # Nothing was kept of it.
            return self._lead_anew(lead, self._ask_for_all(record), record, length, position)
        kept = self._resumer.kept_for(lead, self._request)
        if (
            kept is None
            or kept.length != length
            or not validation.same_version(record.headers, kept.record.headers)
        ):
            lead.decline("")
            return None
        hole = holes(kept)[0]
        answer = self._ask(kept.record, hole, length)
        if not is_part(answer, kept.record.headers, hole, length):
            return self._lead_anew(lead, answer, record, length, position)
        with answer.closed_on_error():
            self._resumer.complete(answer, kept)
            request = validation.unconditional(answer.known_request)
            reason = self._keeper.refusal(answer, request)
            if reason is not None:
                answer.close()
                lead.decline(reason if reason in storing.TAKEN_BACK else "")
                return None
            expected = self._keeper.expected(answer.known_request, answer, kept.record)
            reader = self._keeper.begin(answer, kept.record, expected, lead, keep=True)
        if isinstance(reader, str):
            answer.close()
            return None
        self._sharing.counters.add(FILLS_TAKEN_OVER)
        return reader

    def _lead_anew(
        self, lead: Fill, answer: Answer, record: Record, length: int | None, position: int
    ) -> GrowingReader:
        """Read all of an image for everybody who waits; alone if it may not be stored."""
        self._check_whole(answer, record)
        with answer.closed_on_error():
            request = validation.unconditional(answer.known_request)
            if self._keeper.refusal(answer, request) is None:
                fresh = self._keeper.record(answer, record.image_id, None)
                expected = self._keeper.expected(answer.known_request, answer, fresh)
                reader = self._keeper.begin(answer, fresh, expected, lead)
                if not isinstance(reader, str):
                    return reader
        lead.decline("")
        return self._read_all(answer, record, length, position)

    # Alone

    def _needs_all(self, record: Record, length: int | None) -> bool:
        """Whether all of it must be read once more, since it has a checksum, which is the
        whole's, and the client gets the whole."""
        if not record.checksum:
            return False
        if length is None or "HTTP_RANGE" not in self._client:
            return True
        sized = dataclasses.replace(record, size=length)
        selected = hits.describe(sized, self._settings.freshness).representation
        return wanted_slices(self._client, selected) is None

    def _read_all(
        self, answer: Answer, record: Record, length: int | None, position: int
    ) -> GrowingReader:
        """Read all of an image for one reader alone, who gets its end only if the whole is what
        was promised."""
        self._check_whole(answer, record)
        with answer.closed_on_error():
            needs_all = self._needs_all(record, length)
            if length is None:
                length = _content_length(answer)
            if needs_all:
                known = parse_checksum(record.checksum)
                expected = dict.fromkeys((known, *self._keeper.promised(answer)))
                return self._sharing.verifying(
                    answer.body, record, length=length, expected=tuple(expected)
                )
            reader = StreamReader(answer.body, 0, length, self._sharing.counters)
            reader.skip(position)
            return reader

    def _ask_for_rest(self, record: Record, length: int | None, position: int) -> GrowingReader:
        """Have the app send the rest to one reader alone."""
        # With a byte that the reader has: of an unknown length, it may have all of them.
        start = position if length is not None else max(position - 1, 0)
        stop = sys.maxsize if length is None else length
        answer = self._ask(record, Part(start, stop), stop)
        with answer.closed_on_error():
            found = part_in(answer)
            whole = found[1] if found is not None and length is None else length
            if whole is not None and is_part(answer, record.headers, Part(start, whole), whole):
                rest = StreamReader(answer.body, start, whole, self._sharing.counters)
                rest.skip(position)
                return rest
        return self._read_all(answer, record, length, position)

    def _check_whole(self, answer: Answer, record: Record) -> None:
        """Close an answer that is not all of the version.

        :raises FillGone: it is not.
        """
        is_there = answer.code == 200 and not answer.written
        if is_there and validation.same_version(record.headers, answer.headers):
            return
        answer.close()
        what = "has another version by now" if is_there else f"answered {answer.status}"
        raise FillGone(record.image_id, f"the app {what}")

    def _ask(self, record: Record, part: Part, length: int) -> Answer:
        self._requests_here += 1
        return self._resumer.ask(self._request, record.image_id, record.headers, part, length)

    def _ask_for_all(self, record: Record) -> Answer:
        if not self._wholes_left:
            raise FillGone(record.image_id, "the app broke off too often")
        self._wholes_left -= 1
        self._requests_here += 1
        return self._resumer.ask_for_all(self._request, record.image_id)


def _content_length(answer: Answer) -> int | None:
    try:
        return storing.content_length(answer.headers)
    except ValueError as exc:
        raise FillGone("an answer", str(exc)) from exc
