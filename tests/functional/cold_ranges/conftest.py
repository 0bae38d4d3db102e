"""What the suites of cold ranges share."""

import contextlib

import pytest

from cachemw import CacheFilter, ImageCache
from tests.ranged import RangedOrigin
from tests.waiting import wait_until

# Its assertions tell what they compared, as those of tests do.
pytest.register_assert_rewrite("tests.functional.cold_ranges.asking")

from .asking import BODY  # noqa: E402


@pytest.fixture(autouse=True)
def completed_from(monkeypatch):
    """Nobody fetches the rest of an image in the background, so that the parts can be counted."""
    monkeypatch.setattr("cachemw.web.slices.COMPLETED_FROM", 2.0)


@pytest.fixture
def origin():
    return RangedOrigin(BODY)


@pytest.fixture
def make(origin, tmp_path):
    """Make filters on one directory, as processes that start one after the other."""
    with contextlib.ExitStack() as stack:

        def make(range_miss="slice", app=origin, **options):
            options = {"driver": "sqlite", "min_free": 0, **options}
            cache = ImageCache(dir=tmp_path / "cache", **options)
            stack.callback(cache.close)
            # What is queued stays where it can be counted.
            return CacheFilter(app, cache=cache, range_miss=range_miss, prefetch_workers=0)

        yield make
    wait_until(lambda: origin.opened == origin.closed, "every answer is closed")
