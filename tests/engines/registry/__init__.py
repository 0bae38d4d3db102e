"""A real container registry: the ``docker-registry`` of Debian and Ubuntu.

``apt-get install docker-registry``, or name the program in
``CACHEMW_REGISTRY``; to have no service started beside it, unpack the package
with ``apt-get download docker-registry`` and ``dpkg -x``. It keeps its data in
the directory that it is given, and listens on a free port of loopback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

CONFIG = Path(__file__).with_name("config.yml")

#: A registry that does not listen after so many seconds has failed.
PATIENCE = 30

#: Who may use a registry that was started with ``private=True``.
USER, PASSWORD = "tester", "secret"
#: bcrypt of the password, at the lowest cost there is.
_HTPASSWD = f"{USER}:$2b$04$5nmck8yrwT9h0j4Gtu607e7AmBiqQ1he/87iJEwbnKgwrx.KU0gMm\n"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

_LISTENS = re.compile(r"listening on (127\.0\.0\.1:\d+)")


def program() -> str | None:
    """Give the registry's program, or ``None`` where there is none."""
    return os.environ.get("CACHEMW_REGISTRY") or shutil.which("docker-registry")


@dataclasses.dataclass
class Registry:
    """A registry that listens.

    :param url: without a slash at its end.
    """

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def running(directory: Path, private: bool = False) -> Iterator[Registry]:
    """Run a registry on a free port.

    :param directory: for its data and its log.
    :param private: whether it wants a user and a password for everything.
    """
    executable = program()
    assert executable is not None
    environ = {**os.environ, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(directory / "data")}
    if private:
        passwords = directory / "htpasswd"
        passwords.write_text(_HTPASSWD)
        environ["REGISTRY_AUTH"] = "htpasswd"
        environ["REGISTRY_AUTH_HTPASSWD_REALM"] = "test"
        environ["REGISTRY_AUTH_HTPASSWD_PATH"] = str(passwords)
    log = directory / "registry.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [executable, "serve", str(CONFIG)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    registry = Registry("", process)
    try:
        registry.url = f"http://{_wait_for_address(process, log)}"
        yield registry
    finally:
        registry.stop()


def _wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The port is the system's choice: only the log tells it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = _LISTENS.search(log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the registry does not listen: {log.read_text(errors='replace')}")


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a client got.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def cache_status(self) -> str:
        return self.headers.get("cache-status", "").removeprefix("cachemw; ")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def ask(
    url: str,
    method: str = "GET",
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Ask, and read to the end; a redirect is not followed."""
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        response = _opener.open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, fields, response.read())


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def push_blob(
    url: str,
    name: str,
    data: bytes,
    headers: Mapping[str, str] | None = None,
    algorithm: str = "sha256",
) -> str:
    """Push a blob in one piece, as oras does. :return: its digest."""
    started = ask(f"{url}/v2/{name}/blobs/uploads/", "POST", headers=headers)
    assert started.status == 202, started
    location = started.headers["location"]
    location += ("&" if "?" in location else "?") + f"digest={digest(data, algorithm)}"
    fields = {"Content-Type": "application/octet-stream", **(headers or {})}
    done = ask(location, "PUT", data, fields)
    assert done.status == 201, done
    return digest(data, algorithm)


def push_image(
    url: str, name: str, tag: str, layer: bytes, headers: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Push an image of one layer. :return: the digests of its manifest and of its layer."""
    config = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": _CONFIG_TYPE,
            "digest": push_blob(url, name, config, headers),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": _LAYER_TYPE,
                "digest": push_blob(url, name, layer, headers),
                "size": len(layer),
            }
        ],
    }
    data = json.dumps(manifest).encode()
    fields = {"Content-Type": MANIFEST, **(headers or {})}
    done = ask(f"{url}/v2/{name}/manifests/{tag}", "PUT", data, fields)
    assert done.status == 201, done
    return digest(data), manifest["layers"][0]["digest"]
