"""What each preset decides, and what an explicit option decides instead."""

import pytest
import webtest
from paste.deploy import loadapp

from cachemw import CacheFilter, ImageCache
from cachemw.core.config import FROM_PRESET, Settings
from cachemw.core.presets import PRESETS
from cachemw.errors import ConfigError
from cachemw.web.routes import Routes

#: As the interface page has them.
EXPECTED = {
    "any": ("http", "off"),
    "glance": ("immutable", "python:cachemw.web.hooks.glance:authorize"),
    "swift": ("revalidate", "app"),
    "registry": ("immutable", "app"),
}

FROM_PRESETS = [option.name for option in Settings.options() if option.default == FROM_PRESET]

EXPLICIT = {
    "routes": ("/x/(?P<image_id>.+)", ("/x/(?P<image_id>.+)",)),
    "image_path": ("/x/{image_id}", "/x/{image_id}"),
    "content_types": ("text/plain", ("text/plain",)),
    "freshness": ("revalidate", "revalidate"),
    "authorize": ("python:a.b:c", "python:a.b:c"),
}


def origin(environ, start_response):
    start_response("200 OK", [("Content-Type", "image/png"), ("ETag", '"1"')])
    return [b"image"]


def settings_of(**options):
    return Settings.from_options({"dir": "/tmp/x", **options})


# Options


def test_every_preset_is_expected_here():
    assert set(PRESETS) == set(EXPECTED)
    assert set(FROM_PRESETS) == set(EXPLICIT)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_preset_gives_the_options_that_are_not_given(preset):
    settings = settings_of(preset=preset)

    assert (settings.freshness, settings.authorize) == EXPECTED[preset]
    assert settings.service is PRESETS[preset]
    assert bool(settings.routes) is (preset != "any")
    assert settings == settings_of(preset=preset, **dict.fromkeys(FROM_PRESETS, FROM_PRESET))
    assert settings == settings_of(preset=preset, **dict.fromkeys(FROM_PRESETS))
    assert settings == settings_of(preset=f" {preset.upper()} ")


def test_without_a_preset_it_is_any():
    assert settings_of() == settings_of(preset="any") == settings_of(preset=None)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("name", sorted(EXPLICIT))
def test_explicit_option_wins_and_leaves_the_others(preset, name):
    given, read = EXPLICIT[name]
    settings = settings_of(preset=preset, **{name: given})

    assert getattr(settings, name) == read
    for other in set(FROM_PRESETS) - {name}:
        assert getattr(settings, other) == getattr(settings_of(preset=preset), other)


@pytest.mark.parametrize("preset", ["", "glances", "any, swift", 1, True])
def test_unknown_preset_stops_the_start(preset):
    with pytest.raises(ConfigError, match=r"option 'preset' has the value .*: expected any or"):
        settings_of(preset=preset)


# The filter over a cache


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=tmp_path / "cache")
    yield cache
    cache.close()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_preset_can_be_given_beside_a_cache(cache, preset):
    app = CacheFilter(origin, cache=cache, preset=preset)

    assert app.cache is cache
    assert app.settings == cache.settings.changed({"preset": preset})
    assert (app.settings.freshness, app.settings.authorize) == EXPECTED[preset]
    assert app.settings.dir == cache.settings.dir


@pytest.mark.parametrize("name", sorted(EXPLICIT))
def test_explicit_option_beside_a_preset_and_a_cache_wins(cache, name):
    given, read = EXPLICIT[name]

    assert getattr(cache.settings.changed({"preset": "swift", name: given}), name) == read
    assert getattr(cache.settings.changed({name: given}), name) == read


def test_none_beside_a_cache_means_not_given(cache):
    nothing = dict.fromkeys(["preset", "credential_headers", *FROM_PRESETS])

    assert CacheFilter(origin, cache=cache, **nothing).settings == cache.settings


def test_cache_of_a_preset_gives_its_options_to_the_filter(tmp_path):
    cache = ImageCache(dir=tmp_path, preset="swift")

    assert CacheFilter(origin, cache=cache).settings.authorize == "app"
    assert CacheFilter(origin, cache=cache, authorize="off").settings.freshness == "revalidate"
    cache.close()


# Ini files

INI = """
[DEFAULT]
image_cache_dir = %(here)s/cache
{default}

[pipeline:main]
pipeline = cache images

[filter:cache]
use = egg:cachemw
{own}

[app:images]
use = egg:cachemw#images
dir = %(here)s/images
"""


def load(directory, own="", default=""):
    for name in ("images/v2/images/cat", "images/v1/account/container"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "images/v2/images/cat/file").write_bytes(b"image")
    (directory / "images/v1/account/container/cat.png").write_bytes(b"image")
    (directory / "app.ini").write_text(INI.format(own=own, default=default))
    return loadapp(f"config:{directory / 'app.ini'}")


