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

SCRIPTS = ("hit", "memory", "miss", "prune")

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


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
