"""The lock of a cache directory, which remembers what its holder was changing.

Whoever renames or removes entries holds ``<dir>/.lock`` exclusively (flock,
which the kernel lets go when the process dies) and first writes into it the
names it is about to change. A holder that finds names there knows that the
one before it died in the middle, and has them looked at: the directory is
right, and index or totals are made to agree with it. The same goes for all
entries if the file was written under another boot of the machine, since a
power cut may have undone anything, or by another driver.

``docs/formats/cache-directory.rst`` is the authority for the file's bytes.

Imports: concurrency, drivers._boot, drivers._forks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from .. import concurrency
from . import _forks
from ._boot import boot_id

log = concurrency.get_logger(__name__)

#: The lock's file, in the cache directory.
NAME = ".lock"

#: The file is always this long, so that writing it needs no room on a full disk.
SIZE = 8192

#: More names than this, and all entries are looked at after a crash.
MOST_NAMES = 100

#: Stands for all names.
EVERYTHING = None

_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclasses.dataclass
class State:
    """What the lock's file says.

    :param boot: the boot of the machine under which it was written.
    :param driver: the name of the driver that wrote it.
    :param changing: entry names being changed; ``None``: any.
    :param total: bytes of all entries, for drivers without an index;
        ``None``: not known.
    """

    boot: str
    driver: str
    changing: list[str] | None
    total: int | None


class DirectoryLock:
    """The lock of one cache directory. Threads and processes exclude each other.

    :param driver: the name of the driver that keeps index or totals.
    :param open_directory: gives the cache directory's descriptor.
    :param repair: makes index and totals agree with the directory for some
        names (``None``: all); called with the lock held.
    """

    def __init__(
        self,
        driver: str,
        open_directory: Callable[[], int],
        repair: Callable[[Collection[str] | None], None],
    ) -> None:
        self._driver = driver
        self._open_directory = open_directory
        self._repair = repair
        self._thread_lock = concurrency.RLock()
        self._depth = 0
        self._fd = -1
        self._holder = 0
        self._forks = 0
        #: Whether the log says already that a repair is put off.
        self._is_late = False
        self.state = self._unknown()
        _forks.register(self)

    def forget_parent(self) -> None:
        """Let go, in a child of fork, of what a thread of the parent held."""
        fd, self._fd = self._fd, -1
        self._thread_lock = concurrency.RLock()
        self._depth = self._holder = 0
        self._forks += 1
        if fd != -1:
            os.close(fd)

    def is_mine(self) -> bool:
        """Say whether the calling thread holds the lock."""
        return self._holder == concurrency.get_ident()

    @contextlib.contextmanager
    def hold(self, mends: bool = True) -> Iterator[DirectoryLock]:
        """Hold the lock; the same thread may hold it again inside.

        :param mends: whether what a holder that died was changing is repaired first; else it
            is left to the next who does.
        :raises OSError: the file cannot be opened, read or written.
        """
        with self._thread_lock:
            if self._depth == 0:
                self._acquire()
            self._depth += 1
            forks = self._forks
            try:
                if self._depth == 1:
                    self._holder = concurrency.get_ident()
                    self._load()
                    if mends and self.state.changing != []:
                        self._repair_now_or_later()
                yield self
            finally:
                # A child that was forked in here never held it.
                if forks == self._forks:
                    self._depth -= 1
                    if self._depth == 0:
                        self._release()

    @contextlib.contextmanager
    def changing(self, names: Collection[str]) -> Iterator[DirectoryLock]:
        """Hold the lock around a change of these entries.

        Where the block raises, or the process dies in it, the names are
        repaired: by this holder if it can, else by the next.
        """
        with self.hold():
            before = self.state.changing
            self._note(_united(before, names))
            try:
                yield self
            except BaseException:
                self._repair_now_or_later()
                raise
            self._note(before)

    def _acquire(self) -> None:
        directory = self._open_directory()
        while True:
            fd = os.open(NAME, _FLAGS, 0o600, dir_fd=directory)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_named(fd, directory):
                    self._fd = fd
                    return
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        self._holder = 0
        try:
            # Closing is not enough: a child that was just forked has the descriptor too.
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _load(self) -> None:
        """Read the file."""
        self.state = _parse(os.pread(self._fd, SIZE, 0)) or self._unknown()
        if (self.state.boot, self.state.driver) != (boot_id(), self._driver):
            self.state = self._unknown()

    def last_writer(self) -> str:
        """Name the driver that wrote the file last; empty if there is none that can be read."""
        try:
            fd = os.open(NAME, os.O_RDONLY | _NO_LINK, dir_fd=self._open_directory())
        except OSError:
            return ""
        try:
            state = _parse(os.pread(fd, SIZE, 0))
        except OSError:
            return ""
        finally:
            os.close(fd)
        return state.driver if state is not None else ""

    def _repair_now_or_later(self) -> None:
        """Repair what is written down, or leave it to the next holder: removing entries must
        be possible all the same, since it may be what is needed. Never raises."""
        try:
            self._repair(self.state.changing)
            self._note([])
            self._is_late = False
        except Exception as exc:
            # Every request may hold the lock, on a disk that is full for hours.
            log.log(
                logging.DEBUG if self._is_late else logging.WARNING,
                "an interrupted change is to be repaired later: %s",
                exc,
            )
            self._is_late = True

    def _unknown(self) -> State:
        return State(boot_id(), self._driver, EVERYTHING, None)

    def _note(self, names: list[str] | None) -> None:
        self.state.changing = names
        text = json.dumps(dataclasses.asdict(self.state), separators=(",", ":"))
        if len(text) > SIZE:
            self.state.changing = EVERYTHING
            text = json.dumps(dataclasses.asdict(self.state), separators=(",", ":"))
        os.pwrite(self._fd, text.ljust(SIZE).encode("ascii"), 0)


def _united(before: list[str] | None, names: Collection[str]) -> list[str] | None:
    if before is EVERYTHING or len(before) + len(names) > MOST_NAMES:
        return EVERYTHING
    return [*before, *names]


def _parse(text: bytes) -> State | None:
    try:
        values: dict[str, Any] = json.loads(text)
        state = State(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    names, total = state.changing, state.total
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        return None
    return state if total is None or isinstance(total, int) else None


def driver_of(directory: str) -> str | None:
    """Give the name of the driver that a cache directory was used with last; ``None`` if
    nothing tells."""
    try:
        fd = os.open(os.path.join(directory, NAME), _READ)
        try:
            state = _parse(os.read(fd, SIZE))
        finally:
            os.close(fd)
    except OSError:
        return None
    return state.driver if state is not None and isinstance(state.driver, str) else None


def _is_named(fd: int, directory: int) -> bool:
    """Say whether the lock's file is still the one in the directory."""
    try:
        named = os.stat(NAME, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))
