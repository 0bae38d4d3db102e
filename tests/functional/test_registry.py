"""Container images through the ``registry`` preset, from a real registry where there is one.

What is pushed and pulled here by hand is what oras, skopeo, containerd and
docker send for the same (OCI Distribution Specification 1.1).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import random
from pathlib import Path

import pytest
import webtest
from paste.deploy import loadapp

from cachemw import CacheFilter
from cachemw.errors import ChecksumMismatch
from cachemw.web.apps.proxy import ProxyApp
from tests.engines.registry import (
    MANIFEST,
    PASSWORD,
    USER,
    ask,
    digest,
    program,
    push_blob,
    push_image,
    running,
)
from tests.servers import ROOT, in_waitress

LAYER = random.Random(1).randbytes(3 * 2**20)

NAME = "team/base/app"

ACCEPT = {"Accept": MANIFEST}

needs_registry = pytest.mark.skipif(
    program() is None, reason="no docker-registry in PATH, and CACHEMW_REGISTRY names none"
)


@pytest.fixture
def registry(tmp_path):
    with running(tmp_path) as registry:
        yield registry


@pytest.fixture
def serve(tmp_path):
    """Run the filter in front of an upstream; gives its URL."""
    with contextlib.ExitStack() as stack:

        def run(upstream, **options):
            proxy = stack.enter_context(contextlib.closing(ProxyApp(upstream)))
            cached = CacheFilter(
                proxy, dir=tmp_path / "cache", preset="registry", min_free=0, **options
            )
            stack.callback(cached.cache.close)
            host, port = stack.enter_context(in_waitress(cached)).address
            return f"http://{host}:{port}"

        yield run


def blob(url, name, image_digest, method="GET", **headers):
    return ask(f"{url}/v2/{name}/blobs/{image_digest}", method, headers=headers)


def manifest(url, name, reference, method="GET", headers=ACCEPT):
    return ask(f"{url}/v2/{name}/manifests/{reference}", method, headers=headers)


def from_cache(reply):
    """Whether the cache answered, be it after the registry said that it may."""
    return reply.cache_status in ("hit", "fwd=stale; fwd-status=200")


@needs_registry
def test_second_pull_comes_from_the_cache(registry, serve):
    """Manifest and layers by digest, pushed and pulled through the filter."""
    url = serve(registry.url)
    image, layer = push_image(url, NAME, "latest", LAYER)

    first = [manifest(url, NAME, image), blob(url, NAME, layer)]
    second = [manifest(url, NAME, image), blob(url, NAME, layer)]

    assert [reply.cache_status for reply in first] == ["fwd=uri-miss; stored"] * 2
    assert all(from_cache(reply) for reply in second)
    assert [reply.body for reply in second] == [reply.body for reply in first]
    assert second[1].body == LAYER
    assert second[0].headers["content-type"] == MANIFEST
    assert second[0].headers["docker-content-digest"] == image


@needs_registry
def test_public_image_is_pulled_while_the_registry_is_down(registry, serve):
    """With ``authorize = off`` nobody is asked."""
    url = serve(registry.url, authorize="off")
    image, layer = push_image(registry.url, NAME, "latest", LAYER)
    manifest(url, NAME, image)
    blob(url, NAME, layer)

    registry.stop()

    assert digest(manifest(url, NAME, image).body) == image
    assert blob(url, NAME, layer).body == LAYER


@needs_registry
def test_nobody_gets_an_image_that_the_registry_cannot_be_asked_about(registry, serve):
    """The digest is the key in every repository, so only the registry knows who may have it."""
    url = serve(registry.url)
    image, layer = push_image(registry.url, NAME, "latest", LAYER)
    manifest(url, NAME, image)
    blob(url, NAME, layer)

    registry.stop()

    assert manifest(url, NAME, image).status == 502
    assert blob(url, NAME, layer).status == 502


@needs_registry
def test_tag_is_asked_for_each_time(registry, serve):
    """A tag moves; only what a digest names never changes."""
    url = serve(registry.url)
    first, _ = push_image(registry.url, NAME, "latest", b"first")
    assert digest(manifest(url, NAME, "latest").body) == first

    second, _ = push_image(registry.url, NAME, "latest", b"second")
    reply = manifest(url, NAME, "latest")

    assert digest(reply.body) == second
    assert "cache-status" not in reply.headers


@needs_registry
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_cached_blob_is_not_given_in_the_name_of_another_repository(registry, serve, method):
    """The registry answers 404 there, and so does the cache."""
    url = serve(registry.url)
    _, layer = push_image(registry.url, NAME, "latest", LAYER)
    assert blob(url, NAME, layer).body == LAYER

    assert blob(url, "another/app", layer, method).status == 404


@needs_registry
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_cached_manifest_is_not_given_in_the_name_of_another_repository(registry, serve, method):
    """docker-registry 2.8.2 compares If-None-Match with the digest in the path before it
    looks whether the repository has such a manifest: its 304 allows nothing."""
    url = serve(registry.url)
    image, _ = push_image(registry.url, NAME, "latest", LAYER)
    assert digest(manifest(url, NAME, image).body) == image

    assert manifest(url, "another/app", image, method).status == 404
    conditional = {**ACCEPT, "If-None-Match": f'"{image}"'}
    assert manifest(url, "another/app", image, method, conditional).body == b""


@needs_registry
def test_manifest_deleted_in_the_registry_is_not_given_any_more(registry, serve):
    """Its 304 goes on after that, too (see above)."""
    url = serve(registry.url)
    image, _ = push_image(registry.url, NAME, "latest", LAYER)
    assert manifest(url, NAME, image).status == 200

    assert ask(f"{registry.url}/v2/{NAME}/manifests/{image}", "DELETE").status == 202

    assert manifest(url, NAME, image).status == 404


@needs_registry
def test_blob_deleted_in_the_registry_is_not_given_any_more(registry, serve):
    url = serve(registry.url)
    _, layer = push_image(registry.url, NAME, "latest", LAYER)
    assert blob(url, NAME, layer).status == 200

    assert ask(f"{registry.url}/v2/{NAME}/blobs/{layer}", "DELETE").status == 202

    assert blob(url, NAME, layer).status == 404


@needs_registry
def test_manifest_is_not_given_to_a_client_that_does_not_take_its_type(registry, serve):
    """The registry wants an OCI manifest's type in Accept, and its answer stands."""
    url = serve(registry.url)
    image, _ = push_image(registry.url, NAME, "latest", LAYER)
    assert manifest(url, NAME, image).status == 200

    assert manifest(url, NAME, image, headers={}).status == 404
    assert from_cache(manifest(url, NAME, image))


