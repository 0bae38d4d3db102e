"""What the suites about drivers share."""

import errno
import os

import pytest

from cachemw.drivers import _xattrs

from .drivers import (
    open_driver,
)


@pytest.fixture
def make_driver(driver_name, tmp_path):
    """Open the cache directory; each call gives another instance."""
    opened = []

    def make(name=driver_name, **options):
        driver = open_driver(name, tmp_path / "cache", **options)
        opened.append(driver)
        return driver

    yield make
    for driver in opened:
        driver.close()


@pytest.fixture
def driver(make_driver):
    return make_driver()


@pytest.fixture
def no_attributes(monkeypatch):
    """A file system without extended attributes."""

    def refuse(*arguments):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    for name in ("_get", "_set", "_remove"):
        monkeypatch.setattr(_xattrs, name, refuse)


@pytest.fixture
def victim(tmp_path):
    """A file that nothing may read, write or remove."""
    path = tmp_path / "victim"
    path.write_bytes(b"precious")
    before = path.stat()
    yield path
    assert path.read_bytes() == b"precious"
    after = path.stat()
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    if hasattr(os, "listxattr"):
        assert [a for a in os.listxattr(path) if a.startswith("user.")] == []
