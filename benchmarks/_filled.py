"""A cache of many small images, made quickly.

The files and their records are written directly, without the steps that make
one commit safe, and the driver then makes its index from them, as it does
wherever the index is gone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from _harness import KIB, BenchmarkError

from cachemw import ImageCache
from cachemw.drivers import _records
from cachemw.drivers.base import Record

SIZE = KIB
BODY = bytes(range(256)) * (SIZE // 256)
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def open_cache(directory: Path, driver: str) -> ImageCache:
    """Open a cache that evicts nothing by itself."""
    return ImageCache(
        dir=str(directory), driver=driver, max_size="1TiB", min_free=0, durability="none"
    )


def record(image_id: str) -> Record:
    """Give what is kept of an image of :data:`BODY`."""
    return Record(
        image_id,
        SIZE,
        CHECKSUM,
        headers=(("Content-Type", "application/octet-stream"), ("ETag", '"1"')),
        stored=time.time(),
    )


def fill(directory: Path, names: Iterable[str]) -> ImageCache:
    """Make a cache (sqlite) with one image of each name.

    :param names: ids that are safe as file names.
    """
    cache = open_cache(directory, "sqlite")
    tree = cache.driver.tree  # type: ignore[attr-defined]
    began = time.perf_counter()
    count = 0
    for count, name in enumerate(names, 1):  # noqa: B007
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=tree.base)
        try:
            os.write(fd, BODY)
            if _records.write(fd, name, record(name), tree.records, False):
                raise BenchmarkError(f"{directory}: no extended attributes here (--dir)")
        finally:
            os.close(fd)
    cache.close()
    for path in directory.glob("cache.db*"):
        path.unlink()
    written = time.perf_counter()
    cache = open_cache(directory, "sqlite")
    if cache.get_cache_size() != count * SIZE:
        raise BenchmarkError(f"the index does not have the {count} entries")
    indexed = time.perf_counter()
    print(
        f"{count} entries: {written - began:.1f} s to write,"
        f" {indexed - written:.1f} s to make the index from them",
        file=sys.stderr,
    )
    return cache
