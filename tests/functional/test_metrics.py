"""What is counted of requests, bytes and fills: what clients saw, whatever became of processes."""

import collections
import concurrent.futures
import os

import pytest

from cachemw import CacheFilter
from cachemw.drivers.base import CHUNK
from cachemw.metrics.totals import totals
from cachemw.web.measuring import outcome_in
from tests.functional.fills import MIB, content, start_reading
from tests.ranged import RangedOrigin
from tests.waiting import wait_until
from tests.wsgi import begin, get

PATH = "/disk.img"
BODY = content(3 * CHUNK + 5)


@pytest.fixture
def origin():
    return RangedOrigin(BODY)


@pytest.fixture
def make(tmp_path, origin):
    made = []

    def make(app=origin, **options):
        made.append(CacheFilter(app, dir=tmp_path / "cache", min_free=0, **options))
        return made[-1]

    yield make
    for one in made:
        one.cache.close()


def counted(app):
    """What is not 0, without the times."""
    found = totals(app.cache.driver.directory)
    return {
        name.removeprefix("cachemw_"): value
        for name, value in found.items()
        if value and "seconds" not in name
    }


def requests(app):
    found = counted(app)
    prefix = "requests_total{outcome="
    return {
        name.removeprefix(prefix).rstrip("}"): value
        for name, value in found.items()
        if name.startswith(prefix)
    }


# One process


def test_miss_and_hits_are_counted_with_their_bytes(make):
    app = make()

    for _ in range(3):
        assert get(app, PATH).body == BODY
    get(app, PATH, Range="bytes=0-9")
    get(app, PATH, If_None_Match='"one"')
    get(app, PATH, "HEAD")

    assert counted(app) == {
        "requests_total{outcome=hit}": 5,
        "requests_total{outcome=miss}": 1,
        "sent_bytes_total{outcome=hit}": 2 * len(BODY) + 10,
        "sent_bytes_total{outcome=miss}": len(BODY),
        "app_bytes_total": len(BODY),
        "fills_started_total": 1,
        "fills_committed_total": 1,
    }


def test_every_request_has_its_time_to_the_first_byte(make):
    app = make()
    for _ in range(3):
        get(app, PATH)

    found = totals(app.cache.driver.directory)

    for outcome, count in (("miss", 1), ("hit", 2)):
        name = f"cachemw_first_byte_seconds{{outcome={outcome}}}"
        assert sum(found[key] for key in found if key.startswith(f"{name} le ")) == count
        assert found[f"{name} sum"] > 0


def test_operations_of_the_driver_are_timed(make):
    app = make(memory_size=0)
    for _ in range(2):
        get(app, PATH)
    get(app, PATH, "DELETE")
    app.cache.delete_cached_image("none")
    app.cache.prune(0)

    found = totals(app.cache.driver.directory)

    for operation in ("open", "start", "commit", "delete"):
        name = f"cachemw_driver_seconds{{operation={operation}}}"
        assert sum(found[key] for key in found if key.startswith(f"{name} le ")), operation


def test_answers_that_are_not_stored_are_passed(make, origin):
    origin.fields = [("Cache-Control", "no-store")]
    app = make()

    get(app, PATH)
    get(app, PATH, X_HTTP_Method_Override="PUT")

    assert requests(app) == {"pass": 1, "bypass": 1}
    assert counted(app)["app_bytes_total"] == 2 * len(BODY)


def test_part_that_is_not_kept_is_counted_once(make, origin):
    """As it comes from the app, and as it goes to the client."""
    origin.etag = None
    app = make(range_miss="slice")

    get(app, PATH, Range="bytes=0-9")

    found = counted(app)
    assert requests(app) == {"pass": 1}
    assert found["app_bytes_total"] == CHUNK
    assert found["sent_bytes_total{outcome=pass}"] == 10


