"""What became of an image that was fetched for the cache, in an operator's words.

Pure.

Imports: errors.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from ..errors import CacheMwError, ChecksumMismatch, DriverError, FillError, UpstreamFailed


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it.

    :param reason: why it failed; empty: the image is cached.
    :param is_lasting: whether the next try will most likely fail the same way.
    """

    reason: str = ""
    is_lasting: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the image is cached."""
        return not self.reason


DONE = Outcome()

#: Statuses that say: later (RFC 9110, section 15.5; RFC 8470; RFC 6585).
_LATER = frozenset({408, 421, 425, 429})

_CREDENTIALS = frozenset({401, 403, 407})

#: What the words mean that say why an answer is not stored, as in the reference.
_NOT_STORED = {
    "status": "its status is not 200",
    "no-store": "it says no-store",
    "private": "it says private",
    "set-cookie": "it sets a cookie",
    "vary": "its Vary is * or names a credential",
    "credentials": "the request has credentials, and the answer does not say public",
    "content-type": "its media type is not one of content_types",
    "manifest": "it is a manifest",
    "content-length": "its Content-Length is no number",
    "content-encoding": "it has a Content-Encoding",
    "fields": "its fields are too long",
    "not-fresh": "it is stale at once and has no validator",
    "validator": "it has no strong validator",
    "write": "the app sends it by write()",
    "range": "only a part came",
    "authorize": "the authorize function does not allow it",
    "override": "a field names another method or path",
    "body": "the request has a body",
}

#: The same, where it may be otherwise the next time.
_NOT_STORED_NOW = {
    "full": "there is no room for it",
    "not-writable": "the cache directory cannot be written to, or another request fills it",
    "changed": "it was changed meanwhile",
    "error": "a fault of the cache; its log says more",
}

_OURS = re.compile(r"(?:^|,)\s*cachemw\s*((?:;[^,]*)?)")
_DETAIL = re.compile(r";\s*detail=([a-z0-9-]+)")


def of_answer(status: str, headers: Iterable[tuple[str, str]]) -> Outcome | None:
    """Judge an answer that came through the filter by its head.

    :param status: code and phrase.
    :return: ``None``: whether it will be stored is known when it was read to its end.
    """
    code = int(status[:3])
    if code != 200:
        hint = " (prefetch_headers says who asks)" if code in _CREDENTIALS else ""
        is_lasting = 300 <= code < 500 and code not in _LATER
        return Outcome(f"the app answered {status.strip()}{hint}", is_lasting)
    fields = [value for name, value in headers if name.lower() == "cache-status"]
    ours = _OURS.findall(", ".join(fields))
    if not ours:
        return Outcome("no route of the cache is for it", is_lasting=True)
    parameters = ours[-1]  # nearest to the client
    if re.match(r";\s*hit\b", parameters):
        return DONE
    found = _DETAIL.search(parameters)
    word = found[1] if found else ""
    if word in _NOT_STORED:
        return Outcome(f"not stored: {_NOT_STORED[word]} ({word})", is_lasting=True)
    if word in _NOT_STORED_NOW:
        return Outcome(f"not stored: {_NOT_STORED_NOW[word]} ({word})")
    return None


def of_error(exc: BaseException, received: int = 0) -> Outcome:
    """Judge what was raised while an image was fetched.

    :param received: bytes that came before.
    """
    if isinstance(exc, ChecksumMismatch):
        return Outcome(f"wrong checksum: {exc.reason}")
    if isinstance(exc, FillError | DriverError):
        return Outcome(exc.reason)
    if isinstance(exc, UpstreamFailed) and received:
        # What the HTTP library says of it is not for people.
        return Outcome(f"the app broke off after {received} bytes")
    said = str(exc) if isinstance(exc, CacheMwError) else f"{type(exc).__name__}: {exc}"
    after = f" after {received} bytes" if received else ""
    return Outcome(f"the app failed{after}: {said}")


def of_end(is_cached: bool) -> Outcome:
    """Judge an answer that was read to its end."""
    return DONE if is_cached else Outcome("it was sent, but is not in the cache after that")


def of_stall(seconds: float, received: int) -> Outcome:
    """Judge a fetch that came to a standstill.

    :param seconds: for so long.
    :param received: bytes that came before.
    """
    return Outcome(f"stalled: nothing came for {seconds:g} s after {received} bytes")


#: Nothing says how to fetch it.
NOT_FETCHABLE = Outcome(
    "nothing says how to fetch it: its id is no URL, no request named it, and there is no"
    " image_path for it",
    is_lasting=True,
)
