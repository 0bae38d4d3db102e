"""The dashboard's files: one page and what it loads, for the management app to serve.

The page asks for everything by paths relative to its own, so it may be mounted
anywhere. Nothing in it is secret and nothing comes from another host: the files may be
served to whoever may reach the management app, before a token is known, under
``CONTENT_SECURITY_POLICY``.

Imports: nothing of ours.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Callable

#: All that the page needs. No style attribute, inline script or foreign host is used.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_NAMES = (
    "actions.js",
    "activity.js",
    "api.js",
    "app.js",
    "charts.js",
    "dialogs.js",
    "dom.js",
    "format.js",
    "icon.svg",
    "images.js",
    "index.html",
    "overview.js",
    "series.js",
    "style.css",
    "theme.js",
)


def _read(name: str) -> bytes:
    return importlib.resources.files(__name__).joinpath(name).read_bytes()


def _media_type(name: str) -> str:
    return _MEDIA_TYPES[name[name.rindex(".") :]]


#: Name below the mount point: media type, and what gives the bytes. ``index.html`` is
#: the page itself and is meant for the empty name too.
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    name: (_media_type(name), functools.partial(_read, name)) for name in _NAMES
}
