"""``cachemw queue`` and ``cachemw prefetch`` as an operator runs them."""

import contextlib
import http.server
import io
import json
import subprocess
import sys
import threading
import time

import pytest

from cachemw import ImageCache
from cachemw.commands import main
from cachemw.commands._listing import ListingFailed, matching, parse
from cachemw.drivers.queued import Note
from tests.functional.failing_origin import BODY, Origin
from tests.servers import waitress_process

IDS = [f"http://localhost/good/{number}" for number in range(3)]
FAILING = ["http://localhost/404", "http://localhost/cut", "http://localhost/wrong"]


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(directory):
    cache = ImageCache(dir=directory, min_free=0)
    yield cache
    cache.close()


def run(*arguments):
    """:return: status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


COMMAND = [sys.executable, "-c", "import sys; from cachemw.commands import main; sys.exit(main())"]


def run_alone(*arguments):
    """The same in a process of its own, with which the pipeline ends."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


# queue


def test_ids_are_queued_once(cache, directory):
    status, out, err = run("queue", *IDS[:2], "--dir", directory)
    assert (status, err) == (0, "")
    assert out == "".join(f"{image_id}\tqueued\n" for image_id in IDS[:2])

    status, out, err = run("queue", *IDS[1:], IDS[1], "--dir", directory)
    assert (status, err) == (0, "")
    assert out == (f"{IDS[1]}\tcached, being cached or queued already\n{IDS[2]}\tqueued\n")
    assert cache.get_queued_images() == IDS


def test_what_nothing_says_how_to_fetch_is_refused_and_the_rest_is_queued(cache, directory):
    status, out, err = run("queue", "cat", IDS[0], "x" * 2001, "--dir", directory)
    assert status == 1
    assert out == f"{IDS[0]}\tqueued\n"
    assert "cachemw queue: cat: nothing says how to fetch it" in err
    assert "expected 1 to 2000 characters" in err

    status, out, err = run("queue", "cat", "--dir", directory, "--set", "preset=glance")
    assert (status, out, err) == (0, "cat\tqueued\n", "")
    assert cache.get_queued_images() == [IDS[0], "cat"]


def test_ids_come_from_a_file_with_urls(cache, directory, tmp_path, monkeypatch):
    path = tmp_path / "ids"
    path.write_text(f"{IDS[0]}\n\ncat dog\thttp://host/cat\n")
    status, out, _ = run("queue", "--file", path, "--dir", directory)
    assert (status, out) == (0, f"{IDS[0]}\tqueued\ncat dog\tqueued\n")
    assert cache.get_queue()[1]["url"] == "http://host/cat"

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{IDS[1]}\n"))
    assert run("queue", "--file", "-", "--dir", directory)[0] == 0
    assert cache.get_queued_images() == [IDS[0], "cat dog", IDS[1]]


def test_queue_is_listed_with_reasons(cache, directory):
    for image_id, fields in {
        "a": {},
        "b": {"tries": 1, "after": time.time() + 60, "reason": "no"},
        "c": {"tries": 2, "reason": "404", "set_aside": True},
    }.items():
        cache.queue_image(image_id)
        claim = cache.claim_queued(image_id)
        claim.keep(Note(**fields))
        claim.close()
    cache.queue_image("d")
    claim = cache.claim_queued("d")
    status, out, _ = run("queue", "--dir", directory)
    _, as_json, _ = run("queue", "--dir", directory, "--json")
    claim.close()

    assert status == 0
    assert [line.split("\t") for line in out.splitlines()] == [
        ["a", "waiting", "0", ""],
        ["b", "failed", "1", "no"],
        ["c", "set-aside", "2", "404"],
        ["d", "fetching", "0", ""],
    ]
    assert json.loads(as_json)[2]["reason"] == "404"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--glob", "x"],
        ["--listing", "x"],
        ["--file", "/no/such"],
        ["--glob", "x", "--listing", "/no/such"],
    ],
)
def test_wrong_usage_of_queue(directory, arguments):
    status, out, err = run("queue", *arguments, "--dir", directory)
    assert (status, out) == (2, "")
    assert err.startswith("cachemw queue: ")


# Listings


def test_images_of_a_listing_are_queued_by_their_names(cache, directory, tmp_path):
    (tmp_path / "names").write_text("ubuntu-1\ndebian-1\nubuntu-2\n")
    status, out, _ = run(
        *("queue", "--glob", "ubuntu-*", "--glob", "*-2", "--listing", tmp_path / "names"),
        *("--prefix", "a/c/", "--dir", directory, "--set", "preset=swift"),
    )
    assert status == 0
    assert cache.get_queued_images() == ["a/c/ubuntu-1", "a/c/ubuntu-2"]
    assert out.count("queued") == 2


@contextlib.contextmanager
def listing(pages):
    """Serve pages by path; gives the URL, and the tokens that came."""
    tokens = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            tokens.append(self.headers.get("X-Auth-Token"))
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 404)
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_listing_of_an_app_goes_on_over_its_pages(cache, directory, monkeypatch):
    monkeypatch.setenv("FIELDS", "X-Auth-Token: s3cret")
    pages = {
        "/v2/images": b'{"images": [{"id": "1", "name": "ubuntu"}, {"id": "2"}], "next": "/p?2"}',
        "/p?2": b'{"images": [{"id": "3", "name": "ubuntu-2"}]}',
    }
    options = ("--set", "preset=glance", "--set", "prefetch_headers=env:FIELDS")
    with listing(pages) as (url, tokens):
        place = f"{url}/v2/images"
        status, _, err = run(
            "queue", "--glob", "ubuntu*", "--listing", place, "--dir", directory, *options
        )
    assert (status, err) == (0, "")
    assert cache.get_queued_images() == ["1", "3"]
    assert tokens == ["s3cret", "s3cret"]


