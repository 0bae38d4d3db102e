"""The images app: a directory over HTTP."""

import io
import os
import socket
import time
from wsgiref.validate import validator

import pytest
import webtest

from cachemw.errors import ConfigError
from cachemw.web.apps import _samples
from cachemw.web.apps._pacing import PacedBody
from cachemw.web.apps.images import ImagesApp, app_factory

BODY = bytes(range(256)) * 64  # 16 KiB


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    (root / "disk.img").write_bytes(BODY)
    (root / "layers").mkdir()
    (root / "layers" / "base.tar.gz").write_bytes(b"layer")
    return root


@pytest.fixture
def client(directory):
    return webtest.TestApp(validator(ImagesApp(directory)))


def test_an_image_comes_with_its_length_type_validators_and_lifetime(client):
    response = client.get("/disk.img")

    assert response.body == BODY
    assert response.content_length == len(BODY)
    assert response.content_type == "application/octet-stream"
    assert response.headers["Cache-Control"] == "public, max-age=3600"
    assert response.headers["ETag"].startswith('"')
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.last_modified is not None


def test_head_has_the_fields_of_get_and_no_body(client):
    """RFC 9110, section 9.3.2."""
    got, head = client.get("/disk.img"), client.head("/disk.img")

    assert head.body == b""
    assert head.headers == got.headers


@pytest.mark.parametrize("path", ["/", "/layers", "/nothing"])
def test_head_of_a_page_has_the_length_of_the_page(client, path):
    """RFC 9110, section 8.6."""
    got, head = client.get(path, status="*"), client.head(path, status="*")

    assert head.body == b""
    assert head.status == got.status
    assert head.content_length == got.content_length == len(got.body)


def test_a_range_is_answered_with_that_range(client):
    """RFC 9110, section 15.3.7."""
    response = client.get("/disk.img", headers={"Range": "bytes=100-199"}, status=206)

    assert response.body == BODY[100:200]
    assert response.headers["Content-Range"] == f"bytes 100-199/{len(BODY)}"


def test_a_client_that_has_the_image_is_not_sent_it_again(client):
    """RFC 9110, section 13.1.2."""
    tag = client.get("/disk.img").headers["ETag"]

    client.get("/disk.img", headers={"If-None-Match": tag}, status=304)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_bytes(BODY + b"!"),
        lambda file: os.utime(file, ns=(1, file.stat().st_mtime_ns + 1)),
        lambda file: os.replace(_copy(file), file),
    ],
    ids=["size", "time", "inode"],
)
def test_an_image_that_changes_changes_its_etag(client, directory, change):
    """RFC 9110, section 8.8.1: a strong validator."""
    before = client.get("/disk.img").headers["ETag"]
    change(directory / "disk.img")

    assert client.get("/disk.img").headers["ETag"] != before


def _copy(file):
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(1, file.stat().st_mtime_ns))
    return copy


def test_last_modified_is_never_in_the_future(client, directory):
    """RFC 9110, section 8.8.2.1."""
    os.utime(directory / "disk.img", (2**33, 2**33))

    assert client.get("/disk.img").last_modified.timestamp() <= time.time()


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.iso", "application/octet-stream"),
        ("a.QCOW2", "application/octet-stream"),
        ("a.vmdk", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("no suffix", "application/octet-stream"),
        ("a.svg", "image/svg+xml"),
        ("a.webp", "image/webp"),
        ("a.tar.gz", "application/gzip"),
        ("a.raw.xz", "application/x-xz"),
        ("data:text,a.png", "image/png"),
    ],
)
def test_the_type_goes_by_the_name_and_nothing_is_called_encoded(
    client, directory, name, media_type
):
    """RFC 9110, section 8.4: a .gz that is the image itself has no content coding."""
    (directory / name).write_bytes(b"x")
    response = client.get("/" + name.replace(" ", "%20"))

    assert response.content_type == media_type
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused_with_those_allowed(client, method):
    """RFC 9110, section 15.5.6."""
    response = client.request("/disk.img", method=method, status=405)

    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/layers/../../secret",
        "/layers/../disk.img",
        "/./disk.img",
        "//disk.img",
        "/layers//base.tar.gz",
        "/disk.img/",
        "/disk.img\0",
        "/.hidden",
        "/.git/config",
        "/nothing",
        "/" + "x" * 300,
        "/layers/" * 2000,
        "//",
        "disk.img",
        "x/disk.img",
    ],
)
def test_paths_that_lead_nowhere_or_out_are_not_found(directory, path):
    (directory.parent / "secret").write_bytes(b"secret")
    (directory / ".hidden").write_bytes(b"hidden")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_bytes(b"hidden")

    # WebTest tidies paths up; a server may hand them over as they are.
    assert _call(ImagesApp(directory), PATH_INFO=path) == "404 Not Found"


