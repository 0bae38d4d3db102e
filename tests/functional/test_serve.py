"""``cachemw serve`` and ``cachemw clean`` as an operator runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from cachemw import ImageCache
from cachemw.commands import main
from tests.upstreams import ScriptedUpstream, response

pytest.importorskip("gunicorn", reason="cachemw serve needs the extra 'serve'")

BODY = bytes(range(256)) * 4096  # 1 MiB
COMMAND = [sys.executable, "-c", "import sys; from cachemw.commands import main; sys.exit(main())"]


@pytest.fixture
def images(tmp_path):
    directory = tmp_path / "images"
    directory.mkdir()
    (directory / "cat.img").write_bytes(BODY)
    return directory


class Served:
    """A running ``cachemw serve``."""

    def __init__(self, process, url, output):
        self.process, self.url, self.output = process, url, output

    def get(self, path, **headers):
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read(), response.headers

    def stop(self, sig=signal.SIGINT):
        """End it; gives its exit status and all that it printed."""
        self.process.send_signal(sig)
        rest, _ = self.process.communicate(timeout=30)
        return self.process.returncode, self.output + rest


@contextmanager
def served(*arguments):
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("Stop with"):
                break
        else:
            raise AssertionError(f"it did not start: {output}")
        url = re.search(r"cachemw serves (http://\S+/)", output)[1]
        yield Served(process, url, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_dashboard_is_beside_the_images(images, tmp_path):
    with served("--images", images, "--dir", tmp_path / "cache") as server:
        server.get("cat.img")
        page, headers = server.get(".cachemw/")
        numbers, _ = server.get(".cachemw/stats")
        metrics, _ = server.get(".cachemw/metrics")
        body, _ = server.get("cat.img")

    assert f"The dashboard is {server.url}.cachemw/" in server.output
    assert headers["Content-Type"].startswith("text/html")
    assert b"<title>" in page
    assert json.loads(numbers)["totals"]["requests"]["miss"] == 1
    assert b'cachemw_requests_total{outcome="miss"} 1' in metrics
    assert body == BODY


def test_directory_of_images_is_served_from_the_cache_once_read(images, tmp_path):
    with served("--images", images, "--dir", tmp_path / "cache") as server:
        first, miss = server.get("cat.img")
        (images / "cat.img").unlink()
        second, hit = server.get("cat.img")

    assert first == second == BODY
    assert miss["Cache-Status"] == "cachemw; fwd=uri-miss; stored"
    assert hit["Cache-Status"] == "cachemw; hit"


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_loses_no_hit(images, tmp_path, sig):
    with served("--images", images, "--dir", tmp_path / "cache", "--workers", 2) as server:
        for _ in range(6):
            server.get("cat.img")
        status, output = server.stop(sig)

    cache = ImageCache(dir=tmp_path / "cache")
    assert [image["hits"] for image in cache.get_cached_images()] == [5]
    cache.close()
    assert status == 0
    assert "Traceback" not in output


def test_stopping_it_during_a_fill_leaves_no_entry(images, tmp_path):
    (images / "large.img").write_bytes(BODY * 16)
    options = ("--images", images, "--dir", tmp_path / "cache", "--rate-limit", "1MiB")
    with served(*options) as server:
        request = urllib.request.urlopen(f"{server.url}large.img", timeout=30)
        request.read(100_000)
        server.stop()
        request.close()

    cache = ImageCache(dir=tmp_path / "cache")
    assert cache.get_cached_images() == []
    cache.clean(stall_time=0)
    assert cache.driver.get_usage() == 0
    cache.close()


def test_requests_are_logged_one_line_each_if_asked(images, tmp_path):
    options = ("--images", images, "--dir", tmp_path / "cache", "--log-requests")
    with served(*options) as server:
        server.get("cat.img")
        server.get("cat.img")
        _, output = server.stop()

    lines = [line for line in output.splitlines() if '"GET /cat.img HTTP/1.1" 200' in line]
    # A miss may be logged after the hit that its client asked for at once.
    assert sorted(line.partition("cachemw; ")[2] for line in lines) == [
        "fwd=uri-miss; stored",
        "hit",
    ]
    assert all("1048576 bytes" in line for line in lines)


def test_upstream_is_asked_once(images, tmp_path):
    with (
        served("--images", images, "--dir", tmp_path / "one") as origin,
        served("--upstream", origin.url, "--dir", tmp_path / "two") as front,
    ):
        first, miss = front.get("cat.img")
        origin.stop()
        second, hit = front.get("cat.img")
        part, _ = front.get("cat.img", Range="bytes=1000000-")

    assert first == second == BODY
    assert part == BODY[1000000:]
    assert hit["Cache-Status"] == "cachemw; hit"
    assert hit["ETag"] == miss["ETag"]


def test_date_of_an_image_is_that_of_its_origin(tmp_path):
    """RFC 9110, section 6.6.1: when the message originated, not when we sent it."""
    date = formatdate(time.time() - 100, usegmt=True)
    headers = ("Content-Type: image/png", "Cache-Control: max-age=600", f"Date: {date}")
    with (
        ScriptedUpstream() as upstream,
        served("--upstream", upstream.url, "--dir", tmp_path / "cache") as front,
    ):
        upstream.reply(response(BODY, *headers))
        _, miss = front.get("cat.png")
        _, hit = front.get("cat.png")

    assert miss.get_all("Date") == hit.get_all("Date") == [date]
    assert int(hit["Age"]) >= 100


def test_pipeline_of_an_ini_file_is_served(images, tmp_path):
    ini = tmp_path / "app.ini"
    ini.write_text(
        f"""
