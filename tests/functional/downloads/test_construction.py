"""The filter as Python code and ini files make it."""

import pytest
import webtest
from paste.deploy import loadapp

from cachemw import CacheFilter
from cachemw.errors import ConfigError

from .downloading import BODY, URL


def test_cache_is_made_from_options(origin, tmp_path):
    app = CacheFilter(origin, dir=tmp_path, driver="xattr", max_size="5MiB")
    webtest.TestApp(app).get(URL)

    assert app.cache.get_cache_size() == len(BODY)
    assert app.cache.capacity.max_size == 5 * 2**20
    app.cache.close()


def test_storage_option_beside_a_cache_is_refused(origin, cache):
    with pytest.raises(ConfigError, match="'dir' belongs to the ImageCache"):
        CacheFilter(origin, cache=cache, dir="/tmp/x")


@pytest.mark.parametrize("use", ["egg:cachemw", "egg:cachemw#main", "egg:cachemw#cache"])
def test_pipeline_from_an_ini_file(tmp_path, use):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(BODY)
    (tmp_path / "app.ini").write_text(
        f"""
[DEFAULT]
image_cache_dir = %(here)s/cache
image_cache_max_size = 5MiB
other = of somebody else

[pipeline:main]
pipeline = cache images

[filter:cache]
use = {use}
driver = xattr

[app:images]
use = egg:cachemw#images
dir = %(here)s/images
"""
    )
    app = loadapp(f"config:{tmp_path / 'app.ini'}")
    client = webtest.TestApp(app)

    assert client.get("/cat.png").body == client.get("/cat.png").body == BODY
    assert (tmp_path / "cache").is_dir()
    assert app.cache.settings.max_size == 5 * 2**20
    assert app.cache.settings.driver == "xattr"
    app.cache.close()


def test_mistake_in_an_ini_file_stops_the_start(tmp_path):
    (tmp_path / "app.ini").write_text(
        """
[pipeline:main]
pipeline = cache images
[filter:cache]
use = egg:cachemw
dir = %(here)s/cache
max_sise = 5MiB
[app:images]
use = egg:cachemw#images
dir = %(here)s
"""
    )
    with pytest.raises(ConfigError, match="'max_sise': did you mean 'max_size'"):
        loadapp(f"config:{tmp_path / 'app.ini'}")
