"""What the suites of downloads share."""

import pytest

from cachemw import ImageCache
from tests.fakes import FakeOrigin

from .downloading import BODY, URL, client_of


@pytest.fixture
def origin():
    return FakeOrigin({URL: BODY, "/empty": b""})


@pytest.fixture
def cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture
def client(origin, cache):
    return client_of(origin, cache)
