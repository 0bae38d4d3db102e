"""Which request fetches an image that waits in the queue.

Pure. It undoes what ``web.routes`` does: whoever makes a request of a target
can see there whether it is for the same image.

Imports: core.config.
"""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from .config import PLACE, Settings

#: What a path may hold without quoting (RFC 3986, section 3.3).
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

_URL = re.compile(r"(https?)://([^/?#\s]+)(/[!-~]*?)?(?:\?(.*))?", re.DOTALL)

#: By which apps and logs can tell these requests from clients'.
USER_AGENT = "cachemw-prefetch"

#: In the environ of a request that the cache makes for itself.
OWN_REQUEST = "cachemw.own_request"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What to ask for.

    :param scheme: empty, as the host: whichever server has the app.
    :param path: quoted.
    :param query: without the question mark.
    """

    scheme: str
    host: str
    path: str
    query: str

    @property
    def unquoted(self) -> str:
        """The path as WSGI has it: its bytes as Latin-1."""
        return unquote(self.path, "latin-1")

    @property
    def relative(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


def target_of(image_id: str, url: str | None, settings: Settings) -> Target | None:
    """Find out which request fetches an image.

    :param url: how a request fetched it, if one named it.
    :return: ``None``: neither that nor the id says so.
    """
    if url is not None:
        return parse_url(url)
    if settings.image_path and _has_ids(settings):
        return _on_path(image_id, settings.image_path, settings.service.query_in_id)
    return parse_url(image_id) if settings.preset == "any" else None


def _has_ids(settings: Settings) -> bool:
    """Say whether paths give ids that are not whole URIs."""
    return any("image_id" in re.compile(route).groupindex for route in settings.routes)


def parse_url(url: str) -> Target | None:
    """Read a target URI as the filter writes it; ``None``: it is none."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    scheme, host, path, query = match.groups()
    return Target(scheme, host, path or "", query or "")


def _on_path(image_id: str, image_path: str, query_in_id: bool) -> Target | None:
    text, query = image_id, ""
    if query_in_id:
        text, _, query = image_id.partition("?")
        text = text.replace("%3F", "?").replace("%25", "%")
    try:
        quoted = quote(text.encode("utf-8", "surrogateescape"), safe=_PATH_SAFE)
    except UnicodeEncodeError:
        return None
    return Target("", "", image_path.replace(PLACE, quoted), query)


#: What a server says of itself where there is none.
NO_SERVER = {
    "wsgi.url_scheme": "http",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SCRIPT_NAME": "",
}


def environ_of(target: Target, server: Mapping[str, Any] = NO_SERVER) -> dict[str, Any]:
    """Make a request for a target, as a server would.

    There is no ``REMOTE_ADDR``: nobody should be trusted for asking from nearby.

    :param server: the keys of :data:`NO_SERVER`, of the server that has the app.
    """
    scheme = target.scheme or server["wsgi.url_scheme"]
    script, path = server["SCRIPT_NAME"], target.unquoted
    own_host = f"{server['SERVER_NAME']}:{server['SERVER_PORT']}"
    if target.host and not path.startswith(f"{script}/"):
        script = ""
    quoted = target.path
    if target.host:
        path = path.removeprefix(script)
    else:
        quoted = f"{quote(script, safe=_PATH_SAFE, encoding='latin-1')}{quoted}"
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": script,
        "PATH_INFO": path,
        "QUERY_STRING": target.query,
        "RAW_URI": f"{quoted}?{target.query}" if target.query else quoted,
        "SERVER_NAME": server["SERVER_NAME"],
        "SERVER_PORT": server["SERVER_PORT"],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": target.host or own_host,
        "HTTP_USER_AGENT": USER_AGENT,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        OWN_REQUEST: True,
    }
