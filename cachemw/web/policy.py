"""Policy: what the fields of a response let a shared cache do with it.

RFC 9111 is the authority, with RFC 5861 (stale-while-revalidate and
stale-if-error), RFC 8246 (immutable) and RFC 9213 (targeted fields). A
malformed lifetime is none.

Pure: any thread may call anything.

Imports: web.directives, web.fields, web.targeted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cachemw.web import fields
from cachemw.web.directives import Directives, seconds
from cachemw.web.targeted import TARGETS, response_directives

#: A response of no stated lifetime stays fresh for this part of the time since
#: it last changed, and no longer than the maximum (seconds).
HEURISTIC_PART = 0.1
HEURISTIC_MAX = 86400.0

#: Directives that let a shared cache keep the answer to a request with
#: credentials (RFC 9111, section 3.5).
SHAREABLE = frozenset(("must-revalidate", "public", "s-maxage"))

#: Directives that forbid a shared cache to serve what is stale
#: (RFC 9111, sections 4.2.4, 5.2.2.2, 5.2.2.8 and 5.2.2.10).
_REVALIDATED = frozenset(("must-revalidate", "proxy-revalidate", "s-maxage"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What one response says about its caching.

    :param lifetime: seconds for which it is fresh after it was made.
    :param explicit: whether the response stated that lifetime; else it is a guess.
    :param no_cache: to be served only after the app was asked.
    :param no_store: not to be kept.
    :param private: for one person.
    :param public: for everyone, whatever the request had.
    :param shareable: may be kept although the request had credentials.
    :param must_revalidate: not to be served stale.
    :param stale_while_revalidate: seconds of staleness in which it may be
        served while the app is being asked.
    :param stale_if_error: seconds of staleness in which it may be served if
        the app fails.
    :param immutable: does not change while it is fresh.
    :param must_understand: to be kept, even with no-store, by a cache that
        knows the status.
    :param validator: has an ETag or Last-Modified to ask the app with.
    """

    lifetime: float = 0.0
    explicit: bool = False
    no_cache: bool = False
    no_store: bool = False
    private: bool = False
    public: bool = False
    shareable: bool = False
    must_revalidate: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    immutable: bool = False
    must_understand: bool = False
    validator: bool = False

    @property
    def forbids_stale(self) -> bool:
        """Whether it may not be served stale, whoever asks (RFC 9111, section 4.2.4)."""
        return self.must_revalidate or self.no_cache


def policy(
    headers: fields.Headers, response_time: float, targets: Sequence[str] = TARGETS
) -> Policy:
    """Read the policy of a 200 response.

    :param headers: of the response.
    :param response_time: when it arrived, seconds since the epoch.
    :param targets: names of targeted fields, the most particular first.

    Source: RFC 9111, sections 4.2.1, 4.2.2, 5.2.2 and 5.3; RFC 9213, section 2.2.
    """
    directives, targeted = response_directives(headers, targets)
    stated = _stated(directives, [] if targeted else headers, headers, response_time)
    return Policy(
        lifetime=_heuristic(headers, response_time) if stated is None else stated,
        explicit=stated is not None,
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        private="private" in directives,
        public="public" in directives,
        shareable=not SHAREABLE.isdisjoint(directives),
        must_revalidate=not _REVALIDATED.isdisjoint(directives),
        stale_while_revalidate=float(seconds(directives, "stale-while-revalidate")),
        stale_if_error=float(seconds(directives, "stale-if-error")),
        immutable="immutable" in directives,
        must_understand="must-understand" in directives,
        validator=_has_validator(headers, response_time),
    )


def date_of(headers: fields.Headers, response_time: float) -> float:
    """When the response was made; without a good Date when it arrived.

    Source: RFC 9110, section 6.6.1.
    """
    date = fields.parse_http_date(fields.get(headers, "Date") or "", response_time)
    return response_time if date is None else date


def _stated(
    directives: Directives,
    expiring: fields.Headers,
    headers: fields.Headers,
    response_time: float,
) -> float | None:
    """The lifetime that a response states; of several Expires the earliest counts.

    :param expiring: where Expires is looked for.

    Source: RFC 9111, sections 4.2.1 and 5.3.
    """
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return float(seconds(directives, name))
    date = date_of(headers, response_time)
    lifetimes = [
        _seconds_after(date, text, response_time) for text in fields.get_all(expiring, "Expires")
    ]
    return min(lifetimes, default=None)


def _seconds_after(date: float, text: str, response_time: float) -> float:
    """How long after ``date`` an Expires lies; 0 if it is malformed or earlier."""
    expires = fields.parse_http_date(text, response_time)
    return 0.0 if expires is None else max(0.0, expires - date)


def _heuristic(headers: fields.Headers, response_time: float) -> float:
    """The lifetime of a 200 that does not state one (RFC 9111, section 4.2.2)."""
    changed = fields.parse_http_date(fields.get(headers, "Last-Modified") or "", response_time)
    if changed is None:
        return 0.0
    date = date_of(headers, response_time)
    return min(max(0.0, date - changed) * HEURISTIC_PART, HEURISTIC_MAX)


def _has_validator(headers: fields.Headers, response_time: float) -> bool:
    """Whether the app can be asked if it still has this (RFC 9111, section 4.3.1)."""
    if (fields.get(headers, "ETag") or "").strip(fields.OWS):
        return True
    changed = fields.get(headers, "Last-Modified")
    return changed is not None and fields.parse_http_date(changed, response_time) is not None