def test_answer_without_a_body_counts_no_bytes(make, origin):
    origin.fields += [("Content-Length", "1000")]
    app = make()

    assert get(app, PATH, If_None_Match='"one"').status == 304

    assert requests(app) == {"pass": 1}
    assert "sent_bytes_total{outcome=pass}" not in counted(app)


def test_revalidated_answers_are_counted_apart(make, origin):
    app = make(freshness="revalidate")
    for _ in range(2):
        get(app, PATH)

    assert requests(app) == {"miss": 1, "revalidated": 1}
    assert counted(app)["sent_bytes_total{outcome=revalidated}"] == len(BODY)
    assert counted(app)["app_bytes_total"] == len(BODY)


def test_app_that_raises_is_an_error(make):
    def fails(environ, start_response):
        raise OSError("down")

    app = make(fails)

    with pytest.raises(OSError, match="down"):
        get(app, PATH)

    assert requests(app) == {"error": 1}


def test_client_that_leaves_got_what_it_got(make):
    app = make(on_abort="discard")
    begun = begin(app, PATH)
    first = begun.step()
    begun._body.close()

    wait_until(lambda: "fills_rolled_back_total{reason=client}" in counted(app), "it is over")
    found = counted(app)
    assert found["sent_bytes_total{outcome=miss}"] == len(first)
    assert "fills" not in found


@pytest.mark.parametrize("case", ["checksum", "length", "app", "cache"])
def test_fill_that_comes_to_nothing_is_counted_by_its_reason(make, origin, case, monkeypatch):
    if case == "checksum":
        origin.fields.append(("Content-MD5", "0" * 32))
    elif case == "length":
        origin.bend = lambda asked, sent: sent.chunks.pop()
    elif case == "app":
        origin.bend = lambda asked, sent: sent.chunks.append(OSError("reset"))
    app = make()
    if case == "cache":
        app.cache.capacity.max_image_size = 2**40
        monkeypatch.setattr(
            "cachemw.drivers._sink.FileSink.write", lambda *args: (_ for _ in ()).throw(OSError())
        )

    get(app, PATH)

    found = counted(app)
    assert found["fills_started_total"] == 1
    assert found[f"fills_rolled_back_total{{reason={case}}}"] == 1
    assert "fills_committed_total" not in found


def test_parts_and_what_completes_them_count_as_the_apps_bytes(make, monkeypatch):
    monkeypatch.setattr("cachemw.web.slices.COMPLETED_FROM", 2.0)
    app = make(range_miss="slice")
    get(app, PATH, Range="bytes=0-9")
    get(app, PATH, Range="bytes=0-9")
    assert counted(app)["app_bytes_total"] == CHUNK

    get(app, PATH)

    found = counted(app)
    assert found["app_bytes_total"] == len(BODY)
    assert found["sent_bytes_total{outcome=miss}"] == 10 + len(BODY)
    assert found["fills_resumed_total"] == 1
    assert requests(app) == {"miss": 2, "hit": 1}


def test_evicted_images_are_counted(make):
    app = make()
    get(app, PATH)

    app.cache.prune(0)

    found = counted(app)
    assert found["evicted_images_total"] == 1
    assert found["evicted_bytes_total"] >= len(BODY)


@pytest.mark.parametrize(
    ("verify_reads", "damage"), [("first", "flip"), ("always", "flip"), ("size", "cut")]
)
def test_damage_is_counted(make, tmp_path, verify_reads, damage):
    app = make(verify_reads=verify_reads, memory_size=0)
    get(app, PATH)
    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.name.startswith("_"))
    with entry.open("r+b") as file:
        if damage == "flip":
            file.seek(1000)
            file.write(bytes([BODY[1000] ^ 1]))
        else:
            file.truncate(1000)

    assert get(app, PATH).body == BODY

    assert counted(app)["verification_failures_total"] == 1


def test_requests_that_are_no_image_are_not_counted(make):
    app = make(routes="/images/(?P<image_id>.+)")

    get(app, "/other")

    assert counted(app) == {}


