"""Put images in the queue to be fetched, or list it.

Imports: commands._listing, commands._settings, core.cache, core.fetching, errors.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from ..core.cache import ImageCache
from ..core.fetching import read_fields
from ..errors import ConfigError, DriverError, NotFetchable
from . import _listing, _settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("ids", metavar="ID", nargs="*", help="image ids; none: list the queue")
    parser.add_argument(
        "--file", metavar="FILE", help="take ids from a file, one a line (-: standard input)"
    )
    parser.add_argument(
        "--glob",
        metavar="PATTERN",
        action="append",
        default=[],
        help="take the images of a listing whose names match, such as 'ubuntu-*'; repeatable",
    )
    parser.add_argument("--listing", metavar="URL|FILE", help="the listing that --glob looks at")
    parser.add_argument(
        "--prefix", metavar="TEXT", default="", help="put before each id of the listing"
    )
    _settings.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Queue images and print what became of each, or list the queue."""
    if bool(args.glob) != bool(args.listing):
        raise ConfigError("--glob PATTERN and --listing URL|FILE go together")
    settings = _settings.from_arguments(args)
    cache = ImageCache.from_settings(settings)
    try:
        if not (args.ids or args.file or args.glob):
            return _list(cache, args.json)
        return _queue(cache, _wanted(args, settings.prefetch_headers), args.json)
    finally:
        cache.close()


def _wanted(args: argparse.Namespace, source: str) -> Iterator[tuple[str, str | None]]:
    """Give ids and URLs.

    :param source: of request fields for the listing.
    """
    for image_id in args.ids:
        yield image_id, None
    for line in _listing.read_lines(args.file) if args.file else ():
        image_id, _, url = line.partition("\t")
        yield image_id.strip(), url.strip() or None
    if args.glob:
        listing = _listing.read_listing(args.listing, read_fields(source))
        for image_id in _listing.matching(listing, args.glob):
            yield args.prefix + image_id, None


def _queue(cache: ImageCache, wanted: Iterator[tuple[str, str | None]], as_json: bool) -> int:
    results: list[dict[str, Any]] = []
    status = 0
    for image_id, url in dict(wanted).items():
        result = {"image_id": image_id, "queued": False, "reason": ""}
        results.append(result)
        try:
            result["queued"] = _queue_one(cache, image_id, url)
        except (DriverError, ValueError) as exc:
            status = 1
            result["reason"] = exc.reason if isinstance(exc, DriverError) else str(exc)
            if not as_json:
                print(f"cachemw queue: {image_id}: {result['reason']}", file=sys.stderr)
            continue
        result["reason"] = "" if result["queued"] else "cached, being cached or queued already"
        if not as_json:
            print(f"{image_id}\t{result['reason'] or 'queued'}")
    if as_json:
        print(json.dumps(results, indent=2))
    return status


def _queue_one(cache: ImageCache, image_id: str, url: str | None) -> bool:
    if not cache.can_fetch(image_id, url):
        raise NotFetchable(image_id, "nothing says how to fetch it (option image_path)")
    return cache.queue_image(image_id, url)


def _list(cache: ImageCache, as_json: bool) -> int:
    """Print what is in the queue: id, state, tries and reason."""
    queue = cache.get_queue()
    if as_json:
        print(json.dumps(queue, indent=2))
        return 0
    now = time.time()
    for queued in queue:
        line = (queued["image_id"], state_of(queued, now), queued["tries"], queued["reason"])
        print("\t".join(map(str, line)))
    return 0


def state_of(queued: dict[str, Any], now: float) -> str:
    """Give one word for how an image in the queue stands."""
    if queued["set_aside"]:
        return "set-aside"
    if queued["fetching"]:
        return "fetching"
    return "failed" if queued["after"] > now else "waiting"
