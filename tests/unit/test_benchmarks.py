"""The benchmarks' own code: figures, tables, processes, load and servers."""

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir() or not sys.platform.startswith("linux"),
    reason="needs a checkout, on Linux",
)

SCRIPTS = ("fills", "hit", "listing", "memory", "miss", "prune")

WRK = """\
Running 1s test @ http://127.0.0.1:8000/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.05ms    1.02ms  11.60ms   80.00%
    Req/Sec     2.60k   200.00     3.01k    70.00%
  2839 requests in 1.10s, 11.60MB read
Requests/sec:   2580.90
Transfer/sec:     10.55MB
"""


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_harness")


def test_ratio_is_taken_within_each_round(harness):
    row = harness.Row("what", "s", reference=[1, 2, 4], measured=[2, 2, 12], goal=1.5)

    assert row.results == [2, 1, 3]
    assert row.result == 2
    assert row.met is False
    assert row.as_json()["highest"] == 3


def test_goal_can_be_a_lower_bound(harness):
    row = harness.Row("what", "MiB/s", [100.0], [96.0], goal=0.95, at_least=True)

    assert row.met is True


def test_difference_and_figure_itself(harness):
    assert harness.Row("what", "us", [400.0], [450.0], "difference").result == 50
    assert harness.Row("what", "s", [400.0], [450.0], "itself").result == 450
    assert harness.Row("what", "s", [400.0], [450.0]).met is None


def test_columns_line_up(harness):
    rows = [
        harness.Row("a", "s", [1.0], [2.0], goal=1.5),
        harness.Row("a longer name", "MiB/s", [1234.5], [2345.6]),
    ]

    lines = harness.table(rows).splitlines()

    assert lines[0].index("kind") == lines[1].index("ratio") == lines[2].index("ratio")
    assert "MISSED" in lines[1]


def test_rounds_go_forwards_and_backwards(harness):
    order = []

    def measure(name):
        order.append(name)
        return 1.0

    figures = harness.in_turns(3, {"a": lambda: measure("a"), "b": lambda: measure("b")})

    assert "".join(order) == "abbaab"
    assert figures == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_report_of_wrk_is_read(harness):
    load = harness.parse_wrk(WRK)

    assert (load.requests, load.seconds) == (2839, pytest.approx(1.1))


@pytest.mark.parametrize(
    "trouble",
    ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 7\n"],
)
def test_report_of_wrk_with_errors_is_no_figure(harness, trouble):
    with pytest.raises(harness.BenchmarkError, match=r"Socket|Non"):
        harness.parse_wrk(WRK.replace("Requests/sec", f"{trouble}Requests/sec"))


def test_process_tree_has_the_children(harness):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in harness.process_tree(os.getpid())
    finally:
        child.communicate(b"\n")


def test_memory_is_read_in_bytes(harness):
    assert harness.memory(os.getpid(), "VmHWM") >= harness.memory(os.getpid(), "VmRSS") > 2**20


def test_workplace_is_removed_and_needs_its_room(harness, tmp_path):
    with pytest.raises(ValueError, match="stop"), harness.workplace(str(tmp_path)) as place:
        (place / "file").write_bytes(b"x")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(harness.BenchmarkError, match="free"),
        harness.workplace(str(tmp_path), wanted=2**60),
    ):
        pass


def test_made_file_has_its_length(harness, tmp_path):
    for size in (5, 2**20, 2**20 + 3):
        assert harness.make_file(tmp_path / "file", size).stat().st_size == size


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass


@pytest.fixture
def answers():
    """A server of one thread, and what it answers: status and body."""
    said = {"status": "200 OK", "body": b"x" * 100_000}

    def app(environ, start_response):
        start_response(said["status"], [("Content-Length", str(len(said["body"])))])
        return [said["body"]]

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", said
        server.shutdown()
        thread.join()


def test_client_counts_whole_answers():
    """Keeps its connections, and reads answers that come in pieces."""
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                for _ in range(3):
                    requests.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-")
                    connection.sendall(b"length: 6\r\n\r\nabc")
                    connection.sendall(b"def")
                connection.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
        done = run(BENCHMARKS / "_client.py", url, "--requests", "3")
        thread.join()

    assert json.loads(done.stdout)["requests"] == 3
    assert requests[0].startswith(b"GET /a HTTP/1.1\r\n")


