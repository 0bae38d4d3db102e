"""Which paths there are, below the mount point, and what each is for.

Pure. In a path that ends in an id, all that follows the prefix is the id,
slashes too; nothing after the prefix is no id, so that a slash too many
cannot turn one image into all of them.

Imports: nothing of ours.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ID = "/(?P<argument>.+)"
_CACHED = "/v[12]/cached_images"
_QUEUED = "/v[12]/queued_images"
_CACHE = "/v2/cache"

#: Name, method and pattern of the whole path.
_TABLE = (
    ("page", "GET", "/"),
    ("file", "GET", r"/(?P<argument>[a-z0-9-]+\.(?:css|html|js|svg))"),
    ("health", "GET", "/healthz"),
    ("metrics", "GET", "/metrics"),
    ("stats", "GET", "/stats"),
    ("history", "GET", "/stats/history"),
    ("versions", "GET", "/versions"),
    ("list_cached", "GET", _CACHED),
    ("delete_all_cached", "DELETE", _CACHED),
    ("show_cached", "GET", f"{_CACHED}{_ID}"),
    ("delete_cached", "DELETE", f"{_CACHED}{_ID}"),
    ("list_queued", "GET", _QUEUED),
    ("delete_all_queued", "DELETE", _QUEUED),
    ("show_queued", "GET", f"{_QUEUED}{_ID}"),
    ("queue", "PUT", f"{_QUEUED}{_ID}"),
    ("delete_queued", "DELETE", f"{_QUEUED}{_ID}"),
    ("list_all", "GET", _CACHE),
    ("clear", "DELETE", _CACHE),
    ("start_job", "POST", f"{_CACHE}/(?P<argument>prune|clean|check)"),
    ("list_jobs", "GET", f"{_CACHE}/jobs"),
    ("show_job", "GET", f"{_CACHE}/jobs{_ID}"),
    ("list_nodes", "GET", f"{_CACHE}/nodes{_ID}"),
    ("queue", "PUT", f"{_CACHE}{_ID}"),
    ("delete_anywhere", "DELETE", f"{_CACHE}{_ID}"),
)

#: Whose names the handlers have.
NAMES = frozenset(name for name, _, _ in _TABLE)

_ROUTES = tuple((name, method, re.compile(text, re.DOTALL)) for name, method, text in _TABLE)

#: The path below which a filter serves everything.
FOLDER = "/.cachemw"

#: What a filter serves of the app's own paths.
_IN_FRONT = re.compile(rf"(?:{_CACHED}|{_QUEUED}|{_CACHE})(?:/.*)?", re.DOTALL)

#: How such paths begin, and those of the folder.
BEGINNINGS = ("/v1/", "/v2/", FOLDER)


class Route(NamedTuple):
    """What a path is for.

    :param name: one of :data:`NAMES`; empty: the path is there, but not for this method.
    :param argument: the id in it, or the like.
    :param methods: for which the path is there.
    """

    name: str
    argument: str = ""
    methods: tuple[str, ...] = ()


def find(method: str, path: str) -> Route | None:
    """Find out what a request is for; ``None``: there is no such path.

    :param path: below the mount point, unquoted; it begins with a slash.
    """
    asked = "GET" if method == "HEAD" else method
    methods: list[str] = []
    for name, allowed, pattern in _ROUTES:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if allowed == asked:
            return Route(name, match.groupdict().get("argument") or "")
        methods += ["GET", "HEAD"] if allowed == "GET" else [allowed]
    return Route("", methods=tuple(dict.fromkeys(methods))) if methods else None


def below_folder(path: str) -> str | None:
    """Give a filter's path below its own folder; ``None``: it is elsewhere.

    :return: empty: the folder itself, without the slash.
    """
    if path == FOLDER or path.startswith(f"{FOLDER}/"):
        return path.removeprefix(FOLDER)
    return None


def is_in_front(path: str) -> bool:
    """Say whether a filter answers a path that is not in its folder."""
    return _IN_FRONT.fullmatch(path) is not None