def test_listing_that_goes_on_elsewhere_gets_no_credentials(directory):
    with (
        listing({}) as (other, tokens),
        listing({"/": f'{{"images": [], "next": "{other}/"}}'.encode()}) as (url, _),
    ):
        status, _, err = run("queue", "--glob", "*", "--listing", f"{url}/", "--dir", directory)
    assert status == 1
    assert "another server" in err
    assert tokens == []


def test_listing_that_is_not_there(directory):
    with listing({}) as (url, _):
        status, _, err = run("queue", "--glob", "*", "--listing", f"{url}/x", "--dir", directory)
    assert status == 1
    assert "answered 404" in err


def test_listings_of_every_kind():
    assert parse(b"a\nb\n") == ([("a",), ("b",)], None)
    assert parse(b'["a", {"name": "b", "id": "1"}, {"name": "c"}, 5]') == (
        [("a",), ("1", "b"), ("c",)],
        None,
    )
    for body in (b"{", b'{"x": 1}', b'{"images": 5}'):
        with pytest.raises(ListingFailed):
            parse(body)
    assert list(matching([("1", "ubuntu"), ("ubuntu",)], ["ubu*"])) == ["1", "ubuntu"]


# prefetch


@pytest.fixture
def origin():
    with Origin() as origin:
        yield origin


@pytest.fixture
def ini(tmp_path, directory, origin):
    path = tmp_path / "app.ini"
    path.write_text(
        f"""
[pipeline:main]
pipeline = cache proxy
[filter:cache]
use = egg:cachemw#cache
dir = {directory}
min_free = 0
follow_timeout = 1
[app:proxy]
use = egg:cachemw#proxy
upstream = {origin.url}
"""
    )
    return path


REASONS = {
    FAILING[0]: "the app answered 404 Not Found",
    FAILING[1]: "the app broke off after 1000 bytes",
    FAILING[2]: "wrong checksum: md5 is ",
}


@pytest.mark.parametrize("workers", [1, 3])
def test_pipeline_of_an_ini_file_works_the_queue_off(cache, ini, workers):
    for image_id in [*FAILING, *IDS]:
        cache.queue_image(image_id)
    status, out, err = run_alone("prefetch", "-c", ini, "--workers", workers)

    assert status == 1
    assert sorted(out.splitlines()) == [f"{image_id}\t{len(BODY)}" for image_id in IDS]
    for image_id, reason in REASONS.items():
        assert f"cachemw prefetch: {image_id}: {reason}" in err
    assert {queued["image_id"] for queued in cache.get_queue()} == set(FAILING)
    assert all(cache.is_cached(image_id) for image_id in IDS)


def test_json_of_prefetch_and_nothing_to_do(cache, ini):
    assert run_alone("prefetch", "-c", ini) == (0, "", "")
    assert run_alone("prefetch", "-c", ini, "--json") == (0, "[]\n", "")
    cache.queue_image(IDS[0])
    status, out, _ = run_alone("prefetch", "-c", ini, "--json")
    (image,) = json.loads(out)
    assert status == 0
    assert (image["image_id"], image["cached"], image["bytes"]) == (IDS[0], True, len(BODY))


def test_running_server_fetches_for_the_command(cache, directory, tmp_path, origin):
    options = {"min_free": 0, "follow_timeout": 1, "prefetch_workers": 0}
    environ = {
        "CACHEMW_TEST_DIR": str(tmp_path),
        "CACHEMW_TEST_UPSTREAM": origin.url,
        "CACHEMW_TEST_OPTIONS": json.dumps(options),
    }
    app = "tests.functional.served_fills:app"
    for image_id in [*FAILING, "http://localhost/stalled", *IDS]:
        cache.queue_image(image_id)
    with waitress_process(app, tmp_path / "log", environ=environ) as server:
        url = f"http://127.0.0.1:{server.address[1]}"
        status, out, err = run(
            "prefetch", "--url", url, "--dir", directory, "--set", "follow_timeout=1"
        )
    assert status == 1
    assert out == "".join(f"{image_id}\t{len(BODY)}\n" for image_id in IDS)
    assert f"{FAILING[0]}: the app answered 404 Not Found" in err
    assert f"{FAILING[2]}: md5 is " in err
    assert "http://localhost/stalled: stalled: nothing came for 1 s after 1000 bytes" in err
    assert all(queued["reason"] for queued in cache.get_queue())


def test_server_that_is_not_there_is_a_reason(cache, directory):
    cache.queue_image(IDS[0])
    status, _, err = run("prefetch", "--url", "http://127.0.0.1:1", "--dir", directory)
    assert status == 1
    assert "the server did not answer to the end: " in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dir", "/tmp/x"],
        ["-c", "/no/such.ini"],
        ["--url", "host", "--dir", "x"],
        ["--url", "ftp://host", "--dir", "x"],
        ["--url", "http://u:p@host", "--dir", "x"],
        ["--url", "http://host"],
        ["--url", "http://host", "--dir", "x", "--workers", "many"],
    ],
)
def test_wrong_usage_of_prefetch(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("prefetch", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("cachemw prefetch: ")