def test_client_refuses_another_status(answers):
    url, said = answers
    said["status"] = "404 Not Found"

    done = run(BENCHMARKS / "_client.py", url)

    assert done.returncode == 1
    assert "404" in done.stderr


def test_load_works_without_wrk(harness, answers, monkeypatch):
    url, _ = answers
    monkeypatch.setattr(harness.shutil, "which", lambda name: None)

    assert harness.download(url) > 0


def test_server_is_measured_and_ended(harness, tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "image.bin").write_bytes(b"x" * 5000)

    with harness.gunicorn("bare", {"BENCH_IMAGES": str(tmp_path)}, tmp_path / "log") as server:
        assert server.get("/image.bin").status == 200
        assert len(harness.process_tree(server.process.pid)) == 2
        assert server.cpu_seconds() > 0
        with pytest.raises(harness.BenchmarkError, match="FileNotFoundError"):
            server.get("/missing.bin")

    assert server.process.poll() is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_image_stays_cached_when_another_server_has_another_port(harness, tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "image.bin").write_bytes(b"x" * 5000)
    settings = {"BENCH_IMAGES": str(tmp_path / "images"), "BENCH_CACHE": str(tmp_path / "cache")}

    said = []
    for _ in range(2):
        with harness.gunicorn("cached", settings, tmp_path / "log") as server:
            said.append(server.get("/image.bin").headers["Cache-Status"])

    assert said == ["cachemw; fwd=uri-miss; stored", "cachemw; hit"]


def test_server_that_cannot_start_says_why(harness, tmp_path):
    pytest.importorskip("gunicorn")

    with (
        pytest.raises(harness.BenchmarkError, match="nothing"),
        harness.gunicorn("nothing", {}, tmp_path / "log") as server,
    ):
        server.get("/")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_has_the_common_options(script):
    done = run(BENCHMARKS / f"{script}.py", "--help")

    assert done.returncode == 0
    assert all(option in done.stdout for option in ("--rounds", "--quick", "--json", "--dir"))


