"""Which requests ask for an image, and under which id it is kept.

In the ``any`` preset the id is the target URI, so nothing outside it can
change the bytes that are stored under it. A route with an ``image_id`` group
names the image itself; a query string, which the route does not see, is then
part of the id.

Imports: names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from ..names import MAX_ID_LENGTH

#: What a path segment may hold without quoting (RFC 3986, section 3.3), and the slash.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

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
        if not self._patterns:
            image_id = target_uri(environ)
        else:
            found = self._match(environ)
            if not found:
                return None
            image_id = found
        return image_id if len(image_id) <= MAX_ID_LENGTH else None

    def _match(self, environ: Mapping[str, Any]) -> str | None:
        path = environ.get("PATH_INFO", "")
        for pattern in self._patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if "image_id" not in pattern.groupindex:
                return target_uri(environ)
            image_id = match["image_id"]
            if not image_id:
                return None
            query = environ.get("QUERY_STRING")
            text = image_id.encode("latin-1").decode("utf-8", "surrogateescape")
            return f"{text}?{query}" if query else text
        return None


def target_uri(environ: Mapping[str, Any]) -> str:
    """Give the target URI of a request, with the path as the client quoted it.

    Source: RFC 9110, section 7.1; RFC 3986, section 6.2.3 (default port).
    """
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":"))
    query = environ.get("QUERY_STRING")
    path = quoted_path(environ)
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
            return str(raw_path)
    return quote(path, safe=_PATH_SAFE, encoding="latin-1")