[server:main]
host = 127.0.0.1
port = 1
[pipeline:main]
pipeline = cache images
[filter:cache]
use = egg:cachemw#cache
dir = {tmp_path}/cache
[app:images]
use = egg:cachemw#images
dir = {images}
"""
    )
    with served("-c", ini) as server:
        assert server.get("cat.img")[0] == server.get("cat.img")[0] == BODY
    assert main(["clean", "-c", str(ini), "--stall-time", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--images", "/nonexistent"], "'/nonexistent': expected a directory"),
        (["serve", "--images", "/", "--set", "max_sise=1"], "did you mean 'max_size'"),
        (["serve", "--images", "/", "--max-size", "lots"], "'max_size' has the value 'lots'"),
        (["serve", "--images", "/", "--set", "nonsense"], "expected OPTION=VALUE"),
        (["serve", "--upstream", "ftp://x"], "'upstream' has the value 'ftp://x'"),
        (["serve", "--upstream", "http://x", "--samples"], "go with --images only"),
        (["serve", "-c", "/nonexistent.ini"], "/nonexistent.ini: No such file"),
        (["clean"], "expected -c FILE.ini or --dir DIR"),
        (["clean", "--dir", "/proc/1/x"], "'/proc/1/x'"),
        (["clean", "--dir", "DIR", "--stall-time", "soon"], "--stall-time 'soon': expected"),
    ],
)
def test_mistake_ends_the_command_with_one_clear_line(arguments, complaint, capsys, tmp_path):
    arguments = [str(tmp_path / "cache") if word == "DIR" else word for word in arguments]
    if arguments[0] == "serve" and "-c" not in arguments:
        arguments += ["--dir", str(tmp_path / "cache")]

    assert main(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err
    assert len(captured.err.splitlines()) == 1


def test_clean_removes_what_crashes_left(tmp_path, capsys):
    cache = ImageCache(dir=tmp_path)
    with pytest.raises(RuntimeError), cache.driver.open_for_write("broken") as sink:
        sink.write(b"half")
        raise RuntimeError("no")
    (tmp_path / "incomplete" / "abandoned").write_bytes(b"half")
    cache.close()

    assert main(["clean", "--dir", str(tmp_path), "--stall-time", "1h"]) == 0
    assert capsys.readouterr().out == "1\n"
    assert main(["clean", "--dir", str(tmp_path), "--stall-time", "0"]) == 0
    assert capsys.readouterr().out == "1\n"
    assert not list((tmp_path / "incomplete").iterdir())
    assert not list((tmp_path / "invalid").iterdir())


def test_help_and_version_are_there(capsys):
    for arguments in (["--help"], ["serve", "--help"], ["clean", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 0
    assert "cachemw" in capsys.readouterr().out
