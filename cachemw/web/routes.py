"""Which requests ask for an image, and under which id it is kept.

In the ``any`` preset the id is the target URI, so nothing outside it can
change the bytes that are stored under it. A route with an ``image_id`` group
names the image itself; a query string, which the route does not see, is then
part of the id, unless the preset knows that it changes nothing.

What could be read as another target is no image's, and goes to the app: a
Host field that holds more than a host, a path with control characters.

Imports: names, web.fields, web.invalidation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..names import MAX_ID_LENGTH
from . import fields, invalidation

#: What a path segment may hold without quoting (RFC 3986, section 3.3), and the slash.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

#: A host and a port, and nothing that could pass for a part of the path (RFC 3986, section 3.2).
_HOST = re.compile(r"(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[a-z0-9._~!$&'()*+,;=:%-]+\])(?::[0-9]*)?")

#: What precedes the path in an absolute-form target (RFC 9112, section 3.2.2).
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")

#: They would break the lines of logs and listings.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Routes:
    """Finds the image id in a request. Pure but for the patterns it was made with.

    :param patterns: regular expressions that must match the whole PATH_INFO;
        none: every path.
    :param resources: such expressions for paths that name an image and do not fetch it.
    :param query_in_id: whether a query string belongs to the id that a route gives.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        resources: Sequence[str] = (),
        query_in_id: bool = True,
    ) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._resources = [re.compile(pattern) for pattern in resources]
        self._query_in_id = query_in_id

    def image_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request is about.

        :return: ``None`` if it is about none, or one whose id would be too long to keep.
        """
        try:
            if self._patterns:
                image_id = self._match(environ, self._patterns)
            else:
                image_id = target_uri(environ)
        except UnicodeEncodeError:
            return None  # not the bytes as Latin-1 that PEP 3333 wants
        return image_id if image_id and _can_be_kept(image_id) else None

    def changed_ids(self, environ: Mapping[str, Any], headers: fields.Headers) -> list[str]:
        """Give the ids of the images that a successful unsafe request may have changed.

        :param headers: of the answer.

        Source: RFC 9111, section 4.4.
        """
        ids = [self._named_id(environ)]
        target = target_uri(environ)
        if target is not None:
            for uri in invalidation.invalidated(target, headers):
                ids.append(self._named_id(_environ_of(uri, environ)))
        return [image_id for image_id in dict.fromkeys(ids) if image_id]

    def _named_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request fetches or otherwise names."""
        image_id = self.image_id(environ) or self._match(environ, self._resources)
        return image_id if image_id and _can_be_kept(image_id) else None

    def _match(self, environ: Mapping[str, Any], patterns: Sequence[re.Pattern[str]]) -> str | None:
        path = environ.get("PATH_INFO", "")
        for pattern in patterns:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if "image_id" not in pattern.groupindex:
                return target_uri(environ)
            image_id = match["image_id"]
            if not image_id:
                return None
            text = image_id.encode("latin-1").decode("utf-8", "surrogateescape")
            if not self._query_in_id:
                return text
            # Else the path ``a%3Fb`` would be the path ``a`` with the query ``b``.
            text = text.replace("%", "%25").replace("?", "%3F")
            query = environ.get("QUERY_STRING")
            return f"{text}?{query}" if query else text
        return None


def _can_be_kept(image_id: str) -> bool:
    return len(image_id) <= MAX_ID_LENGTH and _CONTROL.search(image_id) is None


def target_uri(environ: Mapping[str, Any]) -> str | None:
    """Give the target URI of a request, with the path as the client quoted it.

    :return: ``None`` if Host is no host: with ``Host: a/b`` the path ``/c`` of
        one host would pass for the path ``/b/c`` of another.
    :raises UnicodeEncodeError: the path is not as PEP 3333 wants it.

    Source: RFC 9110, section 7.1; RFC 3986, section 6.2.3 (default port).
    """
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    host = host.lower()
    if _HOST.fullmatch(host) is None:
        return None
    host = host.removesuffix(_DEFAULT_PORTS.get(scheme, ":"))
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
        origin = _ORIGIN.match(raw_path)
        if origin is not None:
            raw_path = raw_path[origin.end() :]
        if raw_path.isascii() and unquote(raw_path, "latin-1") == path:
            return str(raw_path)
    return quote(path, safe=_PATH_SAFE, encoding="latin-1")


def _environ_of(uri: str, environ: Mapping[str, Any]) -> dict[str, Any]:
    """Make the part of an environ that says which URI is asked for, on the same server."""
    parts = urlsplit(uri)
    script = environ.get("SCRIPT_NAME", "")
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
