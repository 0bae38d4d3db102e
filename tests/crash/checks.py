"""What must be true of a cache directory after anything at all."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cachemw import CacheFilter, ImageCache, commands, names

from .origin import ROUTES, Origin, body, download, image_id


@contextlib.contextmanager
def opened(directory: Path, driver: str, **options: Any) -> Iterator[CacheFilter]:
    """Open the cache anew, in front of an origin of its own."""
    options = {"min_free": 0, "driver_fallback": False, **options}
    app = CacheFilter(Origin(), dir=directory, driver=driver, routes=ROUTES, **options)
    try:
        yield app
    finally:
        app.cache.close()


def entry_files(directory: Path) -> dict[str, int]:
    """Names and bytes of the entries' files."""
    with os.scandir(directory) as files:
        return {
            file.name: file.stat(follow_symlinks=False).st_size
            for file in files
            if file.is_file(follow_symlinks=False) and names.is_entry_name(file.name)
        }


def assert_index_agrees(cache: ImageCache) -> None:
    """What is listed is what there is, and what there is can be opened and is intact."""
    files = entry_files(Path(cache.driver.directory))
    listed = cache.get_cached_images()
    known = {names.entry_name(image["image_id"]): image["size"] for image in listed}
    assert known == files
    assert cache.get_cache_size() == sum(files.values())
    for image in listed:
        assert cache.is_cached(image["image_id"])


def assert_images_right(app: CacheFilter, numbers: Iterable[int], most: int = 1) -> list[int]:
    """Every image comes right, from the cache or from the origin and then into the cache.

    :param most: how often the origin may be asked for one image.
    :return: the hits.
    """
    hits = []
    for number in numbers:
        answer = download(app, number)
        answer.assert_right(number)
        assert answer.cache_status in ("hit", "hit; detail=adopted", "fwd=uri-miss; stored")
        assert app.app.calls.get(number, 0) <= most
        if answer.cache_status == "hit":
            hits.append(number)
        if len(body(number)) <= app.cache.settings.max_image_size:
            assert app.cache.is_cached(image_id(number))
    assert app.app.open == 0
    return hits


def clean(directory: Path, driver: str) -> None:
    """``cachemw clean --stall-time 0`` leaves nothing but entries and their records."""
    where = ["--dir", str(directory), "--set", f"driver={driver}", "--set", "driver_fallback=no"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert commands.main(["clean", "--stall-time", "0", *where]) == 0
    assert os.listdir(directory / "incomplete") == []
    assert os.listdir(directory / "invalid") == []
    for aside in (".records", ".sums"):
        assert set(os.listdir(directory / aside)) <= set(entry_files(directory))


def assert_sound(
    directory: Path, driver: str, numbers: Iterable[int], clean_first: bool = False, **options: Any
) -> list[int]:
    """All of the above, seen by somebody who opens the directory now.

    :param clean_first: clean before any request could mend something.
    :return: the images that were hits.
    """
    if clean_first:
        clean(directory, driver)
    with opened(directory, driver, **options) as app:
        assert_index_agrees(app.cache)
        hits = assert_images_right(app, numbers)
        assert_index_agrees(app.cache)
    clean(directory, driver)
    return hits
