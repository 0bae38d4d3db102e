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

import functools
import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..names import MAX_ID_LENGTH
from . import fields, invalidation

#: What a path segment may hold without quoting (RFC 3986, section 3.3), and the slash.
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

#: A quoted path as :func:`_normal` gives it, where nothing in it is quoted.
_PLAIN = re.compile(r"/[/!$&'()*+,;=:@\-._~0-9A-Za-z]*")
_QUOTED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")

#: A host and a port, and nothing that could pass for a part of the path (RFC 3986, section 3.2).
_HOST = re.compile(r"(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[a-z0-9._~!$&'()*+,;=:%-]+\])(?::[0-9]*)?")

#: What precedes the path in an absolute-form target (RFC 9112, section 3.2.2).
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")

#: They would break the lines of logs and listings.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Where servers put the target as it was sent.
_RAW_TARGETS = ("RAW_URI", "REQUEST_URI")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

#: All that an image id depends on: it is worked out from nothing else of the environ.
_DECIDING = (
    *_RAW_TARGETS,
    "wsgi.url_scheme",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
)

#: Requests of which the id is remembered; then all are forgotten.
_MOST_KNOWN = 1024

#: Nothing is remembered of a request where these are longer, written out (characters).
_MOST_TEXT = 2 * MAX_ID_LENGTH


class Routes:
    """Finds the image id in a request. Threads may share it.

    Pure but for the patterns it was made with, and for what it remembers of its answers.

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
        # Each step on it is one, and what another thread forgets is worked out again.
        self._known: dict[tuple[str | None, ...], str | None] = {}

    def image_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request is about.

        :return: ``None`` if it is about none, or one whose id would be too long to keep.
        """
        deciding = tuple(map(environ.get, _DECIDING))
        try:
            return self._known[deciding]
        except KeyError:
            pass
        items = zip(_DECIDING, deciding, strict=True)
        image_id = self._find({key: text for key, text in items if text is not None})
        if len(repr(deciding)) <= _MOST_TEXT:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[deciding] = image_id
        return image_id

    def _find(self, environ: Mapping[str, Any]) -> str | None:
        images = self._patterns
        try:
            image_id = self._match(environ, images) if images else target_uri(environ)
        except UnicodeEncodeError:
            return None  # not the bytes as Latin-1 that PEP 3333 wants
        return image_id if image_id and _can_be_kept(image_id) else None

    def url(self, environ: Mapping[str, Any]) -> str | None:
        """Give the URL that fetches the image of a request for everybody: with the part of the
        query that belongs to its id, since the rest may be a signature.

        :return: ``None``: there is none.
        """
        patterns = self._patterns
        named = any("image_id" in pattern.groupindex for pattern in patterns)
        query = environ.get("QUERY_STRING", "")
        if named:
            query = self._query(environ) if self._query_in_id else ""
        try:
            return target_uri({**environ, "QUERY_STRING": query})
        except UnicodeEncodeError:
            return None

    def changes(self, environ: Mapping[str, Any]) -> Callable[[fields.Headers], list[str]]:
        """Look at an unsafe request, before the app may change its environ.

        :return: a function that takes the fields of a successful answer, and gives the ids of
            the images that may have been changed.

        Source: RFC 9111, section 4.4.
        """
        try:
            target = target_uri(environ)
        except UnicodeEncodeError:
            target = None
        script = environ.get("SCRIPT_NAME", "")
        # Apps mostly see the path unquoted, so that however it was quoted is the same to them.
        unquoted = {key: value for key, value in environ.items() if key not in _RAW_TARGETS}
        own = (self._named_id(environ), self._named_id(unquoted))

        def changed(headers: fields.Headers) -> list[str]:
            uris = [] if target is None else invalidation.invalidated(target, headers)
            others = [self.image_id(_environ_of(uri, script)) for uri in uris]
            return [image_id for image_id in dict.fromkeys((*own, *others)) if image_id]

        return changed

    def _named_id(self, environ: Mapping[str, Any]) -> str | None:
        """Give the id of the image that a request fetches, or deletes under another path."""
        image_id = self.image_id(environ)
        if image_id is None and environ["REQUEST_METHOD"] == "DELETE":
            image_id = self._match(environ, self._resources)
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
            query = self._query(environ)
            return f"{text}?{query}" if query else text
        return None

    def _query(self, environ: Mapping[str, Any]) -> str:
        """Give the part of the query string that belongs to the id."""
        query: str = environ.get("QUERY_STRING", "")
        if not query or not self._query_apart:
            return query
        parts = query.split("&")
        return "&".join(p for p in parts if p.partition("=")[0] not in self._query_apart)


def _can_be_kept(image_id: str) -> bool:
    return len(image_id) <= MAX_ID_LENGTH and _CONTROL.search(image_id) is None


def target_uri(environ: Mapping[str, Any]) -> str | None:
    """Give the target URI of a request, with the path as the client quoted it.

    :return: ``None`` if Host is no host, or the path does not begin with a slash: with
        ``Host: a/b`` the path ``/c`` of one host would pass for the path ``/b/c`` of another.
    :raises UnicodeEncodeError: the path is not as PEP 3333 wants it.

    Source: RFC 9110, sections 7.1 and 7.2; RFC 3986, section 6.2.3 (default port).
    """
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    origin = _origin(scheme, host)
    path = quoted_path(environ)
    if origin is None or path[:1] not in ("", "/"):
        return None
    query = environ.get("QUERY_STRING")
    return f"{origin}{path}?{query}" if query else f"{origin}{path}"


@functools.lru_cache(maxsize=1024)
def _origin(scheme: str, host: str) -> str | None:
    """Give scheme and host as they are compared; ``None`` for what is no host."""
    host = host.lower()
    if _HOST.fullmatch(host) is None:
        return None
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"


def quoted_path(environ: Mapping[str, Any]) -> str:
    """Give script name and path, quoted.

    The server's raw target is used where it says the same as the two, since
    ``a%2Fb`` and ``a/b`` are two paths that WSGI unquotes to one.
    """
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    raw = next(filter(None, map(environ.get, _RAW_TARGETS)), None)
    if raw:
        raw_path, _, _ = raw.partition("?")
        if not raw_path.startswith("/"):
            raw_path = _ORIGIN.sub("", raw_path, count=1)
        if raw_path == path and _PLAIN.fullmatch(path):
            return path
        if raw_path.isascii() and unquote(raw_path, "latin-1") == path:
            return _normal(raw_path)
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
