"""Whether an answer of the app may be stored, and what is kept of it.

Pure: functions over the request's environ and the answer's fields.

Imports: core.targets, drivers.base, web.directives, web.fields, web.freshness, web.policy,
web.storable, web.vary.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Collection, Mapping
from typing import Any

from ..core.targets import OWN_REQUEST
from ..drivers.base import Record
from . import fields, freshness, storable, vary
from .directives import request_directives
from .policy import policy

#: Request fields that say who is asking, as environ keys.
CREDENTIALS = (
    "HTTP_AUTHORIZATION",
    "HTTP_COOKIE",
    "HTTP_X_AUTH_TOKEN",
    "HTTP_X_SERVICE_TOKEN",
    "HTTP_X_STORAGE_TOKEN",
    "HTTP_X_AMZ_SECURITY_TOKEN",
    "REMOTE_USER",
)

#: Request fields that many apps and servers take for a part of the target URI. An answer
#: to a request with one is kept for requests with the same one, as if Vary named it, so
#: that nobody can put their own version under everyone's URI.
UNKEYED = (
    "front-end-https",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-script-name",
    "x-url-scheme",
)

#: Request fields that make apps answer for another method or path.
_OVERRIDES = frozenset(
    {
        "HTTP_X_HTTP_METHOD",
        "HTTP_X_HTTP_METHOD_OVERRIDE",
        "HTTP_X_METHOD_OVERRIDE",
        "HTTP_X_ORIGINAL_URL",
        "HTTP_X_REWRITE_URL",
    }
)

#: A longer record is not kept, bytes: drivers have their limits, and so has memory.
MAX_FIELDS = 64 * 1024

#: Fields of an answer that are for one person, besides those that a request says so with.
_HANDED_OUT = frozenset({"authentication-info", "set-cookie2", "x-subject-token"})

#: Fields of an answer that are true of one message, not of the image.
_NOT_KEPT = frozenset({"content-length", "age", "cache-status"})


#: Why an answer that renews what is stored has it dropped: it says itself that such an
#: answer is not for a shared cache.
TAKEN_BACK = frozenset({"no-store", "private", "vary"})


def content_length(headers: fields.Headers) -> int | None:
    """Read the length that an answer promises.

    :return: bytes; ``None`` if it promises none.
    :raises ValueError: it promises nonsense, or several lengths.

    Source: RFC 9110, section 8.6.
    """
    lengths = {
        element
        for value in fields.get_all(headers, "content-length")
        for element in (fields.split_list(value) or [value])
    }
    if not lengths:
        return None
    (length,) = lengths if len(lengths) == 1 else ("several",)
    if not (length.isascii() and length.isdigit()):
        raise ValueError(f"Content-Length: expected one number, not {sorted(lengths)}")
    return int(length)


def is_image(headers: fields.Headers, patterns: Collection[str]) -> bool:
    """Say whether an answer's media type is one of those that count as images.

    :param patterns: shell patterns; one that begins with ``!`` says what does not count.
    """
    media_type, _, _ = (fields.get(headers, "content-type") or "").partition(";")
    name = media_type.strip().lower()
    wanted, unwanted = False, False
    for pattern in patterns:
        if pattern.startswith("!"):
            unwanted = unwanted or fnmatch.fnmatchcase(name, pattern[1:].lower())
        else:
            wanted = wanted or fnmatch.fnmatchcase(name, pattern.lower())
    return wanted and not unwanted


def bypass(environ: Mapping[str, Any]) -> str | None:
    """Why a request has nothing to do with what is stored, whatever its target.

    A field that names another method or path would have the app answer something
    else than what the request line asks for; so would a body.

    :return: a word for the detail of Cache-Status.
    """
    # A set would look at each of the environ's items; a view looks for each of these.
    if not environ.keys().isdisjoint(_OVERRIDES):
        return "override"
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        return "body"
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """What the operator's settings say about storing.

    :param content_types: media types that count as images, as shell patterns.
    :param credential_keys: environ keys that count as credentials.
    :param authorized: whether somebody is asked at each hit who may have the copy.
    :param unconditional: whether an answer is worth storing whatever its freshness.
    :param uncoded: whether only bytes without a content coding are what the id names.
    :param not_images: fields, in lower case, of answers that only look like images.
    """

    content_types: tuple[str, ...]
    credential_keys: tuple[str, ...] = CREDENTIALS
    authorized: bool = False
    unconditional: bool = False
    uncoded: bool = False
    not_images: tuple[str, ...] = ()

    def refusal(
        self, environ: Mapping[str, Any], status: int, headers: fields.Headers, now: float
    ) -> str | None:
        """Why an answer is not stored.

        :return: a word for the detail of Cache-Status; ``None``: store it.
        """
        if environ["REQUEST_METHOD"] == "HEAD":
            return "head"
        if "HTTP_RANGE" in environ:
            return "range"
        stated = policy(headers, now)
        reason = storable.refusal(
            environ,
            status,
            headers,
            stated,
            has_credentials=any(environ.get(key) for key in self.credential_keys),
            credential_fields=self._credential_fields,
            authorized=self.authorized,
        )
        if reason is not None:
            return reason
        if len(self.impersonal(headers)) < len(headers):
            return "credentials"
        if not is_image(headers, self.content_types):
            return "content-type"
        if self.uncoded and (fields.get(headers, "content-encoding") or "identity") != "identity":
            return "content-encoding"
        if any(fields.get(headers, name) is not None for name in self.not_images):
            return "manifest"
        try:
            content_length(headers)
        except ValueError:
            return "content-length"
        age = freshness.initial_age(headers, now, now)
        return None if self.unconditional or storable.is_useful(stated, age) else "not-fresh"

    def renewal_refusal(
        self, environ: Mapping[str, Any], headers: fields.Headers, now: float
    ) -> str | None:
        """Why what the app answered about a stored 200 is not stored with it.

        :param environ: the request that the app answered: a GET or HEAD for all or a part.
        :param headers: of the stored answer, as renewed.
        :return: one of :data:`TAKEN_BACK` if the answer forbids that any of it is stored;
            another word if this request's answer must not be; ``None``: store it.

        Source: RFC 9111, sections 3.2, 3.5 and 5.2.1.5.
        """
        own = {"REQUEST_METHOD": "GET", "HTTP_CACHE_CONTROL": "", "HTTP_PRAGMA": ""}
        ranged = {key: value for key, value in environ.items() if key != "HTTP_RANGE"}
        reason = self.refusal(ranged | own, 200, headers, now)
        if reason is None and "no-store" in request_directives(environ):
            return "request"
        return reason

    def is_guarded(self, environ: Mapping[str, Any], headers: fields.Headers) -> bool:
        """Say whether an answer is stored only because somebody is asked at each hit."""
        has_credentials = any(environ.get(key) for key in self.credential_keys)
        # Our own requests begin behind whatever asks clients who they are.
        has_credentials = has_credentials or OWN_REQUEST in environ
        return self.authorized and has_credentials and not policy(headers, 0.0).shareable

    def impersonal(self, headers: fields.Headers) -> tuple[tuple[str, str], ...]:
        """Give the fields of an answer without those that hand out credentials."""
        handed_out = self._credential_fields | _HANDED_OUT
        return tuple(pair for pair in headers if pair[0].lower() not in handed_out)

    @property
    def _credential_fields(self) -> frozenset[str]:
        return frozenset(
            key.removeprefix("HTTP_").replace("_", "-").lower() for key in self.credential_keys
        )


def selecting(environ: Mapping[str, Any], headers: fields.Headers) -> vary.Selecting:
    """Give the fields of a request that chose its answer, whether the answer says so or not.

    Source: RFC 9111, section 4.1.
    """
    unkeyed = {name for name in UNKEYED if fields.environ_key(name) in environ}
    return vary.selecting(environ, sorted(unkeyed.union(vary.nominated(headers) or ())))


def is_narrower(fresh: Record, record: Record) -> bool:
    """Say whether a renewed record is for fewer requests, because of :data:`UNKEYED` alone."""
    known = {name for name, _ in record.vary}.union(vary.nominated(fresh.headers) or ())
    return any(name not in known for name, _ in fresh.vary)


def new_record(
    image_id: str,
    environ: Mapping[str, Any],
    headers: fields.Headers,
    request_time: float,
    response_time: float,
) -> Record:
    """Describe an answer that will be stored; size and checksum are not known yet.

    :param request_time: when the app was asked, seconds since the epoch.
    :param response_time: when it answered.
    """
    kept = [pair for pair in fields.end_to_end(headers) if pair[0].lower() not in _NOT_KEPT]
    if fields.get(kept, "date") is None:
        # RFC 9110, section 6.6.1: whoever receives it without one records the time.
        kept.append(("Date", fields.format_http_date(response_time)))
    return Record(
        image_id=image_id,
        size=0,
        checksum="",
        headers=tuple(kept),
        vary=selecting(environ, headers),
        stored=response_time,
        age=freshness.initial_age(headers, request_time, response_time),
    )


def fits(record: Record) -> bool:
    """Say whether a record's fields are short enough to be kept."""
    text = json.dumps([record.headers, record.vary], ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass")) <= MAX_FIELDS