@needs_registry
def test_layer_is_resumed_from_the_cache(registry, serve):
    """RFC 9110, section 14.2."""
    url = serve(registry.url)
    _, layer = push_image(registry.url, NAME, "latest", LAYER)
    blob(url, NAME, layer)

    rest = blob(url, NAME, layer, Range="bytes=1000000-")

    assert rest.status == 206
    assert from_cache(rest)
    assert rest.body == LAYER[1_000_000:]


@needs_registry
def test_head_of_a_cached_layer_says_what_the_registry_says(registry, serve):
    """docker and oras look with HEAD whether a blob is there before they push it."""
    url = serve(registry.url)
    _, layer = push_image(registry.url, NAME, "latest", LAYER)
    blob(url, NAME, layer)

    cached, direct = blob(url, NAME, layer, "HEAD"), blob(registry.url, NAME, layer, "HEAD")

    assert from_cache(cached)
    for field in ("content-length", "content-type", "docker-content-digest", "etag"):
        assert cached.headers[field] == direct.headers[field]


@needs_registry
def test_sha512_names_a_layer_too(registry, serve):
    """The registry's own fields give its sha256 all the same."""
    url = serve(registry.url)
    layer = push_blob(registry.url, NAME, LAYER, algorithm="sha512")

    first, second = blob(url, NAME, layer), blob(url, NAME, layer)

    assert first.cache_status == "fwd=uri-miss; stored"
    assert from_cache(second)
    assert second.body == LAYER


@needs_registry
def test_private_image_is_given_to_those_only_whom_the_registry_lets_in(tmp_path, serve):
    credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    known = {"Authorization": f"Basic {credentials}"}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"tester:guess").decode()}
    with running(tmp_path, private=True) as registry:
        url = serve(registry.url)
        image, layer = push_image(registry.url, NAME, "latest", LAYER, known)
        manifest(url, NAME, image, headers={**ACCEPT, **known})
        blob(url, NAME, layer, **known)

        assert blob(url, NAME, layer).status == 401
        assert blob(url, NAME, layer, **wrong).status == 401
        assert manifest(url, NAME, image).status == 401
        assert manifest(url, NAME, image, headers={**ACCEPT, **wrong}).status == 401
        assert from_cache(blob(url, NAME, layer, **known))
        again = manifest(url, NAME, image, headers={**ACCEPT, **known})
        assert from_cache(again)


@needs_registry
def test_ini_file_runs_as_it_is(tmp_path):
    """``etc/registry.ini``, all but where it keeps things and which registry it asks."""
    text = (ROOT / "etc" / "registry.ini").read_text()
    with running(tmp_path) as registry:
        assert "http://127.0.0.1:5000" in text
        ini = Path(tmp_path / "etc" / "registry.ini")
        ini.parent.mkdir()
        ini.write_text(text.replace("http://127.0.0.1:5000", registry.url))
        app = loadapp(f"config:{ini}")
        with contextlib.closing(app.cache), in_waitress(app) as server:
            url = f"http://127.0.0.1:{server.address[1]}"
            _, layer = push_image(url, NAME, "latest", LAYER)

            assert blob(url, NAME, layer).body == LAYER
            assert from_cache(blob(url, NAME, layer))


# Without a registry