def test_ini_file_with_a_preset(tmp_path):
    app = load(tmp_path, own="preset = swift")
    client = webtest.TestApp(app)
    client.get("/v1/account/container/cat.png")
    again = client.get("/v1/account/container/cat.png")

    assert again.headers["Cache-Status"] == "cachemw; fwd=stale; fwd-status=304"
    assert app.cache.is_cached("account/container/cat.png")
    assert "Cache-Status" not in client.get("/v2/images/cat/file").headers
    app.cache.close()


def test_ini_file_with_a_preset_and_an_option_of_its_own(tmp_path):
    app = load(tmp_path, own="preset = glance\nauthorize = off")
    client = webtest.TestApp(app)
    client.get("/v2/images/cat/file")

    assert client.get("/v2/images/cat/file").headers["Cache-Status"] == "cachemw; hit"
    assert app.cache.is_cached("cat")
    app.cache.close()


def test_ini_file_with_a_preset_for_everyone(tmp_path):
    app = load(tmp_path, default="image_cache_preset = registry")

    assert app.settings.preset == "registry"
    app.cache.close()


def test_ini_file_with_a_wrong_preset_stops_the_start(tmp_path):
    with pytest.raises(ConfigError, match="option 'preset' has the value 'glanse'"):
        load(tmp_path, own="preset = glanse")


# Routes

SHA256, SHA512 = "a1" * 32, "b2" * 64

PATHS = [
    ("any", "/whatever/cat.png", "http://server/whatever/cat.png"),
    ("any", "/", "http://server/"),
    ("glance", "/v2/images/0f3a/file", "0f3a"),
    ("glance", "/v1/images/0f3a", "0f3a"),
    ("glance", "/v1/images/detail", None),
    ("glance", "/v1/images/details", "details"),
    ("glance", "/v1/images/0f3a/members", None),
    ("glance", "/v2/images/0f3a", None),
    ("glance", "/v2/images//file", None),
    ("glance", "/v2/images/0f3a/file/", None),
    ("glance", "/v2/images/0f3a/members/file", None),
    ("glance", "/x/v2/images/0f3a/file", None),
    ("swift", "/v1/AUTH_a/c/o", "AUTH_a/c/o"),
    ("swift", "/v1/AUTH_a/c/dir/sub/o.iso", "AUTH_a/c/dir/sub/o.iso"),
    ("swift", "/v1/AUTH_a/c//o", "AUTH_a/c//o"),
    ("swift", "/v1/AUTH_a/c/o/", "AUTH_a/c/o/"),
    ("swift", "/v1/AUTH_a/c/a b?%", "AUTH_a/c/a b%3F%25"),
    ("swift", "/v1/AUTH_a/c/", None),
    ("swift", "/v1/AUTH_a/c", None),
    ("swift", "/v1/AUTH_a", None),
    ("swift", "/v1//c/o", None),
    ("swift", "/v2/AUTH_a/c/o", None),
    ("swift", "/v1/AUTH_a/c/a\nb", None),
    ("registry", f"/v2/debian/blobs/sha256:{SHA256}", f"sha256:{SHA256}"),
    ("registry", f"/v2/a/b/c/blobs/sha256:{SHA256}", f"sha256:{SHA256}"),
    ("registry", f"/v2/a/b/manifests/sha256:{SHA256}", f"sha256:{SHA256}"),
    ("registry", f"/v2/a/blobs/sha512:{SHA512}", f"sha512:{SHA512}"),
    ("registry", f"/v2/a/blobs/x/blobs/sha256:{SHA256}", f"sha256:{SHA256}"),
    ("registry", f"/v2/a/blobs/sha256:{SHA256.upper()}", None),
    ("registry", f"/v2/a/blobs/SHA256:{SHA256}", None),
    ("registry", f"/v2/a/blobs/sha256:{SHA256[:-1]}", None),
    ("registry", f"/v2/a/blobs/sha256:{SHA256}0", None),
    ("registry", f"/v2/a/blobs/sha256:{SHA256}\n", None),
    ("registry", f"/v2/a/blobs/sha512:{SHA256}", None),
    ("registry", "/v2/a/blobs/md5:" + "a" * 32, None),
    ("registry", f"/v2//blobs/sha256:{SHA256}x", None),
    ("registry", f"/v2/blobs/sha256:{SHA256}", None),
    ("registry", "/v2/a/manifests/latest", None),
    ("registry", "/v2/a/blobs/uploads/1", None),
    ("registry", "/v2/", None),
]


@pytest.mark.parametrize(("preset", "path", "image_id"), PATHS)
def test_paths_of_images(preset, path, image_id):
    settings = settings_of(preset=preset)
    service = settings.service
    routes = Routes(settings.routes, service.resources, service.query_in_id)
    environ = {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "server",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
    }

    assert routes.image_id(environ) == image_id
    environ["QUERY_STRING"] = "ns=x"
    if image_id is not None:
        in_id = preset in ("any", "swift")
        assert routes.image_id(environ) == (f"{image_id}?ns=x" if in_id else image_id)
