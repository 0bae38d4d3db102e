"""The filter on the servers that people run it on."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from cachemw import ImageCache

BODY = os.urandom(3_000_000)
APP = "tests.functional.served_app:app"
ROOT = Path(__file__).parents[2]

#: Seconds after which a server that does not answer has failed.
PATIENCE = 30

UWSGI = shutil.which("pyuwsgi") or str(Path(sys.executable).with_name("pyuwsgi"))


def gunicorn(worker_class):
    def command(port):
        pytest.importorskip("gunicorn", reason="gunicorn is not installed")
        options = ["--workers", "2", "--threads", "4", "--worker-class", worker_class]
        return [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", *options, APP]

    return command


def uwsgi(*options):
    def command(port):
        if not os.path.exists(UWSGI):
            pytest.skip("uWSGI (pyuwsgi) is not installed")
        return [
            UWSGI,
            *("--http11-socket", f"127.0.0.1:{port}", "--module", APP, "--master"),
            *("--processes", "2", "--die-on-term", "--disable-logging", "--need-app"),
            *("--home", sys.prefix, "--pythonpath", str(ROOT), *options),
        ]

    return command


def waitress(port):
    pytest.importorskip("waitress", reason="waitress is not installed")
    return [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", APP]


def wsgiref(port):
    code = (
        "import importlib, sys; from wsgiref.simple_server import make_server\n"
        "module, _, name = sys.argv[1].partition(':')\n"
        "app = getattr(importlib.import_module(module), name)\n"
        "make_server('127.0.0.1', int(sys.argv[2]), app).serve_forever()\n"
    )
    return [sys.executable, "-c", code, APP, str(port)]


SERVERS = {
    "gunicorn-gthread": gunicorn("gthread"),
    "gunicorn-sync": gunicorn("sync"),
    # Loaded before the fork and after it, with threads and without.
    "uwsgi-prefork": uwsgi("--threads", "4"),
    "uwsgi-lazy": uwsgi("--threads", "4", "--lazy-apps"),
    "uwsgi-without-threads": uwsgi(),
    "waitress": waitress,
    "wsgiref": wsgiref,
}


#: Without threads, hits are written when the next ones come, for which nobody can wait.
COUNT_AT_REST = sorted(set(SERVERS) - {"uwsgi-without-threads"})


@contextmanager
def running(command, directory):
    """Run a server; gives its URL and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port),
            cwd=ROOT,
            env={**os.environ, "CACHEMW_TEST_DIR": str(directory), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_it_listens(process, port, log)
        yield f"http://127.0.0.1:{port}/"
    finally:
        # Python itself ends at once on SIGTERM where the server does not handle it.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_listens(process, port, log):
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            continue
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def get(url, **headers):
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=PATIENCE
    ) as response:
        return response.status, response.headers, response.read()


def hits_of_the_image(directory):
    cache = ImageCache(dir=directory / "cache")
    try:
        return cache.get_cached_images()[0]["hits"]
    finally:
        cache.close()


def wait_for_hits(directory, count):
    """Wait until so many hits are written: a second after the last, while nothing happens."""
    deadline = time.monotonic() + PATIENCE
    while (hits := hits_of_the_image(directory)) < count and time.monotonic() < deadline:
        pass
    assert hits == count


@pytest.mark.parametrize("server", SERVERS)
def test_miss_hits_and_parts_are_right_and_every_hit_is_counted(server, tmp_path):
    """uWSGI sends files from byte 0 whatever their offset, and has threads only if asked."""
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "disk.img").write_bytes(BODY)
    with running(SERVERS[server], tmp_path) as url:
        status, miss, body = get(f"{url}disk.img")
        assert (status, body == BODY) == (200, True)
        assert miss["Cache-Status"] == "cachemw; fwd=uri-miss; stored"
        assert miss["Content-Length"] == str(len(BODY))
        (tmp_path / "origin" / "disk.img").unlink()
        for _ in range(5):
            status, hit, body = get(f"{url}disk.img")
            assert (status, body == BODY) == (200, True)
            assert hit["Cache-Status"] == "cachemw; hit"
        status, part, body = get(f"{url}disk.img", Range="bytes=1000000-1999999")
        assert (status, body == BODY[1000000:2000000]) == (206, True)
        assert part["Content-Range"] == f"bytes 1000000-1999999/{len(BODY)}"
        status, parts, body = get(f"{url}disk.img", Range="bytes=0-9,2000000-2000009")
        assert status == 206
        assert BODY[:10] in body
        assert BODY[2000000:2000010] in body
        assert parts["Content-Length"] == str(len(body))
        if server in COUNT_AT_REST:
            wait_for_hits(tmp_path, 7)


@pytest.mark.parametrize("server", COUNT_AT_REST)
def test_hits_of_clients_that_left_are_counted(server, tmp_path):
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "disk.img").write_bytes(BODY * 4)
    with running(SERVERS[server], tmp_path) as url:
        host = url.removeprefix("http://").rstrip("/")
        get(f"{url}disk.img", Host=host)
        address, _, port = host.partition(":")
        for _ in range(10):
            with socket.create_connection((address, int(port)), timeout=PATIENCE) as client:
                client.sendall(b"GET /disk.img HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
                assert client.recv(1000)
        assert get(f"{url}disk.img", Range="bytes=0-9")[2] == BODY[:10]
        # A server closes a response when it notices that its client left.
        wait_for_hits(tmp_path, 11)

    assert hits_of_the_image(tmp_path) == 11
