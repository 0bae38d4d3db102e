"""Freshness: how old a stored response is, and who may have it unasked.

RFC 9111 is the authority, for a shared cache, with RFC 5861 and RFC 8246.
Where a field is malformed or contradicts itself, the reading that asks more
often is taken: it costs a hit, never a wrong answer.

Times are seconds since the epoch, UTC. Pure: any thread may call anything.

Imports: web.directives, web.fields, web.policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cachemw.web import fields
from cachemw.web.directives import Directives, delta_seconds, request_directives, seconds
from cachemw.web.policy import Policy, date_of

#: What to do with a stored response: the values of ``Decision.action``.
SERVE = "serve"
SERVE_STALE_AND_REVALIDATE = "serve-stale-and-revalidate"
REVALIDATE = "revalidate"

#: Request directives that want something fresher than what is merely allowed.
_WANTS_FRESH = frozenset(("max-age", "min-fresh", "no-cache"))


@dataclass(frozen=True, slots=True)
class Decision:
    """What a request gets of a stored response.

    :param action: ``SERVE`` it; ``SERVE_STALE_AND_REVALIDATE``: serve it, and
        ask the app meanwhile; ``REVALIDATE``: ask the app first.
    :param forward: why the app is asked, as RFC 9211, section 2.2, calls it;
        ``None`` if it is not.
    :param stale_if_error: whether it may be served if the app is asked and fails.
    """

    action: str
    forward: str | None = None
    stale_if_error: bool = False


_SERVE = Decision(SERVE)


def decide(environ: Mapping[str, Any], age: float, policy: Policy) -> Decision:
    """What to do with a stored response that the request selects.

    :param environ: the request, as WSGI has it.
    :param age: of the stored response, in seconds.
    :param policy: of the stored response.

    Source: RFC 9111, sections 4, 4.2.4, 5.2.1 and 5.4; RFC 5861, sections 3 and 4.
    """
    wanted = request_directives(environ)
    overdue = age - policy.lifetime
    if policy.no_cache:
        forward = "stale"
    elif overdue < 0:
        if not wanted or _is_fresh_enough(wanted, age, policy):
            return _SERVE
        forward = "request"
    else:
        if _wants_stale(wanted, age, overdue, policy):
            return _SERVE
        forward = "stale"
        if _may_be_asked_meanwhile(wanted, overdue, policy):
            return Decision(SERVE_STALE_AND_REVALIDATE, forward, stale_if_error=True)
    return Decision(REVALIDATE, forward, _stale_if_error(wanted, overdue, policy))


def only_if_cached(environ: Mapping[str, Any]) -> bool:
    """Whether the app must not be asked for a request; what is not stored is a 504 then.

    :param environ: the request, as WSGI has it.

    Source: RFC 9111, section 5.2.1.7.
    """
    return "only-if-cached" in request_directives(environ)


def initial_age(headers: fields.Headers, request_time: float, response_time: float) -> float:
    """The age of a response at the moment it arrived, in seconds.

    :param headers: of the response.
    :param request_time: when the request for it was sent.
    :param response_time: when the response arrived.

    Source: RFC 9111, sections 4.2.3 (corrected_initial_age) and 5.1.
    """
    apparent_age = response_time - date_of(headers, response_time)
    members = fields.split_list(fields.get(headers, "Age") or "")
    age = delta_seconds(members[0]) or 0 if members else 0
    response_delay = max(0.0, response_time - request_time)
    return max(apparent_age, age + response_delay)


def current_age(initial: float, response_time: float, now: float) -> float:
    """The age of a stored response, in seconds; a clock set back does not lower it.

    :param initial: as ``initial_age`` gives it.
    :param response_time: when the response arrived.

    Source: RFC 9111, section 4.2.3.
    """
    return initial + max(0.0, now - response_time)


def _is_fresh_enough(wanted: Directives, age: float, policy: Policy) -> bool:
    """Whether a fresh response satisfies the request's directives.

    What is immutable needs no check because a browser reloads its page, which
    is what max-age=0 says. An explicit no-cache is honoured all the same: RFC
    8246, section 2, takes it as a sign that a check is wanted, and it is how a
    client gets rid of what it found to be damaged.

    Source: RFC 9111, sections 5.2.1.1, 5.2.1.3 and 5.2.1.4; RFC 8246, section 2.
    """
    if "no-cache" in wanted:
        return False
    if "max-age" in wanted and not policy.immutable:
        # Just stored is not fresh enough for 0, which asks for a new answer.
        limit = seconds(wanted, "max-age")
        if limit == 0 or age > limit:
            return False
    if "min-fresh" in wanted:
        margin = delta_seconds(wanted["min-fresh"])
        return margin is not None and policy.lifetime - age >= margin
    return True


def _wants_stale(wanted: Directives, age: float, overdue: float, policy: Policy) -> bool:
    """Whether the request takes a stale response, and the response lets it.

    A max-age beside max-stale limits the age still.

    Source: RFC 9111, sections 4.2.4, 5.2.1.1 and 5.2.1.2.
    """
    if "max-stale" not in wanted or policy.forbids_stale:
        return False
    if "no-cache" in wanted or "min-fresh" in wanted:
        return False
    if "max-age" in wanted and age > seconds(wanted, "max-age"):
        return False
    limit = wanted["max-stale"]
    if limit is None:
        return True
    allowed = delta_seconds(limit)
    return allowed is not None and overdue <= allowed


def _may_be_asked_meanwhile(wanted: Directives, overdue: float, policy: Policy) -> bool:
    """Whether a stale response may be served while the app is asked.

    Source: RFC 5861, section 3; RFC 9111, sections 4.2.4 and 5.2.1.1.
    """
    return (
        not policy.forbids_stale
        and overdue < policy.stale_while_revalidate
        and _WANTS_FRESH.isdisjoint(wanted)
    )


def _stale_if_error(wanted: Directives, overdue: float, policy: Policy) -> bool:
    """Whether a stale response may be served because the app failed.

    A request that wants something fresher than usual gets the failure, unless
    it says itself that it can do with less then.

    Source: RFC 5861, section 4; RFC 9111, section 4.2.4.
    """
    if policy.forbids_stale:
        return False
    # A fresh one that the request refused is not overdue, but needs a grace all the same.
    overdue = max(0.0, overdue)
    if overdue < seconds(wanted, "stale-if-error"):
        return True
    return overdue < policy.stale_if_error and _WANTS_FRESH.isdisjoint(wanted)
