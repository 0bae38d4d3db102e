"""Several variants of one image (Vary), through the whole filter, over every driver."""

import os

import pytest

from cachemw import ImageCache, names
from cachemw.drivers.base import MOST_VARIANTS
from cachemw.web import storing
from tests.fakes import sha256

from .versions import URL, Clock, VersionedOrigin, client_of, status_of

HIT = "cachemw; hit"
VARY_MISS = "cachemw; fwd=vary-miss; stored"
HELD = "cachemw; fwd=stale; fwd-status=304"
LATER = 100  # seconds, more than the origin's max-age


class Translated(VersionedOrigin):
    """An app whose image says in what language, or by what name of a host, it was asked for."""

    def __init__(self, *varies: str) -> None:
        super().__init__()
        self.varies = varies or ("Accept-Language",)
        self.version = 1

    def __call__(self, environ, start_response):
        said = [environ.get("HTTP_" + name.upper().replace("-", "_"), "") for name in self.varies]
        self.body = text(*said, version=self.version)
        self.tag = f'"{"/".join(said).encode().hex()}-{self.version}"'
        vary = [("Vary", name) for name in self.varies]
        self.fields = self.fields_304 = vary
        return super().__call__(environ, start_response)


def text(*said, version=1):
    return f"version {version} for {'/'.join(said)}".encode() * 100


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def origin():
    return Translated()


@pytest.fixture
def cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture
def client(origin, cache, clock):
    return client_of(origin, cache)


def ask(client, language, **headers):
    return client.get(URL, headers={"Accept-Language": language, **headers})


def image_id(cache):
    (found,) = {image["image_id"] for image in cache.get_cached_images()}
    return found


def entries(cache):
    """The files of the entries, by name."""
    directory = cache.settings.dir
    return {name for name in os.listdir(directory) if names.is_entry_name(name)}


def remove_first(cache):
    """As an eviction, which goes by use and not by number."""
    os.unlink(cache.driver.get_image_filepath(image_id(cache)))


LANGUAGES = ["de", "en", "fr", "it"]


def test_variants_are_kept_side_by_side(client, origin, cache):
    """RFC 9111, section 4.1."""
    first = [status_of(ask(client, language)) for language in LANGUAGES]
    assert first == ["cachemw; fwd=uri-miss; stored", VARY_MISS, VARY_MISS, VARY_MISS]

    for language in [*LANGUAGES, *reversed(LANGUAGES)]:
        response = ask(client, language)
        assert (status_of(response), response.body) == (HIT, text(language))
        assert response.headers["Vary"] == "Accept-Language"
    assert origin.calls == len(LANGUAGES)


def test_request_without_the_field_is_another_variant(client, origin):
    ask(client, "de")

    assert client.get(URL).body == text("")
    assert (status_of(client.get(URL)), client.get(URL).body) == (HIT, text(""))
    assert ask(client, "de").body == text("de")
    assert origin.calls == 2


@pytest.mark.parametrize(
    ("name", "one", "same"),
    [
        ("Accept-Language", "de, en", "DE,en"),
        ("Accept-Encoding", "gzip, br", "br , gzip"),
        ("Accept", "image/png;q=0.5, image/webp", "image/webp,image/png; q=0.5"),
    ],
)
def test_values_that_mean_the_same_select_the_same(cache, clock, name, one, same):
    origin = Translated(name)
    client = client_of(origin, cache)
    client.get(URL, headers={name: one})

    assert status_of(client.get(URL, headers={name: same})) == HIT
    assert origin.calls == 1


@pytest.mark.parametrize("vary", [["*"], ["Accept, *"], ["Accept", "*"], [" * "]])
def test_star_anywhere_is_never_stored(cache, clock, vary):
    """RFC 9110, section 12.5.5."""
    origin = VersionedOrigin()
    origin.fields = [("Vary", value.strip()) for value in vary]
    client = client_of(origin, cache)

    for _ in range(2):
        assert status_of(client.get(URL)) == "cachemw; fwd=uri-miss; detail=vary"
    assert cache.get_cached_images() == []


def test_only_so_many_are_kept_and_the_oldest_goes_first(client, origin, cache, clock):
    languages = [f"x-{number}" for number in range(MOST_VARIANTS + 2)]
    for language in languages:
        ask(client, language)
        clock.tick(1)

    assert len(cache.get_cached_images()) == len(entries(cache)) == MOST_VARIANTS
    for language in languages[2:]:
        response = ask(client, language)
        assert (status_of(response), response.body) == (HIT, text(language))
    assert (status_of(ask(client, "x-0")), ask(client, "x-0").body) == (VARY_MISS, text("x-0"))


def test_same_variant_that_came_meanwhile_is_replaced(client, origin, cache):
    ask(client, "de")

    def overtaken(environ):
        origin.before = lambda environ: None
        ask(client, "en")

    origin.before = overtaken
    assert ask(client, "en").body == text("en")

    assert len(entries(cache)) == 2
    assert ask(client, "en").body == text("en")


