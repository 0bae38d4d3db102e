"""What goes wrong meanwhile: workers are killed, and the file system runs full."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import Server, descriptors

from .judge import Kill

#: Bytes of the ballast written at a time.
_STEP = 2**20


@contextlib.contextmanager
def tmpfs(path: Path, size: int) -> Iterator[str | None]:
    """Mount a file system of its own, in memory.

    :param size: bytes.
    :return: why that cannot be, or ``None``.
    """
    if os.geteuid() != 0:
        yield "mounting a tmpfs needs root"
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        yield f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}"
        return
    try:
        yield None
    finally:
        # Lazily, since a test that failed may have files open there.
        subprocess.run(["umount", "-l", str(path)], check=True)


class Killer:
    """Kills a worker now and then, with SIGKILL.

    :param workers: how many there are when none is missing.
    :param pause: seconds between two kills, at most.
    """

    def __init__(self, server: Server, workers: int, pause: float, seed: str) -> None:
        self.kills: list[Kill] = []
        self._server = server
        self._workers = workers
        self._pause = pause
        self._choice = random.Random(f"kill {seed}")

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._choice.uniform(self._pause / 2, self._pause)):
            workers = self._server.workers()
            if len(workers) == self._workers:
                pid, began = self._choice.choice(workers), time.monotonic()
                os.kill(pid, signal.SIGKILL)
                self.kills.append(Kill(pid, began, time.monotonic()))


class Ballast:
    """Fills the file system to its last byte for some seconds, and gives it back.

    :param path: a file beside the cache directory.
    """

    def __init__(self, path: Path, seed: str) -> None:
        #: How often it was full.
        self.times = 0
        self._path = path
        self._choice = random.Random(f"ballast {seed}")

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._choice.uniform(2, 8)):
            with open(self._path, "wb", buffering=0) as file:
                deadline = time.monotonic() + self._choice.uniform(1, 4)
                while time.monotonic() < deadline and not stop.is_set():
                    self._fill(file.fileno())
                    stop.wait(0.05)
            self._path.unlink()
            self.times += 1

    def _fill(self, fd: int) -> None:
        # What others give back meanwhile is taken too.
        for size in (_STEP, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))


class Watcher:
    """Looks how many descriptors and threads each worker has, and files of the cache open.

    :param directory: of the cache.
    :ivar most: the most of each that any worker had at any time.
    """

    def __init__(self, server: Server, directory: Path) -> None:
        self.most = {"descriptors": 0, "threads": 0, "files": 0}
        self._server = server
        self._directory = directory

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            for pid in self._server.workers():
                with contextlib.suppress(OSError):  # it was killed
                    for kind, count in held_by(pid, self._directory).items():
                        self.most[kind] = max(self.most[kind], count)


def held_by(pid: int, directory: Path) -> dict[str, int]:
    """Count a process's threads, its descriptors, and those of them in a directory.

    :raises OSError: there is no such process any more.
    """
    threads = len(os.listdir(f"/proc/{pid}/task"))
    paths = descriptors(pid).values()
    files = sum(path.startswith(f"{directory}/") for path in paths)
    return {"descriptors": len(paths), "threads": threads, "files": files}