class Blobs:
    """An app with registry answers by path: status, body, and fields."""

    def __init__(self):
        self.answers = {}
        self.calls = []

    def __call__(self, environ, start_response):
        self.calls.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        status, body, fields = self.answers.get(environ["PATH_INFO"], ("404 Not Found", b"", []))
        tag = dict(fields).get("ETag")
        if status[:3] == "200" and tag and environ.get("HTTP_IF_NONE_MATCH") == tag:
            status, body = "304 Not Modified", b""
        start_response(status, list(fields))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else io.BytesIO(body)

    def add(self, path, body, *fields, status="200 OK", media_type="application/octet-stream"):
        self.answers[path] = (
            status,
            body,
            [("Content-Type", media_type), ("Content-Length", str(len(body))), *fields],
        )


@pytest.fixture
def app():
    return Blobs()


@pytest.fixture
def client(app, tmp_path):
    cached = CacheFilter(app, dir=tmp_path / "cache", preset="registry", min_free=0)
    with contextlib.closing(cached.cache):
        yield webtest.TestApp(cached, lint=False)


BODY = b"bytes of a layer" * 1000


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_bytes_that_are_not_the_digests_are_cut_and_not_kept(app, client, algorithm):
    """The digest in the path is the checksum; no field has to repeat it."""
    path = f"/v2/{NAME}/blobs/{digest(BODY, algorithm)}"
    app.add(path, BODY[:-1] + b"!")

    with pytest.raises(ChecksumMismatch):
        client.get(path)

    app.add(path, BODY)
    assert client.get(path).body == BODY
    assert app.calls == [("GET", path)] * 2


def test_redirect_to_a_storage_goes_to_the_client(app, client):
    """The client follows it past the cache, so there is nothing to keep."""
    path = f"/v2/{NAME}/blobs/{digest(BODY)}"
    app.add(path, b"", ("Location", "https://storage.invalid/x?sig=1"), status="307 Temporary")

    for _ in range(2):
        reply = client.get(path, status=307)
        assert reply.headers["Location"] == "https://storage.invalid/x?sig=1"
    assert app.calls == [("GET", path)] * 2


@pytest.mark.parametrize(
    "path",
    [
        "/v2/",
        "/v2/_catalog",
        f"/v2/{NAME}/tags/list",
        f"/v2/{NAME}/manifests/latest",
        f"/v2/{NAME}/blobs/uploads/",
        f"/v2/{NAME}/referrers/{digest(BODY)}",
        f"/v2/{NAME}/blobs/{digest(BODY)[:-1]}",
        f"/v2/{NAME}/blobs/{digest(BODY)}0",
        f"/v2/{NAME}/blobs/{digest(BODY).replace('sha256', 'md5')}",
        f"/v2/{NAME}/blobs/{digest(BODY).upper()}",
        f"/v2/blobs/{digest(BODY)}",
        f"/v1/{NAME}/blobs/{digest(BODY)}",
    ],
)
def test_other_paths_pass_through(app, client, path):
    """OCI Distribution Specification 1.1: what lists, changes or may change."""
    app.add(path, BODY, ("Cache-Control", "public, max-age=3600"))

    for _ in range(2):
        assert "Cache-Status" not in client.get(path).headers
    assert app.calls == [("GET", path)] * 2


def test_one_copy_serves_every_repository(app, client):
    """The digest is the key: layers are shared between images."""
    fields = [("ETag", f'"{digest(BODY)}"'), ("Docker-Content-Digest", digest(BODY))]
    paths = [f"/v2/{name}/blobs/{digest(BODY)}" for name in ("one", "team/two")]
    for path in paths:
        app.add(path, BODY, *fields)

    client.get(paths[0])
    second = client.get(paths[1])

    assert second.body == BODY
    assert second.headers["Cache-Status"] == "cachemw; fwd=stale; fwd-status=200"


def test_query_is_not_part_of_the_key(app, client):
    """containerd names the registry behind a mirror in ``?ns=``."""
    path = f"/v2/{NAME}/blobs/{digest(BODY)}"
    app.add(path, BODY, ("ETag", f'"{digest(BODY)}"'))

    client.get(f"{path}?ns=docker.io")

    status = client.get(path).headers["Cache-Status"]
    assert status == "cachemw; fwd=stale; fwd-status=200"


def test_manifest_with_signatures_inside_is_not_kept(app, client):
    """Its digest is that of a part of it (Docker image manifest version 2, schema 1)."""
    signed = b'{"schemaVersion": 1, "signatures": []}'
    path = f"/v2/{NAME}/manifests/{digest(b'the part that is signed')}"
    app.add(path, signed, media_type="application/vnd.docker.distribution.manifest.v1+prettyjws")

    assert client.get(path).body == signed
    assert client.get(path).body == signed
    assert app.calls == [("GET", path)] * 2


def test_encoded_manifest_is_not_kept(app, client):
    """The digest is that of the bytes without the encoding that a proxy put on them."""
    path = f"/v2/{NAME}/manifests/{digest(BODY)}"
    fields = [("Content-Encoding", "gzip"), ("Docker-Content-Digest", digest(BODY))]
    app.add(path, gzip.compress(BODY), *fields, media_type=MANIFEST)

    # WebTest decodes it.
    assert client.get(path).body == BODY
    assert client.get(path).body == BODY
    assert app.calls == [("GET", path)] * 2
