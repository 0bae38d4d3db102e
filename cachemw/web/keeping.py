"""Keep what the app answers: what is stored of it, and what is dropped because of it.

Imports: core.cache, core.checksum, core.config, core.fill, core.reader, core.sharing,
drivers.base, errors, web.authorize, web.exchange, web.growing, web.hits, web.storing,
web.validation.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterable
from typing import Any

from ..core import checksum
from ..core.cache import ImageCache
from ..core.config import Settings
from ..core.fill import Fill
from ..core.reader import Reader
from ..core.sharing import FillOvertaken
from ..drivers.base import Entry, Record
from ..errors import CacheFull, DriverError
from . import hits, storing, validation
from .authorize import Hook
from .exchange import Answer
from .growing import GrowingEntry

log = logging.getLogger(__name__)

Environ = dict[str, Any]

#: The image is no more.
_GONE = frozenset({404, 410})

#: Why an answer is not stored that another request's may be.
_OF_REQUEST = frozenset({"changed", "credentials", "head", "method", "range", "status"})

#: An id that no two images have in common.
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Keeper:
    """Stores the app's answers. Safe for threads.

    :param rules: what may be stored.
    :param hook: who may have a copy, if a function says so.
    """

    def __init__(
        self, cache: ImageCache, settings: Settings, rules: storing.Rules, hook: Hook | None
    ) -> None:
        self._cache = cache
        self._service = settings.service
        self._rules = rules
        self._hook = hook

    def refusal(self, answer: Answer, request: Environ) -> str | None:
        """Why an answer is not stored, as Cache-Status says it."""
        return self._rules.refusal(request, answer.code, answer.headers, answer.answered)

    def record(self, answer: Answer, image_id: str, replaces: Record | None) -> Record:
        """Describe an answer that will be stored.

        :param replaces: what is stored for the same request already.
        """
        record = storing.new_record(
            image_id, answer.request, answer.headers, answer.asked, answer.answered
        )
        if self.named(record) is not None:
            record = dataclasses.replace(record, vary=())  # the bytes are the same for all
        if self._rules.is_guarded(answer.known_request, answer.headers):
            record = dataclasses.replace(record, guarded=True)
        # Kept beside what it replaces, it would never be met before that.
        variant = self._cache.entries.place_for(record) if replaces is None else replaces.variant
        return dataclasses.replace(record, variant=variant)

    def promised(self, answer: Answer) -> tuple[checksum.Checksum, ...]:
        """Give the checksums that an answer has in its fields, the strongest first."""
        return checksum.from_headers(answer.headers, etag_is_md5=self._service.etag_is_md5)

    def expected(
        self, environ: Environ, answer: Answer, record: Record
    ) -> tuple[checksum.Checksum, ...]:
        """Give every checksum that the bytes must have, the strongest known first."""
        expected = self.promised(answer)
        if self._hook is not None:
            expected = (*self._hook.expected(environ, record.image_id), *expected)
        named = self.named(record)
        if named is not None:
            expected = (named, *expected)
        return tuple(dict.fromkeys(expected))

    def named(self, record: Record) -> checksum.Checksum | None:
        """Give the checksum that an image's id is, if it is one."""
        if not self._service.id_is_checksum or _DIGEST.fullmatch(record.image_id) is None:
            return None
        return checksum.parse_checksum(record.image_id)

    def fill(
        self,
        answer: Answer,
        record: Record,
        expected: tuple[checksum.Checksum, ...],
        forward: str,
    ) -> Iterable[bytes]:
        """Send an answer, and store its body as it passes.

        :param expected: checksums that it must have.
        :param forward: the ``fwd`` parameter of Cache-Status.
        :return: the body for the server.
        """
        reader = self.begin(answer, record, expected, None)
        if isinstance(reader, str):
            return self.decline(answer, forward, reader)
        return self.send(answer, reader, forward)

    def send(self, answer: Answer, reader: Reader, forward: str) -> Iterable[bytes]:
        """Send an answer whose body is being stored.

        :param forward: the ``fwd`` parameter of Cache-Status.
        :return: the body for the server.
        """
        try:
            answer.send(hits.cache_status(f"fwd={forward}; stored"))
        except BaseException:
            reader.give_up()
            raise
        return reader

    def begin(
        self,
        answer: Answer,
        record: Record,
        expected: tuple[checksum.Checksum, ...],
        lead: Fill | None,
        keep: bool = False,
    ) -> Reader | str:
        """Begin to store an answer's body, which is the fill's from then on.

        :param keep: whether the body goes on with what is kept.
        :return: a word for the detail of Cache-Status if that cannot be.
        """
        if not storing.fits(record):
            return self.give_back(lead, "fields", answer)
        if expected:
            record = dataclasses.replace(record, checksum=str(expected[0]))
        length = storing.content_length(answer.headers)
        resumable = length is not None and validation.strong_validator(record.headers) is not None
        try:
            reader = self._cache.sharing.start_fill(
                record.image_id,
                answer.body,
                record,
                lead=lead,
                length=length,
                expected=expected,
                is_resumable=resumable,
                keep=keep,
                mark=answer.deletion_before,
            )
        except FillOvertaken:
            return "changed"
        except CacheFull as exc:
            log.info("%s", exc)
            return "full"
        except DriverError as exc:
            log.info("%s", exc)
            return "not-writable"
        except Exception:
            log.exception("%s could not be cached", record.image_id)
            return "error"
        answer.body = ()
        answer.stored = True
        if self._is_overtaken(answer, record):
            self.forget(record.image_id)  # it goes out, but is not stored
        return reader

    def _is_overtaken(self, answer: Answer, record: Record) -> bool:
        """Say whether the image was changed while the app was about to answer."""
        return self._cache.mark_of_deletion(record.image_id) != answer.deletion_before

    def give_back(self, lead: Fill | None, word: str, answer: Answer) -> str:
        """Let others ask the app, since this answer is not stored.

        What is kept of the image stays if the answer says nothing of it.

        :return: the word.
        """
        if lead is not None:
            is_gone = answer.code in _GONE and not self._rules.authorized
            is_lasting = word not in _OF_REQUEST
            self._cache.sharing.decline(
                lead, word, is_lasting, keeps=not is_gone and answer.code != 200
            )
        return word

    def decline(self, answer: Answer, forward: str, reason: str) -> Iterable[bytes]:
        """Send an answer, and do not store it.

        :param reason: the ``detail`` parameter of Cache-Status.
        """
        answer.send(hits.cache_status(f"fwd={forward}; detail={reason}"))
        return answer.server_body()

    def adopt(self, entry: Entry, record: Record, expected: tuple[checksum.Checksum, ...]) -> bool:
        """Give another program's copy its record, if it is what the app has. :return: whether."""
        if not expected:
            return False
        known = dataclasses.replace(record, size=entry.size, checksum=str(expected[0]), variant=0)
        return self._cache.entries.adopt(entry, known)

    def renew(self, entry: hits.AnyEntry, fresh: Record, answer: Answer) -> None:
        """Store a record that the app's answer renewed, as far as the answer and the request
        let it be stored; drop the entry where the answer takes back that it may be."""
        assert entry.record is not None
        if isinstance(entry, GrowingEntry):
            return  # who fills it has just been told the same
        if storing.is_narrower(fresh, entry.record):
            return  # what those fields did to the answer is not for the others
        reason = self._rules.renewal_refusal(answer.known_request, fresh.headers, answer.answered)
        if reason in storing.TAKEN_BACK or not storing.fits(fresh):
            self.forget(fresh.image_id)
        elif reason is None:
            self._cache.entries.update(entry, fresh)

    def forget_if_gone(self, answer: Answer, record: Record, reason: str | None) -> None:
        """Drop what the app does not have any more, or takes back; with ``authorize`` it may
        only say so to this client.

        :param reason: why the answer is not stored; ``None``: the client has it already.
        """
        # Nothing tells whether what has no validator has changed.
        has_changed = bool(validation.conditions(record.headers)) or reason in storing.TAKEN_BACK
        is_gone = has_changed if answer.code == 200 else answer.code in _GONE
        if is_gone and not self._rules.authorized:
            self.forget(record.image_id)

    def forget(self, image_id: str) -> None:
        """Drop every variant of an image. Never raises."""
        try:
            self._cache.delete_cached_image(image_id)
        except Exception as exc:
            log.error("%s is out of date, but could not be removed: %s", image_id, exc)
