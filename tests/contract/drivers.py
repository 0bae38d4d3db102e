"""Steps that the suites about drivers share."""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import random
import time
from pathlib import Path

from cachemw import names
from cachemw.drivers._files import names_of
from cachemw.drivers.base import MOST_VARIANTS, Driver, Record

BODY = bytes(range(256)) * 4  # 1 KiB

#: Fields that no extended attribute of ext4 takes.
LONG_HEADERS = tuple((f"X-Field-{number}", "v" * 200) for number in range(40))


def new_driver(driver_name: str, directory: Path | str, **options) -> Driver:
    module = importlib.import_module(f"cachemw.drivers.{driver_name}")
    return module.Driver(str(directory), **options)


def open_driver(driver_name: str, directory: Path | str, **options) -> Driver:
    driver = new_driver(driver_name, directory, **options)
    driver.configure()
    return driver


def store(
    driver: Driver, image_id: str, body: bytes = b"image", headers=(), variant: int = 0
) -> None:
    """Fill an image from its beginning to its commit."""
    sink = driver.start_fill(image_id, variant)
    sink.write(body)
    record = driver.describe(image_id, sink)
    checksum = record.checksum
    sink.commit(Record(image_id, record.size, checksum, tuple(headers), variant=variant))


def read(driver: Driver, image_id: str, variant: int = 0) -> bytes:
    with driver.open_for_read(image_id, variant) as entry:
        return entry.read()


def ids(driver: Driver) -> list[str]:
    return [image["image_id"] for image in driver.get_cached_images()]


def path_of(driver: Driver, image_id: str, status: str = "active") -> Path:
    return Path(driver.get_image_filepath(image_id, status))


def die_while_filling(driver: Driver, image_id: str, body: bytes = b"half") -> None:
    """Leave a fill as a writer does that dies: its file stays, its lock goes."""
    sink = driver.start_fill(image_id)
    sink.write(body)
    sink.forget_parent()


def pattern(size: int, seed: str = "") -> bytes:
    """Give bytes of which no two parts are alike."""
    return random.Random(f"{seed}.{size}").randbytes(size)


def record_of(image_id: str, body: bytes, variant: int = 0) -> Record:
    return Record(image_id, len(body), f"sha256:{sha256(body)}", variant=variant)


def begin(driver: Driver, image_id: str, length: int | None = None, variant: int = 0, **fields):
    """Begin a fill and announce it; what was kept is gone on with."""
    sink = driver.start_fill(image_id, variant)
    sink.announce(Record(image_id, 0, "", variant=variant, **fields), length, keep=True)
    return sink


def in_incomplete(driver: Driver) -> list[str]:
    return sorted(os.listdir(Path(driver.directory) / "incomplete"))


def fills(driver: Driver) -> list[str]:
    """Names of the files of fills under way, and of abandoned ones, without their state's."""
    return [name for name in in_incomplete(driver) if not name.startswith(".")]


def assert_sound(driver: Driver) -> None:
    """What is listed and summed up is what the directory has, and every image is intact."""
    directory = Path(driver.directory)
    files = {
        path.name: path.stat().st_size
        for path in directory.iterdir()
        if names.is_entry_name(path.name) and path.is_file() and not path.is_symlink()
    }
    listed = driver.get_cached_images()
    assert sorted(image["size"] for image in listed) == sorted(files.values())
    every = {image["image_id"] for image in listed}
    assert set(files) <= {name for image_id in every for name in names_of(image_id)}
    assert driver.get_cache_size() == sum(files.values())
    others = [
        path.lstat().st_size
        for part in ("incomplete", "invalid")
        for path in (directory / part).iterdir()
        if not path.name.endswith(".fill")
    ]
    assert driver.get_usage() == sum(files.values()) + sum(others)
    found = []
    for image_id in every:
        for variant in range(MOST_VARIANTS):
            if names.entry_name(image_id, variant) in files:
                with driver.open_for_read(image_id, variant) as entry:
                    record = entry.record
                    assert record is not None
                    assert f"sha256:{sha256(entry.read())}" == record.checksum
                    found.append((image_id, record.checksum))
    assert sorted(found) == sorted((image["image_id"], image["checksum"]) for image in listed)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def settled_descriptors() -> int:
    """Count open descriptors, without those of what earlier tests left to the collector."""
    gc.collect()
    return open_descriptors()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def hit(driver: Driver, image_id: str) -> None:
    driver.record_hit(image_id, time.time())


def plant(path: Path, victim: Path) -> None:
    """Put a link to ``victim`` in a file's place."""
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
