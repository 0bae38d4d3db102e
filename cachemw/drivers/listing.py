"""Which entries a listing shows, in which order, and where its next page begins.

Pure. A driver with an index asks it the same questions.

Imports: errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..errors import ImageNotFound

T = TypeVar("T")

#: What entries can be sorted by. Those for which it is the same come by their ids.
SORTS = ("image_id", "size", "hits", "last_accessed", "last_modified")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked of a listing.

    The parameters are those of :meth:`cachemw.drivers.base.Driver.find_images`.

    :raises ValueError: ``sort`` is not one of :data:`SORTS`.
    """

    search: str = ""
    sort: str = "image_id"
    descending: bool = False
    limit: int | None = None
    marker: str | None = None
    marker_value: float | None = None

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise ValueError(f"sort {self.sort!r}: expected one of {', '.join(SORTS)}")

    def place(self, image: dict[str, Any]) -> tuple[Any, str]:
        """Give what decides an entry's place."""
        return image[self.sort], image["image_id"]

    def page(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Cut what was found to the limit."""
        return cut(found, self.limit, self.place)


def select(images: Iterable[dict[str, Any]], query: Query) -> list[dict[str, Any]]:
    """Answer a query from all entries.

    :raises ImageNotFound: nobody knows the marker's place.
    """
    images = list(images)
    found = [image for image in images if query.search in image["image_id"]]
    found.sort(key=query.place, reverse=query.descending)
    if query.marker is not None:
        marker = (_marker_value(images, query), query.marker)
        found = [image for image in found if _is_behind(query.place(image), marker, query)]
    return query.page(found)


def lost_marker(query: Query) -> ImageNotFound:
    """Say that nobody knows the marker's place."""
    return ImageNotFound(query.marker or "", "is no marker: it is not cached any more")


def cut(found: list[T], limit: int | None, place: Callable[[T], object]) -> list[T]:
    """Give the first ones, and those behind that share the last one's place."""
    if limit is None or len(found) <= limit:
        return found
    end = limit
    while 0 < end < len(found) and place(found[end]) == place(found[end - 1]):
        end += 1
    return found[:end]


def _marker_value(images: Iterable[dict[str, Any]], query: Query) -> Any:
    if query.sort == "image_id":
        return query.marker
    if query.marker_value is not None:
        return query.marker_value
    values = [image[query.sort] for image in images if image["image_id"] == query.marker]
    if not values:
        raise lost_marker(query)
    return min(values) if query.descending else max(values)


def _is_behind(place: tuple[Any, str], marker: tuple[Any, str], query: Query) -> bool:
    return place < marker if query.descending else place > marker
