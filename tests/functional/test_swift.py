"""The filter in the pipeline of a real Swift proxy, which runs under eventlet.

Runs where ``CACHEMW_ENGINES`` contains ``swift``.
"""

import contextlib
import fcntl
import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.engines.swift import PIPELINE, Swift
from tests.servers import ROOT

pytestmark = [
    pytest.mark.skipif(
        "swift" not in os.environ.get("CACHEMW_ENGINES", ""),
        reason="starts a Swift: set CACHEMW_ENGINES=swift",
    ),
    pytest.mark.timeout(600),
]

ACCOUNT = "/v1/AUTH_test"

#: Answers of an idle proxy, one each 10 ms, without any of one that large images pass through: a
#: call that blocks its hub for a second makes it a hundred.
MISSED = 40

#: What anybody may read is served without asking, so that nothing but the cache is measured.
ANYBODY = {"freshness": "immutable", "routes": "/v1/[^/]+/[^/]+/.+", "min_free": 0}

#: A client in a process of its own, so that what it does costs the test no time.
DOWNLOAD = """\
import hashlib, socket, sys
port, target = int(sys.argv[1]), sys.argv[2]
client = socket.create_connection(("127.0.0.1", port))
client.sendall(f"GET {target} HTTP/1.0\\r\\nHost: test\\r\\n\\r\\n".encode())
file = client.makefile("rb", 2**18)
head = []
while (line := file.readline().strip()):
    head.append(line.decode())
digest = hashlib.md5()
while block := file.read(2**18):
    digest.update(block)
print(digest.hexdigest(), "|".join(head))
"""


@pytest.fixture(scope="module")
def swift():
    with (
        tempfile.TemporaryDirectory(prefix="cachemw-swift-") as base,
        Swift(Path(base)).running() as cluster,
    ):
        yield cluster


@pytest.fixture
def start_proxy(swift, request, tmp_path):
    """Start a proxy with our filter and its options."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(pipeline=PIPELINE, **options):
            options.setdefault("dir", tmp_path / "cache")
            name = f"{request.node.name[:60]}-{next(numbers)}"
            return stack.enter_context(swift.proxy(name, pipeline, options))

        yield start


def upload(proxy, token, target, chunks, size):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    headers = dict([token, ("Content-Length", str(size)), ("Content-Type", "image/png")])
    connection.request("PUT", target, chunks, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 201


def download(proxy, target):
    """Read an image to its end in another process. :return: its MD5, and the head."""
    command = [sys.executable, "-c", DOWNLOAD, str(proxy.port), target]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    digest, _, head = found.stdout.strip().partition(" ")
    return digest, head


class Side:
    """Asks a proxy for ``/healthcheck`` again and again, and beside it an idle one.

    Whatever makes the machine slow keeps both waiting, so that they take turns all the same.
    """

    def __init__(self, proxy, idle):
        self._proxies = [proxy, idle]
        self._answered = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[one]) for one in (proxy, idle)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, proxy):
        while not self._end.wait(0.01):
            assert proxy.request("/healthcheck").status == 200
            self._answered.append(proxy)

    @property
    def most_missed(self):
        """How many answers the idle one gave at most while the other gave none."""
        runs = itertools.groupby(self._answered)
        return max((len(list(run)) for who, run in runs if who is self._proxies[1]), default=0)

    def __str__(self):
        return f"{len(self._answered)} answers, at most {self.most_missed} of the idle one in a row"


def test_hub_answers_promptly_while_a_gibibyte_is_filled_and_hit(swift, start_proxy):
    """One blocking call on the hub's thread stops every request of the process."""
    proxy, idle = start_proxy(**ANYBODY), start_proxy(**ANYBODY)
    owner = proxy.token("owner")
    block, count = os.urandom(2**20), 1024
    proxy.request(f"{ACCOUNT}/large", owner, ("X-Container-Read", ".r:*"), method="PUT")
    target = f"{ACCOUNT}/large/image"
    upload(proxy, owner, target, (block for _ in range(count)), count * len(block))
    digest = hashlib.md5(block * count).hexdigest()

    with Side(proxy, idle) as filling:
        filled = download(proxy, target)
    with Side(proxy, idle) as hitting:
        hit = download(proxy, target)
    print(f"fill: {filling}\nhit: {hitting}")

    assert filled[0] == hit[0] == digest
    assert "fwd=uri-miss; stored" in filled[1]
    assert "cachemw; hit" in hit[1]
    assert filling.most_missed < MISSED, str(filling)
    assert hitting.most_missed < MISSED, str(hitting)


