"""Show what is known of one image.

Imports: commands._output, commands._settings, commands._shown, core.cache, drivers.base, errors.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from typing import Any

from ..core.cache import ImageCache
from ..drivers.base import Entry
from ..errors import DriverError, ImageNotFound
from . import _output, _settings, _shown
from ._output import Fact

#: How a value is shown, by its name.
_SHOW = {
    "size": _shown.size,
    "length": _shown.size,
    "hits": _shown.number,
    "last_accessed": _shown.moment,
    "last_modified": _shown.moment,
    "stored": _shown.moment,
    "queued": _shown.moment,
    "after": _shown.moment,
    "age": _shown.duration,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument("image_id", metavar="ID", help="the image's id")
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print one fact a line.

    :return: 1: nothing is known of the image.
    """
    with _settings.opened_cache(args) as cache:
        image = describe(cache, _settings.image_id_of(args.image_id))
    if not image["state"]:
        _output.complain("show", ImageNotFound(args.image_id, "not in the cache"))
        return 1
    if args.json:
        _output.print_json(image)
    else:
        _output.print_facts(facts_of(image))
    return 0


def describe(cache: ImageCache, image_id: str) -> dict[str, Any]:
    """Look for an image wherever it may be.

    :return: ``state``: which of ``cached``, ``filling``, ``partial``, ``queued`` and ``invalid``
        it is; and what there is to say of each.
    """
    variants = list(_variants(cache, image_id))
    found = {
        "partial": _of(image_id, cache.get_partial_images()),
        "queued": _of(image_id, cache.get_queue()),
        "invalid": _of(image_id, cache.driver.get_invalid_images()),
    }
    state = ["cached"] if variants else []
    state += ["filling"] if cache.is_being_cached(image_id) else []
    state += [name for name, rows in found.items() if rows]
    return {
        "image_id": image_id,
        "state": state,
        "hits": cache.get_hit_count(image_id),
        "variants": variants,
        **found,
    }


def _of(image_id: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "image_id"}
        for row in rows
        if row["image_id"] == image_id
    ]


def _variants(cache: ImageCache, image_id: str) -> Iterable[dict[str, Any]]:
    listed = None
    for variant in (0, *cache.driver.other_variants(image_id)):
        try:
            with cache.driver.open_for_read(image_id, variant) as entry:
                if listed is None:
                    # Only the listing knows of each variant when it was read last.
                    listed = cache.find_image(image_id)
                yield _variant(cache, entry, variant, listed)
        except ImageNotFound:
            continue
        except DriverError as exc:
            # It was found damaged just now, and is listed as such below.
            _output.complain("show", exc)


def _variant(
    cache: ImageCache, entry: Entry, variant: int, listed: list[dict[str, Any]]
) -> dict[str, Any]:
    modified = os.fstat(entry.fileno()).st_mtime
    # Those of two variants that came in the same moment and have the same bytes are alike.
    checksum = None if entry.record is None else entry.record.checksum
    row = next(
        (r for r in listed if (r["last_modified"], r["checksum"]) == (modified, checksum)), None
    )
    facts: dict[str, Any] = {
        "variant": variant,
        "path": cache.driver.get_image_filepath(entry.image_id, variant=variant),
        "size": entry.size,
        "hits": row and row["hits"],
        "last_accessed": row and row["last_accessed"],
        "last_modified": modified,
        "checksum": checksum,
    }
    record = entry.record
    if record is None:
        return {**facts, "adopted": True}
    return {
        **facts,
        "stored": record.stored,
        "age": record.age,
        "guarded": record.guarded,
        "vary": [list(pair) for pair in record.vary],
        "headers": [list(pair) for pair in record.headers],
    }


def facts_of(image: dict[str, Any]) -> list[Fact]:
    """Give what :func:`describe` found as lines."""
    facts = [
        Fact("image_id", image["image_id"]),
        Fact("state", ", ".join(image["state"])),
        Fact("hits", image["hits"], _shown.number),
    ]
    several = len(image["variants"]) > 1
    for variant in image["variants"]:
        prefix = f"variant {variant['variant']} " if several else ""
        for name, value in variant.items():
            if name in ("vary", "headers"):
                word = "selected by" if name == "vary" else "header"
                facts += [Fact(f"{prefix}{word} {key}", text) for key, text in value]
            elif name != "variant" and (several or name != "hits"):
                facts.append(_fact(prefix, name, value))
    for state in ("partial", "queued", "invalid"):
        for row in image[state]:
            facts += [_fact(f"{state} ", name, value) for name, value in row.items()]
    return facts


def _fact(prefix: str, name: str, value: Any) -> Fact:
    if isinstance(value, bool):
        return Fact(prefix + name, value, lambda is_true: "yes" if is_true else "no")
    return Fact(prefix + name, value, _SHOW.get(name, _shown.text))