def test_image_that_does_not_vary_any_more_is_for_all(client, origin, cache, clock):
    for language in LANGUAGES:
        ask(client, language)
    clock.tick(LATER)
    origin.varies, origin.version = (), 2
    assert ask(client, "nl").body == text(version=2)

    for language in ["nl", "sv", "de"]:
        response = ask(client, language)
        assert (status_of(response), response.body) == (HIT, text(version=2))


def test_vary_that_changes(client, origin, clock):
    """What is stored for other fields than the app looks at now takes nobody's place."""
    ask(client, "de", Accept="image/png")
    clock.tick(LATER)
    origin.varies, origin.version = ("Accept-Language", "Accept"), 2

    png, webp = "image/png", "image/webp"
    assert ask(client, "de", Accept=png).body == text("de", png, version=2)
    assert ask(client, "de", Accept=webp).body == text("de", webp, version=2)
    calls = origin.calls
    for accept in (png, webp, png, webp):
        response = ask(client, "de", Accept=accept)
        assert (status_of(response), response.body) == (HIT, text("de", accept, version=2))
    assert origin.calls == calls


def test_vary_that_changes_with_a_304(client, origin, clock):
    """The stored one is for fewer, or for more, from then on."""
    ask(client, "de")
    clock.tick(LATER)
    origin.is_conditional = False
    own = origin._is_known
    origin._is_known = lambda environ: "HTTP_IF_NONE_MATCH" in environ or own(environ)
    origin.is_conditional = True

    def narrow(environ):
        origin.fields_304 = [("Vary", "Accept-Language, Accept")]
        origin.tag = '"6465-1"'

    origin.before = narrow
    assert status_of(ask(client, "de", Accept="image/png")) == HELD
    origin.before = lambda environ: None

    assert status_of(ask(client, "de", Accept="image/png")) == HIT
    assert status_of(ask(client, "de", Accept="image/webp")) == VARY_MISS


# Fields that are not in the key


class Silent(Translated):
    """Looks at a field and does not say so."""

    def __call__(self, environ, start_response):
        def start(status, headers, *exc_info):
            return start_response(status, [p for p in headers if p[0] != "Vary"], *exc_info)

        return super().__call__(environ, start)


@pytest.mark.parametrize("name", storing.UNKEYED)
def test_field_that_apps_take_for_the_host_makes_a_variant(cache, clock, name):
    """Nobody can put their own version under everyone's URI."""
    origin = Silent(name)
    client = client_of(origin, cache)
    evil = {name: "evil.example"}
    assert client.get(URL, headers=evil).body == text("evil.example")

    assert client.get(URL).body == text("")
    assert (status_of(client.get(URL)), client.get(URL).body) == (HIT, text(""))
    clock.tick(LATER)
    client.get(URL, headers={**evil, "Cache-Control": "no-cache"})
    assert client.get(URL).body == text("")
    clock.tick(LATER)
    origin.version = 2
    client.get(URL, headers=evil)
    assert client.get(URL).body == text("", version=2)
    assert client.get(URL, headers={name: "other.example"}).body != text("evil.example", version=2)


def test_fields_of_a_304_to_a_forged_host_do_not_reach_others(cache, clock):
    origin = VersionedOrigin()
    client = client_of(origin, cache)
    client.get(URL)
    clock.tick(LATER)
    origin.fields_304 = [("Link", "<http://evil.example/>")]
    client.get(URL, headers={"X-Forwarded-Host": "evil.example"})
    origin.fields_304 = []

    for _ in range(2):
        assert "Link" not in client.get(URL).headers


# One of them at a time


def test_asking_about_one_leaves_the_others(client, origin, clock):
    for language in LANGUAGES:
        ask(client, language)
    clock.tick(LATER)

    assert status_of(ask(client, "fr")) == HELD
    assert [status_of(ask(client, language)) for language in LANGUAGES] == [HELD, HELD, HIT, HELD]
    assert origin.asked[4] == {"IF_NONE_MATCH": f'"{b"fr".hex()}-1"'}


def test_new_version_of_one_leaves_the_others(client, origin, cache, clock):
    for language in LANGUAGES:
        ask(client, language)
    clock.tick(LATER)
    origin.version = 2

    assert ask(client, "fr").body == text("fr", version=2)
    origin.before = lambda environ: 1 / 0
    for language in ("de", "en", "it"):
        stale = ask(client, language, **{"Cache-Control": "max-stale"})
        assert (status_of(stale), stale.body) == (HIT, text(language))
    assert (status_of(ask(client, "fr")), ask(client, "fr").body) == (HIT, text("fr", version=2))
    assert len(entries(cache)) == len(LANGUAGES)


