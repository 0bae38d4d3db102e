"""What one process of those on a directory does for all of them."""

import os
import time

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.core import history, live, statistics, upkeep
from cachemw.core.upkeep import Attendant, Election, Upkeep
from tests.functional.fills import MIB, content, start_reading
from tests.ranged import RangedOrigin
from tests.waiting import wait_until
from tests.wsgi import get

PATH = "/disk.img"
BODY = content(100_000)
NOW = time.time()


@pytest.fixture
def make(tmp_path):
    made = []

    def make(**options):
        options = {"min_free": 0, **options}
        made.append(ImageCache(dir=tmp_path / "cache", **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_one_of_several_is_elected_and_another_takes_its_place(make):
    directory = make().driver.directory
    first, second = Election(directory), Election(directory)

    assert [first.is_won(), second.is_won(), first.is_won()] == [True, False, True]

    first.close()
    assert second.is_won()
    second.close()


def test_child_of_the_elected_is_not(make):
    """And its parent goes on being it, when the child ends and while it lives."""
    cache = make()
    parent = Upkeep(cache)
    parent.step()
    assert not Election(cache.driver.directory).is_won()

    child = os.fork()
    if not child:
        os._exit(parent._election.is_won())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert not Election(cache.driver.directory).is_won()
    parent.end()


def test_cache_that_others_let_grow_is_pruned(make):
    cache = make(max_size=10**6)
    for number in range(5):
        cache.cache_image_iter(number, [BODY])
    cache.capacity.max_size = 250_000

    Attendant(NOW).attend(cache, NOW)

    assert cache.get_cache_size() == 200_000


def test_what_failed_is_kept_for_a_day(make):
    cache = make()
    with pytest.raises(ValueError, match="broken"), cache.driver.open_for_write("cat") as sink:
        sink.write(b"half")
        raise ValueError("broken")
    (failed,) = cache.driver.get_invalid_images()
    attendant = Attendant(NOW)

    attendant.attend(cache, time.time())
    assert [one["reason"] for one in cache.driver.get_invalid_images()] == ["broken"]

    path = cache.driver.get_image_filepath("cat", "invalid")
    os.utime(path, (0, failed["last_modified"] - upkeep.KEEP_INVALID - 1))
    attendant.attend(cache, time.time() + 601)
    assert cache.driver.get_invalid_images() == []


def test_damage_is_found_by_reading_again(make, tmp_path):
    cache = make(scrub_interval=100)
    for name in ("cat", "dog"):
        cache.cache_image_iter(name, [BODY])
    with (tmp_path / "cache" / "dog").open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    attendant = Attendant(NOW)

    for step in range(1, 150):
        attendant.attend(cache, NOW + step)

    assert cache.is_cached("cat")
    assert not cache.is_cached("dog")
    assert "dog" in [one["image_id"] for one in cache.driver.get_invalid_images()]


def test_reading_again_keeps_to_its_share(make, monkeypatch):
    """An image is read whole, so that the next has to wait for the share of this one."""
    cache = make(scrub_interval=100)
    for number in range(10):
        cache.cache_image_iter(number, [BODY])
    read = []
    scrub = cache.scrub

    def counted(budget):
        read.append(scrub(budget))
        return read[-1]

    monkeypatch.setattr(cache, "scrub", counted)
    attendant = Attendant(NOW)

    for step in range(1, 101):
        attendant.attend(cache, NOW + step)

    assert 9 <= sum(one.images for one in read) <= 11


def test_trouble_with_one_duty_keeps_nobody_from_the_others(make, monkeypatch, caplog):
    cache = make()
    monkeypatch.setattr(cache, "prune", lambda: 1 / 0)

    Attendant(NOW).attend(cache, NOW)

    assert "division by zero" in caplog.text
    assert len(history.read(cache.driver.directory, 0.0)) == 1


def test_samples_are_ten_seconds_apart(make):
    cache = make()
    attendant = Attendant(NOW)

    for step in range(60):
        attendant.attend(cache, NOW + step)

    times = [sample.time for sample in history.read(cache.driver.directory, 0.0)]
    assert 6 <= len(times) <= 7
    assert len({time // 10 for time in times}) == len(times)


def test_servers_attend_from_their_first_request_on(tmp_path):
    app = CacheFilter(RangedOrigin(BODY), dir=tmp_path / "cache", min_free=0)
    assert not (tmp_path / "cache" / upkeep.NAME).exists()

    get(app, PATH)

    directory = app.cache.driver.directory
    wait_until(lambda: history.read(directory, 0.0), "a sample is there")
    assert not Election(directory).is_won()
    app.cache.close()
    last = Election(directory)
    assert last.is_won()
    last.close()


def test_fills_of_every_process_are_told_with_their_followers(world):
    body = content(2 * MIB)
    image = world.origin.put(PATH, body)
    gate = image.gate(MIB)
    first, second = world.pair("other")
    leader = start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(2)]

    with world.cache() as cache:
        directory = cache.driver.directory

        def told():
            return [
                (row["received"], row["length"], row["followers"])
                for row in live.rows(directory, time.time())
            ]

        wait_until(lambda: told() == [(MIB, 2 * MIB, 2)], "it is told")
        (fill,) = statistics.snapshot(cache)["fills"]
        assert fill["image_id"].endswith(PATH)
        assert fill["rate"] > 0
        gate.open()
        for reader in (leader, *followers):
            assert reader.result().body == body
        wait_until(lambda: told() == [], "it is over")


# The snapshot


def test_snapshot_says_what_there_is(make):
    cache = make(max_size="1GiB")
    for number in range(12):
        cache.cache_image_iter(f"image {number}", [BODY[: 1000 * (number + 1)]])
    for _ in range(3):
        with cache.open_for_read("image 5"):
            pass
    cache.driver.flush_hits()

    found = statistics.snapshot(cache)

    assert found["images"] == 12
    assert found["size"]["entries"] == sum(1000 * (number + 1) for number in range(12))
    assert found["size"]["max"] == 2**30
    assert [one["image_id"] for one in found["biggest"][:2]] == ["image 11", "image 10"]
    assert found["hottest"][0]["image_id"] == "image 5"
    assert len(found["coldest"]) == 10
    assert found["rates"]["10s"] == {
        "requests": 0.0,
        "bytes": 0.0,
        "bytes_cache": 0.0,
        "bytes_app": 0.0,
        "hit_ratio": None,
        "byte_hit_ratio": None,
    }


def test_rates_are_of_the_time_that_is_just_past(tmp_path):
    app = CacheFilter(RangedOrigin(BODY), dir=tmp_path / "cache", min_free=0)
    cache = app.cache
    app._background.end()  # whose samples would be others
    history.put(
        cache.driver.directory, history.sample_of(time.time() - 10, {}, 0, 0)._replace(requests=0)
    )
    for _ in range(10):
        get(app, PATH)

    rates = statistics.snapshot(cache)["rates"]["10s"]

    assert 0.5 < rates["requests"] <= 1.0
    assert rates["hit_ratio"] == 0.9
    assert rates["byte_hit_ratio"] == pytest.approx(0.9)
    cache.close()


def test_lists_that_take_long_are_made_seldom(make, monkeypatch):
    cache = make()
    calls = []
    find_images = cache.driver.find_images

    def slow(**query):
        calls.append(query)
        time.sleep(0.05)
        return find_images(**query)

    monkeypatch.setattr(cache.driver, "find_images", slow)

    for _ in range(3):
        statistics.snapshot(cache)

    assert len(calls) == 3