def test_hub_answers_promptly_while_a_fill_waits_for_another_process(start_proxy, tmp_path):
    """Somebody else holds the lock of the cache directory."""
    proxy, idle = start_proxy(**ANYBODY), start_proxy(**ANYBODY, dir=tmp_path / "idle")
    owner = proxy.token("owner")
    proxy.request(f"{ACCOUNT}/waits", owner, ("X-Container-Read", ".r:*"), method="PUT")
    put(proxy, owner, f"{ACCOUNT}/waits/image", b"image", ("Content-Type", "image/png"))

    with open(tmp_path / "cache" / ".lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with proxy.begin(f"{ACCOUNT}/waits/image").socket as waiting:
            waiting.settimeout(1)
            with Side(proxy, idle) as meanwhile, pytest.raises(TimeoutError):
                waiting.recv(1)
            fcntl.flock(lock, fcntl.LOCK_UN)
            waiting.settimeout(60)
            answer = waiting.recv(2**16)
    print(f"meanwhile: {meanwhile}")

    assert b"fwd=uri-miss; stored" in answer
    assert meanwhile.most_missed < MISSED, str(meanwhile)


# The preset: the proxy itself says at every hit who may have what

BODY = os.urandom(300_000)
TAG = hashlib.md5(BODY).hexdigest()
KEY = "temporary"

#: Of containers.
numbers = itertools.count()


@pytest.fixture(scope="module")
def proxy(swift, tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    with swift.proxy("preset", options={"preset": "swift", "dir": directory, "min_free": 0}) as it:
        yield it


@pytest.fixture(scope="module")
def owner(proxy):
    token = proxy.token("owner")
    key = ("X-Account-Meta-Temp-URL-Key", KEY)
    assert proxy.request(ACCOUNT, token, key, method="POST").status == 204
    return token


@pytest.fixture(scope="module")
def guest(proxy):
    return proxy.token("guest")


@pytest.fixture
def container(proxy, owner):
    """A container that only its owner may read."""
    target = f"{ACCOUNT}/container-{next(numbers)}"
    assert proxy.request(target, owner, method="PUT").status == 201
    return target


def put(proxy, owner, target, body=BODY, *headers):
    reply = proxy.request(target, owner, *headers, method="PUT", body=body)
    assert reply.status == 201
    return reply


@pytest.fixture
def image(proxy, owner, container):
    """An object with a slash in its name, in the cache."""
    target = f"{container}/disks/image.raw"
    put(proxy, owner, target, BODY, ("Content-Type", "application/octet-stream"))
    assert proxy.request(target, owner).cache_status == "fwd=uri-miss; stored"
    return target


def allow(proxy, owner, container, readers):
    reply = proxy.request(container, owner, ("X-Container-Read", readers), method="POST")
    assert reply.status == 204


@pytest.fixture
def asked(swift):
    """Method and status of each request to the object server since the last look."""
    seen = len(swift.object_requests())

    def look():
        nonlocal seen
        lines = swift.object_requests()
        new, seen = lines[seen:], len(lines)
        return [re.search(r'"(\w+) \S+" (\d+)', line).groups() for line in new]

    return look


def test_hit_asks_the_object_server_for_no_byte(proxy, owner, image, asked):
    """And looks like the answer that it stands for: Swift's tags have no quotes."""
    asked()
    hit = proxy.request(image, owner)

    assert hit.body == BODY
    assert hit.headers["etag"] == TAG
    assert hit.headers["content-type"] == "application/octet-stream"
    assert "fwd-status=304" in hit.cache_status
    assert asked() == [("GET", "304")]


def test_whoever_may_not_read_gets_nothing(proxy, guest, image, asked):
    """The authorize callback is asked; no object server is."""
    asked()

    assert proxy.request(image).status == 401
    assert proxy.request(image, ("X-Auth-Token", "AUTH_tkwrong")).status == 401
    refused = proxy.request(image, guest)
    assert refused.status == 403
    assert BODY[:1000] not in refused.body
    assert proxy.request(image, guest, method="HEAD").status == 403
    assert proxy.request(image, guest, ("Range", "bytes=0-9")).status == 403
    assert proxy.request(image, guest, ("If-None-Match", TAG)).status == 403
    assert asked() == []


def test_whoever_may_read_gets_what_another_has_brought(
    proxy, owner, guest, container, image, asked
):
    allow(proxy, owner, container, "test:guest")
    asked()
    hit = proxy.request(image, guest)

    assert hit.body == BODY
    assert asked() == [("GET", "304")]


def test_permission_that_is_withdrawn_holds_from_the_next_request_on(
    proxy, owner, container, image
):
    allow(proxy, owner, container, ".r:*")
    before = proxy.request(image)
    allow(proxy, owner, container, "test:somebody")
    after = proxy.request(image)

    assert (before.status, before.body) == (200, BODY)
    assert after.status == 401


def test_deleted_object_is_gone(proxy, owner, image):
    assert proxy.request(image, owner, method="DELETE").status == 204
    assert proxy.request(image, owner).status == 404


def test_object_that_was_deleted_past_the_cache_is_gone(proxy, owner, image, start_proxy):
    """Through another proxy, which the cache does not see."""
    other = start_proxy(PIPELINE.replace(" cachemw", ""))
    assert other.request(image, other.token("owner"), method="DELETE").status == 204

    assert proxy.request(image, owner).status == 404


def test_object_that_was_replaced_past_the_cache_is_the_new_one(proxy, owner, image, start_proxy):
    """Also within the second of Last-Modified, where Swift says 304 to its date."""
    other = start_proxy(PIPELINE.replace(" cachemw", ""))
    new = BODY[::-1]
    put(other, other.token("owner"), image, new)

    assert proxy.request(image, owner).body == new
    assert proxy.request(image, owner).body == new


@pytest.mark.parametrize("method", ["PUT", "COPY"])
def test_object_that_was_replaced_through_the_cache_is_the_new_one(
    proxy, owner, container, image, method
):
    new = os.urandom(1000)
    if method == "PUT":
        put(proxy, owner, image, new)
    else:
        put(proxy, owner, f"{container}/other", new)
        destination = ("Destination", image.removeprefix(ACCOUNT))
        copied = proxy.request(f"{container}/other", owner, destination, method="COPY")
        assert copied.status == 201

    assert proxy.request(image, owner).body == new


def test_copy_has_the_bytes_and_the_fields_of_the_object_that_it_is_made_of(
    proxy, owner, container, image
):
    """Swift reads the source through the filter."""
    color = ("X-Object-Meta-Color", "red")
    assert proxy.request(image, owner, color, method="POST").status == 202
    destination = ("Destination", f"{container}/copy".removeprefix(ACCOUNT))
    assert proxy.request(image, owner, destination, method="COPY").status == 201
    copy = proxy.request(f"{container}/copy", owner)

    assert copy.body == BODY
    assert copy.headers["x-object-meta-color"] == "red"


def test_fields_that_were_changed_are_the_new_ones(proxy, owner, image):
    """A POST replaces them all, so those that it does not name are gone."""
    post = [("X-Object-Meta-Color", "red"), ("X-Object-Meta-Size", "big")]
    assert proxy.request(image, owner, *post, method="POST").status == 202
    assert proxy.request(image, owner).headers["x-object-meta-color"] == "red"
    post = [("X-Object-Meta-Size", "small"), ("Content-Type", "image/png")]
    assert proxy.request(image, owner, *post, method="POST").status == 202
    hit = proxy.request(image, owner)

    assert hit.headers["x-object-meta-size"] == "small"
    assert hit.headers["content-type"] == "image/png"
    assert "x-object-meta-color" not in hit.headers
    assert hit.body == BODY


def test_fields_that_were_changed_past_the_cache_are_the_new_ones(
    proxy, owner, container, start_proxy
):
    target = f"{container}/image"
    put(proxy, owner, target, BODY, ("X-Object-Meta-Color", "red"))
    assert proxy.request(target, owner).headers["x-object-meta-color"] == "red"
    other = start_proxy(PIPELINE.replace(" cachemw", ""))
    size = ("X-Object-Meta-Size", "big")
    assert other.request(target, other.token("owner"), size, method="POST").status == 202
    hit = proxy.request(target, owner)

    assert "fwd-status=304" in hit.cache_status
    assert hit.headers["x-object-meta-size"] == "big"
    assert "x-object-meta-color" not in hit.headers
    assert hit.body == BODY


@pytest.mark.parametrize("tag", [TAG, f'"{TAG}"', "*"])
def test_client_that_has_it_already_gets_no_body(proxy, owner, image, tag):
    """Swift takes tags with and without quotes."""
    reply = proxy.request(image, owner, ("If-None-Match", tag))

    assert (reply.status, reply.body) == (304, b"")
    assert reply.headers["etag"] == TAG


def test_client_that_has_another_gets_the_body(proxy, owner, image):
    reply = proxy.request(image, owner, ("If-None-Match", "0" * 32))

    assert (reply.status, reply.body) == (200, BODY)


def test_part_comes_from_the_cache(proxy, owner, image, asked):
    asked()
    part = proxy.request(image, owner, ("Range", "bytes=1000-1999"))
    end = proxy.request(image, owner, ("Range", "bytes=-10"), ("If-Range", f'"{TAG}"'))

    assert (part.status, part.body) == (206, BODY[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(BODY)}"
    assert (end.status, end.body) in ((206, BODY[-10:]), (200, BODY))
    assert asked() == [("GET", "304"), ("GET", "304")]


def test_newest_is_asked_of_the_servers(proxy, owner, image, asked):
    asked()
    reply = proxy.request(image, owner, ("X-Newest", "true"))

    assert reply.body == BODY
    assert asked()


def test_file_for_operators_runs_as_it_is(swift, owner, image, tmp_path):
    """``etc/swift-cachemw-proxy-server.conf``, all but ports and places."""
    text = (ROOT / "etc" / "swift-cachemw-proxy-server.conf").read_text()
    with swift.proxy_of(text, tmp_path / "cache") as proxy:
        token = proxy.token("owner")
        first, second = (proxy.request(image, token) for _ in range(2))

    assert first.body == second.body == BODY
    assert "stored" in first.cache_status
    assert "fwd-status=304" in second.cache_status


def test_quoted_tags_stay_quoted(swift, owner, image, start_proxy):
    """With ``etag-quoter`` in the pipeline, left of the filter."""
    proxy = start_proxy(
        PIPELINE.replace("tempauth", "tempauth etag-quoter"), preset="swift", min_free=0
    )
    token = proxy.token("owner")
    first, hit = proxy.request(image, token), proxy.request(image, token)

    assert first.headers["etag"] == hit.headers["etag"] == f'"{TAG}"'
    assert "fwd-status=304" in hit.cache_status
    reply = proxy.request(image, token, ("If-None-Match", f'"{TAG}"'))
    assert (reply.status, reply.headers["etag"]) == (304, f'"{TAG}"')


def test_encrypted_object_is_cached_as_clients_get_it(container, start_proxy, asked):
    """With the filter left of ``keymaster`` and ``encryption``."""
    pipeline = PIPELINE.replace("proxy-server", "keymaster encryption proxy-server")
    proxy = start_proxy(pipeline, preset="swift", min_free=0)
    token = proxy.token("owner")
    put(proxy, token, f"{container}/secret", BODY)
    first = proxy.request(f"{container}/secret", token)
    asked()
    hit = proxy.request(f"{container}/secret", token)

    assert first.body == hit.body == BODY
    assert first.headers["etag"] == hit.headers["etag"] == TAG
    assert asked() == [("GET", "304")]


# Large objects: the filter has their segments


def put_segments(proxy, owner, container, count=3):
    """Put segments. :return: their bytes, and what a manifest says of them."""
    target = f"{container}-segments"
    assert proxy.request(target, owner, method="PUT").status == 201
    bodies = [os.urandom(1024 * 1024 + number) for number in range(count)]
    manifest = []
    for number, body in enumerate(bodies):
        put(proxy, owner, f"{target}/part-{number}", body)
        path = f"{target}/part-{number}".removeprefix(ACCOUNT)
        tag = hashlib.md5(body).hexdigest()
        manifest.append({"path": path, "etag": tag, "size_bytes": len(body)})
    return b"".join(bodies), manifest


@pytest.fixture
def static(proxy, owner, container):
    body, manifest = put_segments(proxy, owner, container)
    target = f"{container}/static"
    put(proxy, owner, f"{target}?multipart-manifest=put", json.dumps(manifest).encode())
    return target, body


@pytest.fixture
def dynamic(proxy, owner, container):
    body, _ = put_segments(proxy, owner, container)
    target = f"{container}/dynamic"
    prefix = f"{container}-segments/part-".removeprefix(f"{ACCOUNT}/")
    reply = proxy.request(target, owner, ("X-Object-Manifest", prefix), method="PUT")
    assert reply.status == 201
    return target, body


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_segments_come_from_the_cache(proxy, owner, request, kind, asked):
    target, body = request.getfixturevalue(kind)
    first = proxy.request(target, owner)
    asked()
    second = proxy.request(target, owner)

    assert first.body == second.body == body
    assert first.headers["etag"] == second.headers["etag"]
    assert [status for _, status in asked()].count("304") == 3


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_part_of_a_large_object_is_right(proxy, owner, request, kind):
    target, body = request.getfixturevalue(kind)
    around = ("Range", f"bytes={2**20 - 10}-{2**20 + 9}")
    parts = [proxy.request(target, owner, around)]
    proxy.request(target, owner)
    parts.append(proxy.request(target, owner, around))

    assert [part.status for part in parts] == [206, 206]
    assert {part.body for part in parts} == {body[2**20 - 10 : 2**20 + 10]}


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_whoever_may_not_read_the_segments_gets_none(proxy, owner, guest, container, request, kind):
    """Though Swift says 304 to whoever may read the manifest of a static one."""
    target, body = request.getfixturevalue(kind)
    proxy.request(target, owner)
    allow(proxy, owner, container, "test:guest")
    reply = proxy.request(target, guest)

    assert reply.status in (403, 409)
    assert body[:1000] not in reply.body


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_filter_left_of_slo_and_dlo_keeps_no_large_object(owner, request, kind, start_proxy):
    """There, a 304 would let out bytes whose segments may be forbidden."""
    target, body = request.getfixturevalue(kind)
    pipeline = PIPELINE.replace(" cachemw", "").replace(" copy", " cachemw copy")
    proxy = start_proxy(pipeline, preset="swift", min_free=0)
    for _ in range(2):
        reply = proxy.request(target, proxy.token("owner"))
        assert reply.body == body
        assert reply.cache_status == "fwd=uri-miss; detail=manifest"


def test_manifest_is_not_taken_for_the_object(proxy, owner, static):
    target, body = static
    proxy.request(target, owner)
    manifest = proxy.request(f"{target}?multipart-manifest=get", owner)
    whole = proxy.request(target, owner)
    again = proxy.request(f"{target}?multipart-manifest=get", owner)

    assert len(json.loads(manifest.body)) == 3
    assert manifest.body == again.body
    assert whole.body == body


def test_segment_that_was_replaced_breaks_the_large_object_as_without_a_cache(
    proxy, owner, container, static
):
    """The manifest has its old tag."""
    target, _ = static
    proxy.request(target, owner)
    put(proxy, owner, f"{container}-segments/part-0", os.urandom(2**20))

    assert proxy.request(target, owner).status == 409


# Other ways to an object


def signed(target, seconds=600):
    expires = int(time.time()) + seconds
    text = f"GET\n{expires}\n{target}".encode()
    signature = hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest()
    return f"{target}?temp_url_sig={signature}&temp_url_expires={expires}"


def test_temporary_url_lets_the_cached_copy_out(proxy, image):
    url = signed(image)
    replies = [proxy.request(url), proxy.request(url)]

    assert [reply.body for reply in replies] == [BODY, BODY]
    assert {"attachment" in reply.headers["content-disposition"] for reply in replies} == {True}
    assert "fwd-status=304" in replies[1].cache_status


def test_every_temporary_url_lets_the_same_copy_out(proxy, image, asked):
    """Else each would bring a copy of its own."""
    asked()
    for seconds in (700, 800):
        assert proxy.request(signed(image, seconds)).body == BODY

    assert asked() == [("GET", "304"), ("GET", "304")]


def test_temporary_url_that_is_wrong_or_over_gets_nothing(proxy, image):
    proxy.request(signed(image))

    assert proxy.request(signed(image).replace("sig=", "sig=0")).status == 401
    assert proxy.request(signed(image, -10)).status == 401


def test_each_version_is_itself(proxy, owner, container):
    enable = ("X-Versions-Enabled", "true")
    assert proxy.request(container, owner, enable, method="POST").status == 204
    target = f"{container}/image"
    ids = {}
    for body in (BODY, BODY[::-1]):
        ids[put(proxy, owner, target, body).headers["x-object-version-id"]] = body
    for _ in range(2):
        assert proxy.request(target, owner).body == BODY[::-1]
        for version, body in ids.items():
            assert proxy.request(f"{target}?version-id={version}", owner).body == body


def test_link_is_what_it_points_to(proxy, owner, guest, container, image):
    """And is read by whoever may read that."""
    link = f"{container}-links"
    proxy.request(link, owner, ("X-Container-Read", "test:guest"), method="PUT")
    points = ("X-Symlink-Target", image.removeprefix(f"{ACCOUNT}/"))
    assert proxy.request(f"{link}/one", owner, points, method="PUT").status == 201
    for _ in range(2):
        assert proxy.request(f"{link}/one", owner).body == BODY
        assert proxy.request(f"{link}/one", guest).status == 403
    assert proxy.request(f"{link}/one?symlink=get", owner).body == b""


def test_object_that_expires_is_gone(proxy, owner, container):
    target = f"{container}/image"
    put(proxy, owner, target, BODY, ("X-Delete-After", "2"))
    assert proxy.request(target, owner).body == BODY
    assert proxy.request(target, owner).body == BODY
    time.sleep(3)

    assert proxy.request(target, owner).status == 404


def test_listings_and_accounts_are_left_alone(proxy, owner, container, image):
    for target in (container, f"{container}/", ACCOUNT, "/info"):
        assert "cache-status" not in proxy.request(target, owner).headers


def test_names_that_are_not_ascii_are_kept_apart(proxy, owner, container):
    bodies = {f"{container}/%C3%A9": b"e", f"{container}/%25C3%25A9": b"percent"}
    for target, body in bodies.items():
        put(proxy, owner, target, body * 1000)
    for _ in range(2):
        for target, body in bodies.items():
            assert proxy.request(target, owner).body == body * 1000
