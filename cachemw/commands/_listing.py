"""Names of images, from a file or from the listing of an app.

A listing is text with one name a line, or JSON: an array of strings or of
objects with ``id`` or ``name``, or an object that has such an array under
``images``, and under ``next`` where it goes on.

Imports: commands._http, core.fetching, core.targets, errors.
"""

from __future__ import annotations

import fnmatch
import http.client
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..core.fetching import Fields
from ..core.targets import USER_AGENT
from ..errors import CacheMwError, ConfigError
from ._http import connect

#: A longer answer is no listing (bytes).
_LONGEST = 64 * 2**20

#: Pages that are read of a listing.
_MOST_PAGES = 10_000

#: Seconds that a server may be silent.
_PATIENCE = 60.0


class ListingFailed(CacheMwError):
    """The app did not give its listing."""


def read_lines(path: str) -> list[str]:
    """Read the lines of a file (``-``: standard input) that are not empty.

    :raises ConfigError: it cannot be read.
    """
    try:
        if path == "-":
            return [line.rstrip("\n") for line in sys.stdin if line.strip()]
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: {exc}") from None


def read_listing(place: str, fields: Fields) -> list[tuple[str, ...]]:
    """Read a listing.

    :param place: a URL or a file.
    :param fields: request fields for the app.
    :return: for each image its names, of which the first is its id.
    :raises ConfigError: the file cannot be read.
    :raises ListingFailed: the app did not give it.
    """
    if not place.startswith(("http://", "https://")):
        return [(line,) for line in read_lines(place)]
    found: list[tuple[str, ...]] = []
    url: str | None = place
    for _ in range(_MOST_PAGES):
        if url is None:
            break
        names, after = parse(_get(url, fields))
        found += names
        following = urljoin(url, after) if after else None
        # Credentials go nowhere else.
        if following is not None and urlsplit(following)[:2] != urlsplit(place)[:2]:
            raise ListingFailed(f"{place}: goes on at another server")
        url = following
    return found


def parse(body: bytes) -> tuple[list[tuple[str, ...]], str | None]:
    """Read one page of a listing. :return: names of each image, and where it goes on."""
    text = body.decode("utf-8", "surrogateescape")
    if text.lstrip()[:1] not in ("[", "{"):
        return [(line,) for line in text.splitlines() if line.strip()], None
    try:
        page = json.loads(text)
    except ValueError as exc:
        raise ListingFailed(f"the listing is no JSON: {exc}") from None
    after = page.get("next") if isinstance(page, dict) else None
    images = page.get("images") if isinstance(page, dict) else page
    if not isinstance(images, list):
        raise ListingFailed("the listing has no array of images")
    return [names for names in map(_names, images) if names], after if after else None


def _names(image: Any) -> tuple[str, ...]:
    if isinstance(image, str):
        return (image,)
    if not isinstance(image, dict):
        return ()
    names = [image.get("id"), image.get("name")]
    return tuple(name for name in names if isinstance(name, str) and name)


def matching(listing: list[tuple[str, ...]], patterns: list[str]) -> Iterator[str]:
    """Give the ids of the images that have a name which a pattern matches."""
    for names in listing:
        if any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns):
            yield names[0]


def _get(url: str, fields: Fields) -> bytes:
    parts = urlsplit(url)
    try:
        connection = connect(parts, _PATIENCE)
        try:
            path = parts.path or "/"
            connection.putrequest("GET", f"{path}?{parts.query}" if parts.query else path)
            connection.putheader("User-Agent", USER_AGENT)
            for name, value in fields:
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders()
            response = connection.getresponse()
            body = response.read(_LONGEST + 1)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise ListingFailed(f"{url}: {exc or type(exc).__name__}") from None
    if response.status == 204:
        return b""
    if response.status != 200 or len(body) > _LONGEST:
        raise ListingFailed(f"{url}: answered {response.status} {response.reason}")
    return body