# The access log


def test_log_has_a_line_for_each_request(make, tmp_path):
    app = make(access_log=str(tmp_path / "access"))

    get(app, PATH)
    get(app, PATH, Range="bytes=10-19")
    get(app, PATH + "?a b")
    get(app, PATH, "HEAD")

    lines = [line.split(" ") for line in (tmp_path / "access").read_text().splitlines()]
    size, url = str(len(BODY)), f"http://localhost{PATH}"
    assert [line[1:] for line in lines] == [
        ["miss", "200", size, size, url],
        ["hit", "206", size, "10", url],
        ["miss", "200", size, size, lines[2][5]],
        ["hit", "200", size, "0", url],
    ]
    assert [float(line[0]) for line in lines] == sorted(float(line[0]) for line in lines)


# Several processes


def test_counters_over_workers_equal_what_clients_counted(world):
    """Ten thousand requests to four workers, each of which is replaced several times."""
    paths = [f"/{number}" for number in range(40)]
    for number, path in enumerate(paths):
        world.origin.put(path, content(1000 + number))
    server = world.serve(workers=4, server_options=("--max-requests", "600"))
    before = set(server.workers())

    def ask(number):
        reply = server.request(paths[number % len(paths)])
        assert reply.complete
        return outcome_in([("Cache-Status", reply.headers["cache-status"])]), len(reply.body)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(ask, range(10_000)))

    expected_requests = collections.Counter(outcome for outcome, _ in seen)
    expected_bytes = collections.Counter()
    for outcome, size in seen:
        expected_bytes[outcome] += size
    assert not before & set(server.workers())
    with world.cache() as cache:
        directory = cache.driver.directory

        def found():
            return totals(directory)

        # A body that is streamed is counted when the server closes it, after its last byte.
        wait_until(
            lambda: sum(v for k, v in found().items() if "_requests_total" in k) >= len(seen),
            "all of them are counted",
        )
        for outcome in ("hit", "miss", "collapsed"):
            name = f"{{outcome={outcome}}}"
            assert found()[f"cachemw_requests_total{name}"] == expected_requests[outcome]
            assert found()[f"cachemw_sent_bytes_total{name}"] == expected_bytes[outcome]
        assert found()["cachemw_fills_committed_total"] == len(paths)
        assert found()["cachemw_app_bytes_total"] == sum(1000 + n for n in range(len(paths)))
        kept = [name for name in os.listdir(os.path.join(directory, ".stats")) if "counts" in name]
        assert len(kept) <= 4 + 1


@pytest.mark.parametrize("where", ["same", "other"])
def test_followers_are_counted_while_they_wait(world, where):
    body = content(2 * MIB)
    image = world.origin.put(PATH, body)
    gate = image.gate(MIB)
    first, second = world.pair(where)
    leader = start_reading(first, PATH)
    gate.wait()
    followers = [start_reading(second, PATH) for _ in range(3)]

    with world.cache() as cache:

        def gauges():
            found = totals(cache.driver.directory)
            return found["cachemw_fills"], found["cachemw_followers"]

        wait_until(lambda: gauges() == (1, 3), "three follow")
        gate.open()
        for reader in (leader, *followers):
            assert reader.result().body == body
        wait_until(lambda: gauges() == (0, 0), "nobody does any more")
        found = totals(cache.driver.directory)
    assert found["cachemw_requests_total{outcome=collapsed}"] == 3
    assert found["cachemw_app_bytes_total"] == len(body)


def test_killed_worker_takes_nothing_with_it(world):
    world.origin.put(PATH, content(1000))
    server = world.serve()
    for _ in range(5):
        server.request(PATH)

    world.kill_workers(server)

    with world.cache() as cache:
        found = totals(cache.driver.directory)
    assert found["cachemw_requests_total{outcome=hit}"] == 4
    assert found["cachemw_requests_total{outcome=miss}"] == 1
