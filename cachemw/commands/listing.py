"""List cached images, or what is queued, in parts or invalid.

Imports: commands._output, commands._rows, commands._settings, commands._shown, core.cache, errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core.cache import ImageCache
from ..errors import ConfigError
from . import _output, _rows, _settings, _shown
from ._output import Column

_ID = Column("image_id", "ID")
_SIZE = Column("size", "SIZE", _shown.size, is_number=True)
_STORED = Column("last_modified", "STORED", _shown.moment)

#: What ``--sort`` takes, and whether the greatest comes first.
_SORTS = {
    "id": ("image_id", False),
    "size": ("size", True),
    "hits": ("hits", True),
    "accessed": ("last_accessed", True),
    "modified": ("last_modified", True),
}


class _Kind(NamedTuple):
    """A kind of thing that is listed.

    :param find: gives all of them; ``None``: they are asked for as they are wanted.
    """

    columns: Sequence[Column]
    find: Callable[[ImageCache], list[dict[str, Any]]] | None


_KINDS = {
    "cached": _Kind(
        (
            _ID,
            _SIZE,
            Column("hits", "HITS", _shown.number, is_number=True),
            Column("last_accessed", "LAST READ", _shown.moment),
            _STORED,
            Column("checksum", ""),
        ),
        None,
    ),
    "invalid": _Kind(
        (_ID, _SIZE, Column("last_modified", "FAILED", _shown.moment), Column("reason", "REASON")),
        lambda cache: cache.driver.get_invalid_images(),
    ),
    "partial": _Kind(
        (
            _ID,
            Column("size", "KEPT", _shown.size, is_number=True),
            Column("length", "OF", _shown.size, is_number=True),
            Column("last_modified", "LAST WRITTEN", _shown.moment),
        ),
        lambda cache: cache.get_partial_images(),
    ),
    "queue": _Kind(
        (
            _ID,
            Column("queued", "QUEUED", _shown.moment),
            Column("tries", "TRIES", _shown.number, is_number=True),
            Column("fetching", "FETCHING", lambda is_true: "yes" if is_true else "no"),
            Column("set_aside", "SET ASIDE", lambda is_true: "yes" if is_true else "no"),
            Column("reason", "REASON"),
            Column("url", ""),
        ),
        lambda cache: cache.get_queue(),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    kind = parser.add_mutually_exclusive_group()
    for name, about in (
        ("invalid", "list fills that failed and images found damaged, with the reason"),
        ("partial", "list images of which only parts are there"),
        ("queue", "list what waits to be fetched, the longest waiting first"),
    ):
        kind.add_argument(
            f"--{name}", dest="kind", action="store_const", const=name, default="cached", help=about
        )
    parser.add_argument("--search", metavar="TEXT", help="only ids that contain this")
    parser.add_argument(
        "--sort", choices=list(_SORTS), help="what to go by; numbers and times: greatest first"
    )
    parser.add_argument("--reverse", action="store_true", help="in the other order")
    parser.add_argument("--limit", metavar="N", type=_count, help="only so many, the first ones")
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line an image."""
    kind = _KINDS[args.kind]
    key, is_descending = _SORTS[args.sort] if args.sort else ("", False)
    if key and key not in {column.key for column in kind.columns}:
        raise ConfigError(f"--sort {args.sort} does not go with --{args.kind}")
    query: dict[str, Any] = {
        "search": args.search or "",
        "is_descending": is_descending is not args.reverse,
        "limit": args.limit,
    }
    with _settings.opened_cache(args) as cache:
        if kind.find is None:
            rows = cache.find_images(
                search=query["search"],
                sort=key or "image_id",
                descending=query["is_descending"],
                limit=query["limit"],
            )
        else:
            rows = _rows.select(kind.find(cache), sort=key, **query)
    if args.json:
        _output.print_json(rows)
    else:
        _output.print_rows(kind.columns, rows)
    return 0


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 1")
    return int(text)
