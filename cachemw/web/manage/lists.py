"""Lists of images: searched, sorted, and page by page.

A list without a limit is sent as it is read, some at a time, so that a long
one needs no memory and begins at once.

Imports: core.cache, drivers.listing, errors, web.manage.answers, web.manage.asked.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from ...core.cache import ImageCache
from ...drivers.listing import SORTS, Query
from ...errors import ImageNotFound
from .answers import JSON, Answer, Problem, as_json
from .asked import Asked, number_of, quoted

#: Images read at a time where there is no limit.
_BATCH = 1000

_PARAMETERS = ("search", "sort", "limit", "marker", "marker_value")


def answer(cache: ImageCache, asked: Asked, more: dict[str, Any], *, with_next: bool) -> Answer:
    """List cached images.

    :param more: other keys of the answer.
    :param with_next: whether a page has keys that say how many there are and where the next
        one is; a link in the field Link says that too.
    :raises Problem: the query is wrong.
    """
    query = read_query(asked)
    if query.limit is None:
        return Answer(200, _whole(cache, query, more), {"Content-Type": JSON})
    # One more, to see whether there is another page.
    found = _find(cache, dataclasses.replace(query, limit=query.limit + 1))
    page = query.page(found)
    following = _next(asked, query, page[-1]) if len(found) > len(page) else None
    headers = {} if following is None else {"Link": f'<{following}>; rel="next"'}
    value = {"cached_images": page, **more}
    if with_next:
        value |= {"total": cache.count_images(query.search), "next": following}
    return as_json(value, headers=headers)


def read_query(asked: Asked) -> Query:
    """Read what is asked of a list.

    :raises Problem: it is wrong.
    """
    given = asked.query(*_PARAMETERS)
    sort, _, direction = given.get("sort", "image_id").partition(":")
    if sort not in SORTS or direction not in ("", "asc", "desc"):
        orders = ", ".join(SORTS)
        raise Problem(
            400,
            f"the parameter 'sort' has the value {given['sort']!r}: expected one of {orders},"
            " with :asc or :desc",
        )
    return Query(
        search=given.get("search", ""),
        sort=sort,
        descending=direction == "desc",
        limit=number_of(given, "limit"),
        marker=given.get("marker"),
        marker_value=_value(given.get("marker_value")),
    )


def _value(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        # A size or a count may be more than a float can tell apart.
        value: float = int(text) if text.isascii() and text.isdigit() else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not -(2**63) <= value < 2**63:
        raise Problem(400, f"the parameter 'marker_value' has the value {text!r}: not a number")
    return value


def _find(cache: ImageCache, query: Query) -> list[dict[str, Any]]:
    try:
        return cache.find_images(**dataclasses.asdict(query))
    except ImageNotFound as exc:
        raise Problem(400, f"the parameter 'marker': {exc}") from None


def _next(asked: Asked, query: Query, last: dict[str, Any]) -> str:
    """Give the path of the next page."""
    wanted: dict[str, Any] = {"limit": query.limit}
    if query.search:
        wanted["search"] = query.search
    if query.sort != "image_id" or query.descending:
        wanted["sort"] = f"{query.sort}:{'desc' if query.descending else 'asc'}"
    wanted["marker"] = last["image_id"]
    if query.sort != "image_id":
        wanted["marker_value"] = last[query.sort]
    path = quoted(asked.path.encode("utf-8", "surrogateescape").decode("latin-1"))
    return f"{asked.base}{path}?{urlencode(wanted, errors='surrogateescape')}"


# Without a limit


def _whole(cache: ImageCache, query: Query, more: dict[str, Any]) -> Iterable[bytes]:
    """Give an answer with all images; the first ones are read at once, so that trouble with
    them can still be told."""
    batches = _batches(cache, query)
    first = next(batches, [])
    return _chunks(first, batches, more)


def _batches(cache: ImageCache, query: Query) -> Iterator[list[dict[str, Any]]]:
    if query.sort != "image_id":
        # It may change as it is read: an image that is read meanwhile would be there twice.
        yield _find(cache, query)
        return
    while batch := _find(cache, dataclasses.replace(query, limit=_BATCH)):
        yield batch
        query = dataclasses.replace(query, marker=batch[-1]["image_id"])


def _chunks(
    first: list[dict[str, Any]], others: Iterator[list[dict[str, Any]]], more: dict[str, Any]
) -> Iterator[bytes]:
    yield b'{"cached_images": [' + _items(first)
    for batch in others:
        yield b", " + _items(batch)
    rest = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in more.items())
    yield f"]{rest}}}\n".encode("ascii")


def _items(images: list[dict[str, Any]]) -> bytes:
    return json.dumps(images)[1:-1].encode("ascii")
