"""Who may use the management API: decisions over a request's environ.

Pure. With a token, whoever sends it may. Without one, only a client on this
machine may, and nothing that could have come through a proxy counts as one,
nor what a page on the web could have its reader's browser send here under a
name of its own (DNS rebinding).

A browser can be made to send requests by pages of other sites, with whatever
the browser knows (a password, a place on this machine). So what changes
anything must come from a page of the same origin, or from no page:
``Sec-Fetch-Site`` says so, else ``Origin``; a browser too old for both can be
made to send nothing but a form.

Imports: nothing of ours.

Source: https://www.w3.org/TR/fetch-metadata/; RFC 6454, section 7;
https://fetch.spec.whatwg.org/#cors-safelisted-request-header (what a form can send).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: Methods that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: A request that came through a proxy has one of these.
_OF_PROXIES = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")
_FORWARDED = "HTTP_X_FORWARDED"

_HOST = re.compile(r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")

_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})

_NO_TOKEN = (
    "no admin_token is set, so only a client on this machine may do this, directly and by the"
    " name localhost or a loopback address"
)


class Refusal(NamedTuple):
    """Why a request is refused.

    :param detail: for whoever asked.
    :param asks_token: whether a token would help.
    """

    detail: str
    asks_token: bool = False


def refuse(environ: Mapping[str, Any], token: str) -> Refusal | None:
    """Refuse whoever may not use the API.

    :param token: empty: none is set.
    :return: ``None``: this one may.
    """
    if token:
        if any(_is_same(given, token) for given in _given_tokens(environ)):
            return None
        return Refusal("the admin token is missing or wrong", asks_token=True)
    if _is_direct(environ) and _is_loopback(environ.get("REMOTE_ADDR", "")):
        host = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if host is not None and _is_local_name(host["literal"] or host["name"]):
            return None
    return Refusal(_NO_TOKEN)


def refuse_across_sites(environ: Mapping[str, Any]) -> Refusal | None:
    """Refuse a change that another site's page may have asked for.

    :return: ``None``: no page has, or one of ours.
    """
    if environ["REQUEST_METHOD"] in _SAFE:
        return None
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        if site in ("same-origin", "none"):
            return None
        return Refusal("the request comes from a page of another site")
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None:
        if _host_of(origin) == environ.get("HTTP_HOST", "").lower() != "":
            return None
        return Refusal("the request comes from a page of another site")
    if _is_form(environ) and "HTTP_X_AUTH_TOKEN" not in environ and not _bearer(environ):
        return Refusal(
            "what a form could send is refused: add the field Content-Type: application/json"
        )
    return None


def _given_tokens(environ: Mapping[str, Any]) -> Iterator[str]:
    if "HTTP_X_AUTH_TOKEN" in environ:
        yield environ["HTTP_X_AUTH_TOKEN"]
    scheme, credentials = _authorization(environ)
    if scheme == "bearer":
        yield credentials
    elif scheme == "basic":
        try:
            pair = base64.b64decode(credentials, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return
        # RFC 7617, section 2: the user name has no colon.
        yield pair.partition(":")[2]


def _authorization(environ: Mapping[str, Any]) -> tuple[str, str]:
    scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    return scheme.lower(), credentials.strip()


def _bearer(environ: Mapping[str, Any]) -> bool:
    return _authorization(environ)[0] == "bearer"


def _is_same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _is_direct(environ: Mapping[str, Any]) -> bool:
    return not any(name in _OF_PROXIES or name.startswith(_FORWARDED) for name in environ)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _is_local_name(name: str) -> bool:
    return name.lower() == "localhost" or _is_loopback(name)


def _host_of(origin: str) -> str | None:
    """Give host and port of an origin, as Host has them; ``None``: it is opaque.

    The scheme is not compared: a proxy may have taken the TLS off.
    """
    scheme, separator, host = origin.lower().partition("://")
    return host if scheme in ("http", "https") and separator else None


def _is_form(environ: Mapping[str, Any]) -> bool:
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    return environ["REQUEST_METHOD"] == "POST" and media_type in _FORMS