def test_prune_runs_and_writes_its_figures(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    figures = tmp_path / "figures.json"

    done = run(
        *(BENCHMARKS / "prune.py", "--entries", "20", "--rounds", "1"),
        *("--dir", place, "--json", figures),
    )

    assert done.returncode == 0, done.stderr
    assert "sqlite: 20 entries pruned to half" in done.stdout
    assert len(json.loads(figures.read_text())["rows"]) == 4
    assert list(place.iterdir()) == []


def test_growth_is_measured(tmp_path):
    done = run(
        *(BENCHMARKS / "prune.py", "--million", "--many", "1200", "--rounds", "1"),
        *("--operations", "5", "--dir", tmp_path),
    )

    assert done.returncode == 0, done.stderr
    assert "eviction of one" in done.stdout
    assert list(tmp_path.iterdir()) == []


# Cold images that many want


@pytest.fixture
def fills(harness):
    return importlib.import_module("fills")


@pytest.fixture
def origin(fills):
    with fills.Origin.running() as running:
        yield running


def url(origin, path):
    return f"http://127.0.0.1:{origin.port}{path}"


def test_crowd_gets_all_and_the_origin_tells_what_it_sent(fills, origin):
    path = origin.image(3_000_000, 0)

    clients = fills.crowd([url(origin, path)], 5)

    told = origin.told(path)
    assert [client["bytes"] for client in clients] == [3_000_000] * 5
    assert (told["requests"], told["bytes"]) == (5, 15_000_000)
    for client in clients:
        assert client["began"] <= client["first"] <= client["done"]
    assert told["first"] <= min(client["first"] for client in clients)
    assert origin.told(origin.image(3_000_000, 0))["requests"] == 0


def test_crowd_gets_a_part(fills, origin):
    path = origin.image(3_000_000, 0)

    (client,) = fills.crowd([url(origin, path)], 1, "--range", "1000-1999")

    assert client["bytes"] == origin.told(path)["bytes"] == 1000


def test_origin_is_no_faster_than_its_rate_and_waits_before(fills, origin):
    path = origin.image(1_000_000, 4_000_000, latency=0.1)

    (client,) = fills.crowd([url(origin, path)], 1)

    # The first piece is sent at once, all others when they are due.
    assert client["done"] - client["first"] >= 0.2
    assert client["first"] - client["began"] >= 0.1


def test_slow_client_is_slow(fills, origin):
    path = origin.image(1_000_000, 0)

    (client,) = fills.crowd([url(origin, path)], 1, "--rate", "4000000")

    assert client["bytes"] == 1_000_000
    assert client["done"] - client["first"] >= 0.15


def test_silent_origin_breaks_off_when_the_silence_ends(fills, origin):
    path = origin.image(1000, "silent")

    with (
        fills.started_crowd([url(origin, path)], 1) as clients,
        origin.releasing(path),
    ):
        fills.wait_until(lambda: origin.told(path)["requests"] == 1, "the origin is asked")
        assert clients.poll() is None
    with pytest.raises(fills.BenchmarkError, match="missing"):
        fills.crowd([url(origin, path)], 1)


def test_crowd_refuses_another_status(fills, answers):
    where, said = answers
    said["status"] = "404 Not Found"

    with pytest.raises(fills.BenchmarkError, match="404"):
        fills.crowd([where], 2)


def test_our_figures_have_goals_and_ratios_to_the_others(fills):
    goals = {"time": fills.Goal("s", 0.5), "second": fills.Goal("requests", 0, compared=False)}
    figures = {
        "one process": [{"time": 1.0, "second": 0.0}],
        "nginx": [{"time": 4.0, "second": 1.0}],
        "Varnish": [{"time": 0.0, "second": 0.0}],
    }

    rows = fills.rows_of("a", goals, figures)

    assert [row.what for row in rows] == [
        "a: time, one process",
        "a: time, one process / nginx",
        "a: time, one process / Varnish",
        "a: second, one process",
    ]
    assert [row.met for row in rows] == [False, None, None, True]
    assert rows[1].result == 0.25


def test_caches_that_are_not_installed_are_named(fills, monkeypatch, capsys):
    monkeypatch.setattr(fills.caches.shutil, "which", lambda name, path: None)

    assert fills.others() == []
    said = capsys.readouterr().err
    assert "nginx is not installed" in said
    assert "Varnish is not installed" in said


@pytest.mark.parametrize(("program", "name"), [("nginx", "nginx"), ("varnishd", "varnish")])
def test_other_caches_ask_the_origin_once(fills, origin, tmp_path, program, name):
    why = fills.caches.missing(program, name)
    if why:
        pytest.skip(why)
    path = origin.image(1_000_000, 4_000_000)

    with getattr(fills.caches, name)()(tmp_path, origin.port) as cache:
        clients = fills.crowd(cache.urls(path), 10)

    assert [client["bytes"] for client in clients] == [1_000_000] * 10
    assert origin.told(path)["requests"] == 1


def test_nginx_fetches_the_slices_of_a_part_only(fills, origin, tmp_path):
    why = fills.caches.missing("nginx", "nginx")
    if why:
        pytest.skip(why)
    path = origin.image(3 * 2**20, 0)

    with fills.caches.nginx(slices=True)(tmp_path, origin.port) as cache:
        (client,) = fills.crowd(cache.urls(path), 1, "--range", f"{2 * 2**20}-{3 * 2**20 - 1}")

    assert client["bytes"] == origin.told(path)["bytes"] == 2**20


def test_our_cache_stands_in_front_of_the_origin(fills, origin, tmp_path):
    pytest.importorskip("gunicorn")
    path = origin.image(1_000_000, 0)

    with fills.caches.ours("ours", servers=2)(tmp_path, origin.port) as cache:
        for _ in range(2):
            fills.crowd(cache.urls(path), 1)
        last = cache.servers[1].get(path)

    assert last.headers["Cache-Status"] == "cachemw; hit"
    assert origin.told(path)["requests"] == 1


def test_fills_refuses_a_case_that_there_is_not():
    done = run(BENCHMARKS / "fills.py", "--only", "a,z")

    assert done.returncode == 2
    assert "--only" in done.stderr


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
