"""Work on the blocks of a fill beside the response: hashing and writing overlap with both ends.

``hashlib`` and ``write`` let go of the interpreter's lock, so a block can be
hashed and written by two threads while the response's own thread waits for
the app or the client. The threads are shared by all fills of the process and
begin with the first block of the first large fill, since threads that begin
before a server forks are dead after it.

Imports: concurrency.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from .. import concurrency

T = TypeVar("T")

#: Threads of all fills together: there is no use in more than keep the processors busy.
THREADS = 4

#: Bytes of one fill that may wait for one kind of work; then the response waits.
LIMIT = 16 * 2**20

#: Blocks that one fill gets worked on before another fill has its turn.
_TURN = 16

_pool: ThreadPoolExecutor | concurrency.Pool | None = None
_pool_pid = 0
_pool_lock = concurrency.Lock()


class Pipeline(Generic[T]):
    """Passes every block to each worker, in order; the workers run beside each other.

    Calls come from one thread at a time. A worker that raises gets no further
    blocks; its exception is kept in :attr:`errors`, at the worker's position.

    :param workers: called with one block each; never two calls of one worker at once.
    :param size: gives the bytes of memory that a block takes.
    """

    def __init__(self, workers: Sequence[Callable[[T], object]], size: Callable[[T], int]) -> None:
        self.errors: list[Exception | None] = [None] * len(workers)
        self._workers = workers
        self._size = size
        self._queues: list[deque[T]] = [deque() for _ in workers]
        self._waiting = [0] * len(workers)
        self._running = [False] * len(workers)
        #: Counts the turns taken: a turn is worked once, whoever is asked to.
        self._turns = [0] * len(workers)
        self._changed = concurrency.Condition()

    def wait_for_room(self) -> None:
        """Wait while a worker has :data:`LIMIT` bytes before it."""
        if max(self._waiting) >= LIMIT:
            concurrency.run_blocking(self._wait_for_room)

    def is_idle(self) -> bool:
        """Say whether every block that was handed over is done."""
        return not any(self._running)

    def put(self, block: T) -> None:
        """Hand over a block. Never waits."""
        size = self._size(block)
        idle = []
        with self._changed:
            for lane, queue in enumerate(self._queues):
                if self.errors[lane] is None:
                    queue.append(block)
                    self._waiting[lane] += size
                    if not self._running[lane]:
                        self._running[lane] = True
                        idle.append(lane)
        for lane in idle:
            self._start_turn(lane)

    def drain(self) -> None:
        """Wait until every block that was handed over is done."""
        if any(self._running):
            concurrency.run_blocking(self._wait_until_idle)

    def _wait_for_room(self) -> None:
        with self._changed:
            while max(self._waiting) >= LIMIT:
                self._changed.wait()

    def _wait_until_idle(self) -> None:
        with self._changed:
            while any(self._running):
                self._changed.wait()

    def _start_turn(self, lane: int) -> None:
        """Have a thread of the pool work, or this one where no thread can be had."""
        turn = self._turns[lane]
        try:
            _threads().submit(self._work, lane, turn)
        except RuntimeError:
            # The pool may have queued the call all the same, before it failed to start a
            # thread: whoever comes second finds the turn taken.
            self._work(lane, turn)

    def _work(self, lane: int, turn: int) -> None:
        with self._changed:
            if self._turns[lane] != turn:
                return
            self._turns[lane] += 1
        for _ in range(_TURN):
            with self._changed:
                if not self._queues[lane]:
                    self._running[lane] = False
                    self._changed.notify_all()
                    return
                block = self._queues[lane].popleft()
            self._do(lane, block)
        self._start_turn(lane)

    def _do(self, lane: int, block: T) -> None:
        error = None
        try:
            self._workers[lane](block)
        except Exception as exc:
            error = exc
        with self._changed:
            self._waiting[lane] -= self._size(block)
            if error is not None:
                self.errors[lane] = error
                self._queues[lane].clear()
                self._waiting[lane] = 0
            self._changed.notify_all()


def _threads() -> ThreadPoolExecutor | concurrency.Pool:
    global _pool, _pool_pid
    with _pool_lock:
        if _pool is None or _pool_pid != os.getpid():
            if concurrency.is_green():
                _pool = concurrency.Pool(THREADS)
            else:
                _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cachemw-fill")
            _pool_pid = os.getpid()
        return _pool


def _forget_pool() -> None:
    """A child of fork has none of its parent's threads, and maybe its parent's held lock."""
    global _pool, _pool_lock
    _pool = None
    _pool_lock = concurrency.Lock()


os.register_at_fork(after_in_child=_forget_pool)
