"""The filter in the pipeline of a real Swift proxy, which runs under eventlet.

Runs where ``CACHEMW_ENGINES`` contains ``swift``.
"""

import contextlib
import hashlib
import http.client
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.engines.swift import Swift

pytestmark = [
    pytest.mark.skipif(
        "swift" not in os.environ.get("CACHEMW_ENGINES", ""),
        reason="starts a Swift: set CACHEMW_ENGINES=swift",
    ),
    pytest.mark.timeout(600),
]

ACCOUNT = "/v1/AUTH_test"

#: Seconds within which the hub must answer something else while large images pass.
PROMPT = 0.05

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

        def start(**options):
            options.setdefault("dir", tmp_path / "cache")
            name = f"{request.node.name[:60]}-{next(numbers)}"
            return stack.enter_context(swift.proxy(name, options=options))

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


class Latency:
    """Asks a proxy for ``/healthcheck`` again and again, and an idle one beside it.

    What the idle one's answers take at most is what the machine itself takes just now.
    """

    def __init__(self, proxy, idle):
        self.times = {proxy: [], idle: []}
        self._proxy, self._idle = proxy, idle
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[one]) for one in self.times]

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
            began = time.perf_counter()
            assert proxy.request("/healthcheck").status == 200
            self.times[proxy].append(time.perf_counter() - began)

    @property
    def longest(self):
        """What the longest answer took more than the machine's own longest, in seconds."""
        return max(self.times[self._proxy]) - max(self.times[self._idle])

    def __str__(self):
        ranked, idle = (sorted(times) for times in self.times.values())
        return (
            f"{len(ranked)} answers, median {ranked[len(ranked) // 2]:.4f} s, longest"
            f" {ranked[-1]:.4f} s; of the idle one {idle[-1]:.4f} s"
        )


def test_hub_answers_promptly_while_a_gibibyte_is_filled_and_hit(swift, start_proxy):
    """One blocking call on the hub's thread stops every request of the process."""
    proxy, idle = start_proxy(**ANYBODY), start_proxy(**ANYBODY)
    owner = proxy.token("owner")
    block, count = os.urandom(2**20), 1024
    proxy.request(f"{ACCOUNT}/large", owner, ("X-Container-Read", ".r:*"), method="PUT")
    target = f"{ACCOUNT}/large/image"
    upload(proxy, owner, target, (block for _ in range(count)), count * len(block))
    digest = hashlib.md5(block * count).hexdigest()

    with Latency(proxy, idle) as filling:
        filled = download(proxy, target)
    with Latency(proxy, idle) as hitting:
        hit = download(proxy, target)
    print(f"fill: {filling}\nhit: {hitting}")

    assert filled[0] == hit[0] == digest
    assert "fwd=uri-miss; stored" in filled[1]
    assert "cachemw; hit" in hit[1]
    assert filling.longest < PROMPT, str(filling)
    assert hitting.longest < PROMPT, str(hitting)