def _call(app, method="GET", **environ):
    """Call an app with just these values; return the status."""
    statuses = []
    body = app(
        {**webtest.TestRequest.blank("/", method=method).environ, **environ},
        lambda status, headers, exc_info=None: statuses.append(status) or (lambda data: None),
    )
    try:
        list(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return statuses[0]


@pytest.mark.parametrize(
    "link_to",
    ["../secret", "/etc/passwd", "..", "link", "nothing", ".hidden", "../images-other/file"],
)
def test_a_link_that_leads_out_or_nowhere_is_not_found_and_not_listed(client, directory, link_to):
    (directory.parent / "secret").write_bytes(b"secret")
    other = directory.parent / "images-other"
    other.mkdir()
    (other / "file").write_bytes(b"secret")
    (directory / ".hidden").write_bytes(b"hidden")
    (directory / "link").symlink_to(link_to)

    client.get("/link", status=404)
    client.get("/link/", status=404)
    assert "link" not in client.get("/").text


def test_a_link_into_a_directory_outside_gives_none_of_its_files(client, directory):
    outside = directory.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (directory / "link").symlink_to(outside)

    client.get("/link/file", status=404)


def test_a_link_that_stays_inside_is_followed(client, directory):
    (directory / "latest.tar.gz").symlink_to("layers/base.tar.gz")

    assert client.get("/latest.tar.gz").body == b"layer"
    assert "latest.tar.gz" in client.get("/").text


def test_a_link_put_in_between_check_and_open_is_not_followed(directory, monkeypatch):
    """Source: openat(2), O_NOFOLLOW."""
    (directory.parent / "secret").write_bytes(b"secret")
    resolve = os.path.realpath

    def swapping(path, **options):
        real = resolve(path, **options)
        if str(path).endswith("disk.img"):
            (directory / "disk.img").unlink()
            (directory / "disk.img").symlink_to("../secret")
        return real

    app = ImagesApp(directory)
    monkeypatch.setattr(os.path, "realpath", swapping)

    webtest.TestApp(app).get("/disk.img", status=404)


def test_pipes_and_sockets_are_not_images_and_block_nobody(client, directory, monkeypatch):
    os.mkfifo(directory / "pipe")
    monkeypatch.chdir(directory)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        client.get("/pipe", status=404)
        client.get("/socket", status=404)
        assert "pipe" not in client.get("/").text


def test_a_directory_without_its_slash_redirects_to_the_one_with_it(client):
    response = client.get("/layers?sort=name", status=301)

    assert response.headers["Location"] == "http://localhost/layers/?sort=name"


def test_the_redirect_keeps_the_mount_point_and_quotes_the_path(client, directory):
    (directory / "ä b").mkdir()
    response = client.get("/%C3%A4%20b", extra_environ={"SCRIPT_NAME": "/images"}, status=301)

    assert response.headers["Location"] == "http://localhost/images/%C3%A4%20b/"


def test_the_mount_point_itself_redirects_to_its_slash(directory):
    assert _call(validator(ImagesApp(directory)), PATH_INFO="", SCRIPT_NAME="/images").startswith(
        "301"
    )


def test_the_page_lists_directories_and_images_with_their_sizes(client, directory):
    (directory / ".hidden").write_bytes(b"hidden")
    page = client.get("/")

    assert page.content_type == "text/html"
    assert page.text.index("layers/") < page.text.index("disk.img")
    assert "16.0 KiB" in page.text
    assert "hidden" not in page.text
    assert client.get("/layers/").click("base.tar.gz").body == b"layer"
    assert "disk.img" in client.get("/layers/").click(r"\.\./").text


@pytest.mark.parametrize(
    "name",
    [b"<b>&\"'.img", b"a?b#c%41.img", b"http:x.img", b"blank .img", b"\xff\xfe.img", b"\xc3\xa4"],
)
def test_names_are_escaped_and_quoted_in_the_page(client, directory, name):
    (directory / os.fsdecode(name)).write_bytes(b"found")
    (directory / "disk.img").unlink()
    page = client.get("/")

    assert "<b>" not in page.text
    (link,) = [a["href"] for a in page.html.find_all("a") if a["href"] != "layers/"]
    assert client.get("/" + link).body == b"found"


def test_a_directory_whose_name_is_not_unicode_is_listed(client, directory):
    (directory / os.fsdecode(b"\xff")).mkdir()

    assert client.get("/%ff/").status_int == 200
    assert client.get("/%ff", status=301).headers["Location"].endswith("/%FF/")


def test_an_image_is_handed_to_the_servers_own_file_wrapper(directory):
    handed = []

    def wrapper(file, block_size):
        handed.append(file)
        return iter(lambda: file.read(block_size), b"")

    app = ImagesApp(directory)
    environ = webtest.TestRequest.blank("/disk.img").environ
    environ["wsgi.file_wrapper"] = wrapper

    body = b"".join(app(environ, lambda status, headers: None))
    handed[0].close()

    assert body == BODY
    assert isinstance(handed[0], io.FileIO)


def test_with_a_rate_limit_the_image_does_not_bypass_it_by_the_file_wrapper(directory):
    app = ImagesApp(directory, rate_limit=2**20)
    environ = webtest.TestRequest.blank("/disk.img").environ
    environ["wsgi.file_wrapper"] = lambda *args: pytest.fail("the file was handed over")

    body = app(environ, lambda status, headers: None)

    assert isinstance(body, PacedBody)
    assert b"".join(body) == BODY
    body.close()
    assert "wsgi.file_wrapper" in environ


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9,20-29"}, {"If-None-Match": "*"}])
def test_a_rate_limit_changes_no_answer(directory, headers):
    fast = webtest.TestApp(validator(ImagesApp(directory)))
    slow = webtest.TestApp(validator(ImagesApp(directory, rate_limit=2**30)))

    expected = fast.get("/disk.img", headers=headers, status="*")
    response = slow.get("/disk.img", headers=headers, status="*")

    assert (response.status, len(response.body)) == (expected.status, len(expected.body))


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


class FakeBody:
    def __init__(self, *blocks):
        self.blocks = iter(blocks)
        self.closed = 0

    def __iter__(self):
        return self.blocks

    def close(self):
        self.closed += 1


def test_a_paced_body_arrives_at_its_rate_without_bursts():
    rate, at = 1000, FakeTime()
    body = PacedBody(FakeBody(bytes(2500), b"", bytes(2500)), rate, at.clock, at.sleep)
    arrivals = [(at.now, len(piece)) for piece in body]

    assert sum(size for _, size in arrivals) == 5000
    assert arrivals[-1][0] - 1000 == pytest.approx(5, abs=0.1)
    for start, _ in arrivals:
        within = sum(size for moment, size in arrivals if start <= moment < start + 1)
        assert within <= rate * 1.1


def test_a_client_that_paused_gets_no_burst_afterwards():
    rate, at = 1000, FakeTime()
    body = PacedBody(FakeBody(bytes(5000)), rate, at.clock, at.sleep)
    next(body)
    at.now += 3600

    resumed, sent = at.now, 0
    while at.now == resumed:
        sent += len(next(body))

    assert sent - 50 <= rate / 10  # the last piece was slept for


def test_even_a_byte_per_second_makes_progress():
    at = FakeTime()

    assert list(PacedBody(FakeBody(b"abc"), 1, at.clock, at.sleep)) == [b"a", b"b", b"c"]


def test_closing_a_paced_body_closes_the_other_once():
    inner = FakeBody(bytes(100))
    body = PacedBody(inner, 10**6)
    next(body)
    body.close()
    body.close()

    assert inner.closed == 1


def test_samples_fill_a_missing_directory_with_the_same_bytes_each_time(tmp_path):
    first, second = tmp_path / "a" / "images", tmp_path / "b"
    second.mkdir()
    ImagesApp(first, samples=True)
    client = webtest.TestApp(ImagesApp(second, samples=True))

    names = sorted(os.listdir(first))
    assert names == ["disk-64MiB.img", "disk-8MiB.img", "photo.svg"]
    assert (first / "disk-64MiB.img").stat().st_size == 64 * 2**20
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert client.get("/photo.svg").content_type == "image/svg+xml"


def test_samples_leave_a_directory_with_images_alone(directory):
    ImagesApp(directory, samples=True)

    assert sorted(os.listdir(directory)) == ["disk.img", "layers"]


def test_a_sample_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(_samples.os, "fsync", full)

    with pytest.raises(ConfigError, match=r"dir.*No space left"):
        ImagesApp(tmp_path, samples=True)
    assert os.listdir(tmp_path) == []


def test_the_ini_options_are_read(directory):
    conf = {"dir": str(directory), "max_age": "1h", "rate_limit": "16MiB", "samples": "no"}
    app = app_factory({"here": "/etc", "debug": "yes"}, **conf)
    response = webtest.TestApp(app).get("/disk.img")

    assert response.headers["Cache-Control"] == "public, max-age=3600"
    assert response.body == BODY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'dir' is missing"),
        ({"dir": "/nowhere/at/all"}, "'dir' has the value '/nowhere/at/all'.*existing"),
        ({"dir": "/", "max_age": "soon"}, "'max_age' has the value 'soon': expected seconds"),
        ({"dir": "/", "rate_limit": "fast"}, "'rate_limit' has the value 'fast': expected"),
        ({"dir": "/", "rate_limit": "0"}, "'rate_limit' has the value '0': expected"),
        ({"dir": "/", "samples": "perhaps"}, "'samples' has the value 'perhaps': expected yes"),
        ({"dir": "/", "maxage": "5"}, "'maxage' with the value '5': did you mean 'max_age'"),
        ({"dir": "/", "colour": "red"}, "'colour' with the value 'red': expected one of dir"),
    ],
)
def test_a_wrong_option_stops_the_start(options, message):
    with pytest.raises(ConfigError, match=message):
        app_factory({}, **options)


def test_no_descriptor_stays_open(directory):
    client = webtest.TestApp(ImagesApp(directory), lint=False)
    os.mkfifo(directory / "pipe")
    before = os.listdir("/proc/self/fd")
    for path in ("/disk.img", "/", "/layers", "/layers/", "/nothing/x", "/pipe", "/disk.img/x"):
        client.get(path, status="*")
        client.head(path, status="*")
    client.get("/disk.img", headers={"Range": "bytes=99999-"}, status=416)

    assert os.listdir("/proc/self/fd") == before
