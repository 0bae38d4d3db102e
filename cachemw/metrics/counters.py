"""The numbers of one process, in a file that others can read.

``docs/formats/cache-directory.rst`` is the authority for the bytes. The file is
mapped into memory, so that counting is an addition, and nothing is lost by
whoever is killed. Its process holds a lock on it for as long as it lives.

Imports: concurrency, metrics.declared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import time
import weakref

from .. import concurrency
from .declared import NAMES, Metric, bucket

log = concurrency.get_logger(__name__)

#: The folder of the files, in the cache directory.
FOLDER = ".stats"

#: What a file begins with; a change of the format changes it.
MAGIC = b"cachemws1"

#: What ends the name of a file with numbers.
SUFFIX = ".counts"

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class Counters:
    """Counts for one cache directory in this process. Threads may share it.

    Where there can be no file, it counts for this process alone.

    :param directory: the cache directory; ``None``: there is none.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._begin()
        _every.add(self)

    def _begin(self) -> None:
        # Reentrant: the garbage collector may close something, and count it, at any point.
        self._lock = concurrency.RLock()
        self._places: memoryview | None = None
        self._map: mmap.mmap | None = None
        self._is_closed = False

    def forget_parent(self) -> None:
        """Begin with nothing in a child of fork: the file is the parent's."""
        # What is mapped goes with its last reference, and with it the descriptor through which
        # the child would go on holding the parent's lock.
        self._begin()

    def add(self, metric: Metric, more: int = 1, value: str = "") -> None:
        """Count ``more`` of one series."""
        self.add_to((metric.place(value), more))

    def observe(self, metric: Metric, seconds: float, value: str = "") -> None:
        """Count a time in a histogram."""
        self.add_to(*observed(metric, metric.place(value), seconds))

    def add_to(self, *counted: tuple[int, int]) -> None:
        """Count in several series at once. Never raises.

        :param counted: places (see :meth:`~cachemw.metrics.declared.Metric.place`), and what is
            added there.
        """
        with self._lock:
            places = self._places
            if places is None:
                places = self._places = self._map_file()
            for place, more in counted:
                places[place] += more

    def own(self) -> dict[str, int]:
        """Give what this process counted, by name."""
        with self._lock:
            places = self._places or [0] * len(NAMES)
            return dict(zip(NAMES, places, strict=True))

    def _map_file(self) -> memoryview:
        head = _head()
        size = len(head) + 8 * len(NAMES)
        if self._directory is not None and not self._is_closed:
            try:
                fd = _make_file(os.path.join(self._directory, FOLDER), head, size)
                try:
                    # It keeps the file open, and so locked.
                    self._map = mmap.mmap(fd, size)
                finally:
                    os.close(fd)
                return memoryview(self._map)[len(head) :].cast("q")
            except OSError as exc:
                log.warning("statistics are not shared with other processes: %s", exc)
        return memoryview(bytearray(size))[len(head) :].cast("q")

    def close(self) -> None:
        """Let go of the file; what was counted stays in it. Counting goes on, for nobody."""
        with self._lock:
            self._is_closed = True
            places, self._places = self._places, None
            mapped, self._map = self._map, None
        if places is not None:
            places.release()
        if mapped is not None:
            mapped.close()


def observed(metric: Metric, place: int, seconds: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give what :meth:`Counters.add_to` is to count for a time.

    :param place: of the histogram's series.
    """
    buckets = metric.buckets
    return (
        (place + bucket(buckets, seconds), 1),
        (place + len(buckets) + 1, int(seconds * 1e9)),
    )


def _head() -> bytes:
    """Give what stands before the numbers: a line, and their names, as long as they need."""
    text = json.dumps({"pid": os.getpid(), "started": time.time(), "names": NAMES}).encode()
    line = b"%s %010d\n" % (MAGIC, len(text))
    return (line + text).ljust(-(-(len(line) + len(text)) // 8) * 8, b"\n")


def _make_file(folder: str, head: bytes, size: int) -> int:
    """Make this process's file, which is locked before anybody can see it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    try:
        name = f"{os.getpid()}-{time.time_ns()}"
        fd = os.open(
            f".{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=directory
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Written, not only made longer: a full disk must not kill who counts.
            if os.write(fd, head.ljust(size, b"\0")) != size:
                raise OSError(f"{folder}: no room for {size} bytes")
            os.rename(f".{name}", f"{name}{SUFFIX}", src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(f".{name}", dir_fd=directory)
            raise
        return fd
    finally:
        os.close(directory)


_every: weakref.WeakSet[Counters] = weakref.WeakSet()


def _in_child() -> None:
    for counters in list(_every):
        counters.forget_parent()


os.register_at_fork(after_in_child=_in_child)


#: Counts for nobody.
NOBODY = Counters(None)
