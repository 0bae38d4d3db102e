"""Real images through the real pipeline, by the clients that people use.

``CACHEMW_TEST_IMAGES`` names a directory of images, such as ``images`` of
Debian's package debian-installer-12-netboot-amd64, unpacked.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from cachemw import ImageCache
from tests.functional.test_serve import served

SOURCE = os.environ.get("CACHEMW_TEST_IMAGES", "")

pytestmark = [
    pytest.mark.skipif(not SOURCE, reason="CACHEMW_TEST_IMAGES names no directory of images"),
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("wget")), reason="curl or wget is missing"
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def expected():
    """Checksums of all images by their path."""
    return {
        str(path.relative_to(SOURCE)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(SOURCE).rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def origin(expected, tmp_path):
    """A copy of the images that may be moved away."""
    directory = tmp_path / "origin"
    for name in expected:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(SOURCE) / name, directory / name)
    return directory


@contextmanager
def over_images(origin, *options):
    with served("--images", origin, *options) as server:
        yield server.url


@contextmanager
def over_upstream(origin, *options):
    """Before a server that is not ours, and that sends no Cache-Control."""
    code = (
        "import functools, http.server as h, sys\n"
        "handler = functools.partial(h.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = h.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    upstream = subprocess.Popen(
        [sys.executable, "-c", code, str(origin)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = int(upstream.stdout.readline())
        with served("--upstream", f"http://127.0.0.1:{port}", *options) as server:
            yield server.url
    finally:
        upstream.kill()
        upstream.communicate()


def curl(url, names, directory):
    """Download all, each whole."""
    lines = []
    for name in names:
        lines += [f'url = "{url}{quote(name)}"', f'output = "{directory / name}"']
    config = directory.with_suffix(".curl")
    config.write_text("\n".join(lines))
    subprocess.run(["curl", "-sSf", "--create-dirs", "-K", config], check=True, timeout=300)


def wget(url, names, directory):
    """Download all, each from its half on."""
    for name in names:
        whole = (Path(SOURCE) / name).read_bytes()
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(whole[: len(whole) // 2])
    urls = directory.with_suffix(".urls")
    urls.write_text("".join(f"{url}{quote(name)}\n" for name in names))
    subprocess.run(
        ["wget", "-q", "-c", "-x", "-nH", "-P", directory, "-i", urls], check=True, timeout=300
    )


def checksums(directory, names):
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("pipeline", [over_images, over_upstream])
def test_every_image_comes_right_twice_the_second_time_without_its_origin(
    pipeline, origin, expected, tmp_path
):
    assert len(expected) > 100
    cache_dir = tmp_path / "cache"
    with pipeline(origin, "--dir", cache_dir, "--set", "content_types=*/*") as url:
        for client in (curl, wget):
            client(url, expected, tmp_path / f"{client.__name__}-first")
            assert checksums(tmp_path / f"{client.__name__}-first", expected) == expected
        origin.rename(tmp_path / "away")
        for client in (curl, wget):
            client(url, expected, tmp_path / f"{client.__name__}-second")
            assert checksums(tmp_path / f"{client.__name__}-second", expected) == expected

    cache = ImageCache(dir=cache_dir)
    images = cache.get_cached_images()
    cache.close()
    assert len(images) == len(expected)
    assert all(image["hits"] >= 2 for image in images)
