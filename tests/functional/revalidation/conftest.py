"""What the suites of revalidation share."""

import pytest

from cachemw import ImageCache
from cachemw.drivers import _memory
from tests.functional.versions import Clock, VersionedOrigin, client_of

# Its assertions tell what they compared, as those of tests do.
pytest.register_assert_rewrite("tests.functional.revalidation.aging")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def origin():
    return VersionedOrigin()


@pytest.fixture(params=["disk", "memory"])
def cache(request, driver_name, tmp_path, monkeypatch):
    """A cache whose answers come from the disk, and one that soon has the image in memory."""
    if request.param == "memory":
        now = _memory.time.time_ns
        monkeypatch.setattr(_memory.time, "time_ns", lambda: now() + 10**10)
    size = 0 if request.param == "disk" else "1MiB"
    cache = ImageCache(
        dir=tmp_path / "cache", driver=driver_name, driver_fallback=False, memory_size=size
    )
    yield cache
    cache.close()


@pytest.fixture
def client(origin, cache, clock):
    return client_of(origin, cache)
