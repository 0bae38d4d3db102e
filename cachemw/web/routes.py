"""Which requests ask for an image, and under which id it is kept.

In the ``any`` preset the id is the target URI, so nothing outside it can
change the bytes that are stored under it. A route with an ``image_id`` group
names the image itself; a query string, which the route does not see, is then
part of the id.

Imports: names.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from ..names import MAX_ID_LENGTH

#: What a path segment may hold without quoting (RFC 3986, section 3.3), and the slash.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

_QUOTED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")

#: RFC 3986, sections 3.2.2 and 3.2.3.
_HOST = re.compile(r"(?:[a-z0-9._~!$&'()*+,;=%-]*|\[[a-z0-9._~!$&'()*+,;=:%-]+\])(?::[0-9]*)?")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Routes:
    """Finds the image id in a request. Pure but for the patterns it was made with.

    :param patterns: regular expressions that must match the whole PATH_INFO;
        none: every path.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def image_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request is about.

        :return: ``None`` if it is about none, or one whose id would be too long to keep.
        """
        image_id = self._match(environ) if self._patterns else target_uri(environ)
        return image_id if image_id is not None and len(image_id) <= MAX_ID_LENGTH else None

    def _match(self, environ: Mapping[str, Any]) -> str | None:
        path = environ.get("PATH_INFO", "")
        for pattern in self._patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if "image_id" not in pattern.groupindex:
                return target_uri(environ)
            image_id = match["image_id"]
            # A question mark there (sent as %3F) would be taken for the query's.
            if not image_id or "?" in image_id:
                return None
            query = environ.get("QUERY_STRING")
            text = image_id.encode("latin-1").decode("utf-8", "surrogateescape")
            return f"{text}?{query}" if query else text
        return None


def target_uri(environ: Mapping[str, Any]) -> str | None:
    """Give the target URI of a request, with the path as the client quoted it.

    :return: ``None`` if the Host field is not a host, or the path does not
        begin with a slash: one could then be written so that the whole reads as
        the target of another request, and bring its own bytes there.

    Source: RFC 9110, sections 7.1 and 7.2; RFC 3986, section 6.2.3 (default port).
    """
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":"))
    query = environ.get("QUERY_STRING")
    path = quoted_path(environ)
    if _HOST.fullmatch(host) is None or path[:1] not in ("", "/"):
        return None
    return f"{scheme}://{host}{path}?{query}" if query else f"{scheme}://{host}{path}"


def quoted_path(environ: Mapping[str, Any]) -> str:
    """Give script name and path, quoted.

    The server's raw target is used where it says the same as the two, since
    ``a%2Fb`` and ``a/b`` are two paths that WSGI unquotes to one.
    """
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        raw_path, _, _ = raw.partition("?")
        if raw_path.isascii() and unquote(raw_path, "latin-1") == path:
            return _normal(raw_path)
    return quote(path, safe=_PATH_SAFE, encoding="latin-1")


def _normal(quoted: str) -> str:
    """Write a quoted path the one way that others are compared in.

    Source: RFC 3986, sections 6.2.2.1 and 6.2.2.2.
    """
    return quote(_QUOTED.sub(_normal_octet, quoted), safe=f"{_PATH_SAFE}%")


def _normal_octet(octet: re.Match[str]) -> str:
    character = chr(int(octet[1], 16))
    return character if character in _UNRESERVED else octet[0].upper()