def test_eviction_of_the_first_leaves_the_others_in_use(client, origin, cache):
    for language in LANGUAGES:
        ask(client, language)
    remove_first(cache)

    for language in LANGUAGES[1:]:
        response = ask(client, language)
        assert (status_of(response), response.body) == (HIT, text(language))
    assert (status_of(ask(client, "de")), ask(client, "de").body) == (VARY_MISS, text("de"))
    assert status_of(ask(client, "de")) == HIT
    assert len(entries(cache)) == len(LANGUAGES)


def test_image_is_cached_as_long_as_one_of_its_variants_is(client, cache):
    ask(client, "de")
    ask(client, "en")
    found = image_id(cache)
    remove_first(cache)

    assert cache.is_cached(found)
    assert cache.get_image_size(found) == len(text("en"))
    with cache.open_for_read(found) as entry:
        assert entry.read() == text("en")
    assert cache.get_hit_count(found) == 1
    assert not cache.queue_image(found)


@pytest.mark.parametrize("how", ["delete", "DELETE", "404"])
def test_all_go_together(client, origin, cache, clock, how):
    for language in LANGUAGES:
        ask(client, language)
    if how == "delete":
        assert cache.delete_cached_image(image_id(cache))
    elif how == "DELETE":
        client.delete(URL)
    else:
        clock.tick(LATER)
        origin.status = "404 Not Found"
        client.get(URL, headers={"Accept-Language": "fr"}, status=404)

    assert cache.get_cached_images() == []
    assert entries(cache) == set()
    assert cache.get_cache_size() == cache.driver.get_usage() == 0


# What is said about them


def test_each_is_listed_with_its_own_size_and_hits(client, cache):
    ask(client, "de")
    ask(client, "english")
    for _ in range(2):
        ask(client, "english")

    images = cache.get_cached_images()
    assert len({image["image_id"] for image in images}) == 1
    assert {(image["size"], image["hits"]) for image in images} == {
        (len(text("de")), 0),
        (len(text("english")), 2),
    }
    assert cache.get_cache_size() == len(text("de")) + len(text("english"))
    assert cache.get_hit_count(image_id(cache)) == 2


def test_file_of_each_is_named_by_id_and_number(client, cache):
    for language in LANGUAGES:
        ask(client, language)
    found = image_id(cache)

    assert entries(cache) == {names.entry_name(found, number) for number in range(4)}


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_they_are_there_after_a_restart(client, origin, cache, tmp_path, driver_name, index):
    for language in LANGUAGES:
        ask(client, language)
    ask(client, "fr")
    before = cache.get_cached_images()
    cache.close()
    if index == "lost":
        for name in os.listdir(tmp_path / "cache"):
            if name.startswith("cache.db") or name == ".lock":
                os.unlink(tmp_path / "cache" / name)

    again = ImageCache(dir=tmp_path / "cache", driver=driver_name)
    listed = again.get_cached_images()

    def known(images):
        return sorted((image["image_id"], image["size"], image["checksum"]) for image in images)

    assert known(listed) == known(before)
    assert again.get_cache_size() == sum(len(text(language)) for language in LANGUAGES)
    client = client_of(origin, again)
    for language in LANGUAGES:
        response = ask(client, language)
        assert (status_of(response), response.body) == (HIT, text(language))
    again.close()


def test_damaged_one_is_fetched_anew_and_the_others_stay(client, origin, cache):
    for language in LANGUAGES:
        ask(client, language)
    path = os.path.join(cache.settings.dir, names.entry_name(image_id(cache), 2))
    with open(path, "ab") as file:
        file.write(b"more")

    assert (ask(client, "fr").body, origin.calls) == (text("fr"), 5)
    assert [status_of(ask(client, language)) for language in LANGUAGES] == [HIT] * 4
    (invalid,) = cache.driver.get_invalid_images()
    assert invalid["image_id"] == image_id(cache)


def test_bounds_hold_and_what_is_served_is_right(driver_name, tmp_path, clock):
    size = len(text("x-00"))
    origin = Translated()
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, max_size=5 * size, min_free=0)
    client = client_of(origin, cache)
    for number in [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 3, 0, 1, 9, 2, 2]:
        language = f"x-{number:02}"
        assert ask(client, language).body == text(language)
        assert cache.driver.get_usage() <= 5 * size
    cache.close()


def test_image_whose_name_is_its_checksum_is_the_same_for_all(cache, clock):
    """Also after an answer that repeats the Vary."""
    origin = VersionedOrigin()
    origin.fields = origin.fields_304 = [("Vary", "Accept")]
    options = {"preset": "registry", "freshness": "http", "authorize": "off"}
    client = client_of(origin, cache, **options)
    url = f"/v2/cat/blobs/{sha256(origin.body)}"
    client.get(url, headers={"Accept": "image/png"})
    assert status_of(client.get(url, headers={"Accept": "image/webp"})) == HIT
    clock.tick(LATER)

    assert status_of(client.get(url, headers={"Accept": "image/png"})) == (
        "cachemw; fwd=stale; fwd-status=200"
    )
    assert status_of(client.get(url, headers={"Accept": "image/webp"})) == HIT
