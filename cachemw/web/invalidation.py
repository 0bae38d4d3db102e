"""Invalidation: what else a change of one resource makes out of date.

RFC 9111, section 4.4, is the authority.

Pure: any thread may call anything.

Imports: web.fields.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

from cachemw.web import fields

_PORTS = {"http": 80, "https": 443}


def invalidated(target_uri: str, headers: fields.Headers) -> list[str]:
    """The URIs, beside the target itself, that a successful change may have changed.

    Those of another origin are left out, so that nobody can empty the cache of
    what is not theirs; and so is whatever is no URI.

    :param target_uri: of the request, absolute.
    :param headers: of the response to it.
    :return: absolute, without fragments, each once.

    Source: RFC 9111, section 4.4; RFC 9110, sections 4.3.1, 8.7 and 10.2.2.
    """
    found: dict[str, None] = {}
    for name in ("Location", "Content-Location"):
        for reference in fields.get_all(headers, name):
            uri = _resolved(target_uri, reference.strip(fields.OWS))
            if uri is not None and uri != urldefrag(target_uri).url:
                found[uri] = None
    return list(found)


def _resolved(target_uri: str, reference: str) -> str | None:
    """The absolute URI; ``None`` if it is malformed or of another origin."""
    try:
        uri = urldefrag(urljoin(target_uri, reference)).url
        same = _origin(urlsplit(uri)) == _origin(urlsplit(target_uri))
    except ValueError:
        return None
    return uri if same else None


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 9110, section 4.3.1).

    :raises ValueError: the port is not one.
    """
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    return parts.scheme, parts.hostname or "", port
