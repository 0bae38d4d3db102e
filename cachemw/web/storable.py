"""What may be stored, and what is worth it.

RFC 9111, section 3, is the authority, for a shared cache that keeps whole 200
responses to GET and nothing else.

Pure: any thread may call anything.

Imports: web.directives, web.fields, web.policy, web.vary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cachemw.web import fields, vary
from cachemw.web.directives import request_directives
from cachemw.web.policy import Policy


def refusal(
    environ: Mapping[str, Any],
    status: int,
    headers: fields.Headers,
    policy: Policy,
    *,
    has_credentials: bool,
    credential_fields: Collection[str] = (),
    authorized: bool = False,
) -> str | None:
    """Why a response must not be stored.

    must-understand lifts no-store, because the rules of the one status that
    is stored at all are implemented.

    :param environ: the request, as WSGI has it.
    :param status: of the response.
    :param headers: of the response.
    :param policy: of the response.
    :param has_credentials: whether the request says who is asking.
    :param credential_fields: lower-case names of the request fields that
        count as credentials: a response that varies by one is one person's.
    :param authorized: whether each hit is put to the app first, so that
        credentials do not matter.
    :return: a word for the detail of Cache-Status; ``None`` if it may be stored.

    Source: RFC 9111, sections 3, 3.5, 4.1, 5.2.1.5, 5.2.2.3, 5.2.2.5, 5.2.2.7 and 7.3.
    """
    if environ["REQUEST_METHOD"] != "GET":
        return "method"
    if status != 200:
        return "status"
    if (policy.no_store and not policy.must_understand) or (
        "no-store" in request_directives(environ)
    ):
        return "no-store"
    if policy.private:
        return "private"
    if fields.get(headers, "Set-Cookie") is not None:
        return "set-cookie"
    names = vary.nominated(headers)
    # The environ has one key for X-Token and X_Token.
    if names is None or any(name.replace("_", "-") in credential_fields for name in names):
        return "vary"
    if has_credentials and not (policy.shareable or authorized):
        return "credentials"
    return None


def is_useful(policy: Policy, age: float) -> bool:
    """Whether a response of that age could ever answer a request without being sent again.

    It can while it is fresh, while its own policy lets it be stale, and for as
    long as the app can be asked for a 304. A response that can do none of it
    may be stored, but only takes the room of others.

    :param age: of the response, in seconds.

    Source: RFC 9111, sections 3, 4.2 and 4.3.1; RFC 5861, sections 3 and 4.
    """
    if policy.validator:
        return True
    if policy.no_cache:
        return False
    grace = (
        0.0 if policy.must_revalidate else max(policy.stale_while_revalidate, policy.stale_if_error)
    )
    return age < policy.lifetime + grace
