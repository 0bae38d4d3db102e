"""Delete images from the cache, or take them out of the queue.

Imports: commands._output, commands._progress, commands._settings, commands._shown, core.cache,
errors.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.cache import ImageCache
from ..errors import ConfigError, DriverError
from . import _output, _progress, _settings, _shown
from ._output import Column

_COLUMNS = (Column("image_id", "ID"), Column("size", "SIZE", _shown.size, is_number=True))
_QUEUED = _COLUMNS[:1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument("ids", metavar="ID", nargs="*", help="an image's id")
    parser.add_argument("--all", action="store_true", help="every image")
    parser.add_argument(
        "--glob",
        metavar="PATTERN",
        action="append",
        default=[],
        help="every image whose id matches, such as 'http://*/*.iso'; may be repeated",
    )
    parser.add_argument(
        "--queue", action="store_true", help="take them out of the queue; leave the cache alone"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line an image that was deleted.

    :return: 1: one was not there, or could not be deleted.
    """
    if bool(args.ids) + args.all + bool(args.glob) != 1:
        raise ConfigError("expected ids, or --all, or --glob PATTERN")
    ids = [_settings.image_id_of(image_id) for image_id in args.ids]
    with _settings.opened_cache(args) as cache:
        there = _queued(cache) if args.queue else _cached(cache, ids)
        wanted = dict.fromkeys(ids or _matching(there, args.glob, args.all))
        missing = [image_id for image_id in wanted if image_id not in there]
        chosen = {image_id: there[image_id] for image_id in wanted if image_id in there}
        gone = chosen if args.dry_run else _delete(cache, chosen, args)
    place = "queue" if args.queue else "cache"
    for image_id in missing:
        _output.complain("delete", f"{image_id}: not in the {place}")
    rows = [
        {"image_id": image_id, "size": size} if size is not None else {"image_id": image_id}
        for image_id, size in gone.items()
    ]
    if args.json:
        _output.print_json(rows)
    else:
        _output.print_rows(_QUEUED if args.queue else _COLUMNS, rows)
    return 1 if missing or len(gone) < len(chosen) else 0


def _queued(cache: ImageCache) -> Mapping[str, int | None]:
    return {row["image_id"]: None for row in cache.get_queue()}


def _cached(cache: ImageCache, ids: Iterable[str]) -> Mapping[str, int | None]:
    """Give bytes by id of the images that are there, all variants and what was kept of a fill
    together; only of some, if there are ids."""
    wanted = set(ids)
    sizes: dict[str, int] = {}
    for row in (*cache.get_cached_images(), *cache.get_partial_images()):
        image_id = row["image_id"]
        if not wanted or image_id in wanted:
            sizes[image_id] = sizes.get(image_id, 0) + row["size"]
    return sizes


def _matching(there: Iterable[str], patterns: list[str], is_all: bool) -> list[str]:
    return [
        image_id
        for image_id in there
        if is_all or any(fnmatch.fnmatchcase(image_id, pattern) for pattern in patterns)
    ]


def _delete(
    cache: ImageCache, chosen: Mapping[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """Delete them one by one, so that servers get their turn. :return: those that were deleted."""
    gone = {}
    delete = cache.delete_queued_image if args.queue else cache.delete_cached_image
    with _progress.progress("deleting", "images") as progress:
        for done, (image_id, size) in enumerate(chosen.items()):
            progress(done, len(chosen))
            try:
                delete(image_id)
            except DriverError as exc:
                _output.complain("delete", exc)
            else:
                gone[image_id] = size
    return gone
