"""Which requests ask for an image, and under which id it is kept.

In the ``any`` preset the id is the target URI, so nothing outside it can
change the bytes that are stored under it. A route with an ``image_id`` group
names the image itself; a query string, which the route does not see, is then
part of the id, unless the preset knows that it changes nothing.

Imports: names, web.fields, web.invalidation.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..names import MAX_ID_LENGTH
from . import fields, invalidation

#: What a path segment may hold without quoting (RFC 3986, section 3.3), and the slash.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

_PLAIN = re.compile(r"[/!$&'()*+,;=:@\-._~0-9A-Za-z]*")
_QUOTED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")

#: RFC 3986, sections 3.2.2 and 3.2.3.
_HOST = re.compile(r"(?:[a-z0-9._~!$&'()*+,;=%-]*|\[[a-z0-9._~!$&'()*+,;=:%-]+\])(?::[0-9]*)?")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Routes:
    """Finds the image id in a request. Pure but for the patterns it was made with.

    :param patterns: regular expressions that must match the whole PATH_INFO;
        none: every path.
    :param resources: such expressions for paths that name an image and do not fetch it;
        a DELETE there deletes the image.
    :param query_in_id: whether a query string belongs to the id that a route gives.
    :param query_apart: names of parameters in it that do not.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        resources: Sequence[str] = (),
        query_in_id: bool = True,
        query_apart: Collection[str] = (),
    ) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._resources = [re.compile(pattern) for pattern in resources]
        self._query_in_id = query_in_id
        self._query_apart = frozenset(query_apart)

    def image_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request is about.

        :return: ``None`` if it is about none, or one whose id would be too long to keep.
        """
        images = self._patterns
        image_id = self._match(environ, images) if images else target_uri(environ)
        return image_id if image_id is not None and len(image_id) <= MAX_ID_LENGTH else None

    def changes(self, environ: Mapping[str, Any]) -> Callable[[fields.Headers], list[str]]:
        """Look at an unsafe request, before the app may change its environ.

        :return: a function that takes the fields of a successful answer, and gives the ids of
            the images that may have been changed.

        Source: RFC 9111, section 4.4.
        """
        target = target_uri(environ)
        script = environ.get("SCRIPT_NAME", "")
        own = self.image_id(environ)
        if own is None and environ["REQUEST_METHOD"] == "DELETE":
            own = self._match(environ, self._resources)

        def changed(headers: fields.Headers) -> list[str]:
            uris = [] if target is None else invalidation.invalidated(target, headers)
            others = [self.image_id(_environ_of(uri, script)) for uri in uris]
            return [image_id for image_id in dict.fromkeys((own, *others)) if image_id]

        return changed

    def _match(self, environ: Mapping[str, Any], patterns: Sequence[re.Pattern[str]]) -> str | None:
        path = environ.get("PATH_INFO", "")
        for pattern in patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if "image_id" not in pattern.groupindex:
                return target_uri(environ)
            image_id = match["image_id"]
            # A question mark there (sent as %3F) would be taken for the query's.
            if not image_id or "?" in image_id:
                return None
            query = self._query(environ) if self._query_in_id else ""
            text = image_id.encode("latin-1").decode("utf-8", "surrogateescape")
            return f"{text}?{query}" if query else text
        return None

    def _query(self, environ: Mapping[str, Any]) -> str:
        """Give the part of the query string that belongs to the id."""
        query: str = environ.get("QUERY_STRING", "")
        if not query or not self._query_apart:
            return query
        parts = query.split("&")
        return "&".join(p for p in parts if p.partition("=")[0] not in self._query_apart)


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
            return raw_path if _PLAIN.fullmatch(raw_path) else _normal(raw_path)
    return quote(path, safe=_PATH_SAFE, encoding="latin-1")


def _environ_of(uri: str, script: str) -> dict[str, Any]:
    """Make the part of an environ that says which URI is asked for, on the same server.

    :param script: where the app is mounted.
    """
    parts = urlsplit(uri)
    path = unquote(parts.path, "latin-1")
    if not path.startswith(f"{script}/"):
        script = ""
    return {
        "wsgi.url_scheme": parts.scheme,
        "HTTP_HOST": parts.netloc,
        "SCRIPT_NAME": script,
        "PATH_INFO": path.removeprefix(script),
        "QUERY_STRING": parts.query,
        "RAW_URI": parts.path,
    }


def _normal(quoted: str) -> str:
    """Write a quoted path the one way that others are compared in.

    Source: RFC 3986, sections 6.2.2.1 and 6.2.2.2.
    """
    return quote(_QUOTED.sub(_normal_octet, quoted), safe=f"{_PATH_SAFE}%")


def _normal_octet(octet: re.Match[str]) -> str:
    character = chr(int(octet[1], 16))
    return character if character in _UNRESERVED else octet[0].upper()
