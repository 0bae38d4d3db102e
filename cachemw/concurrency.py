"""How calls that may block are made: at once in threads, by a native thread under a hub.

Under eventlet or gevent all requests of a process share one thread, and a
call that blocks it stops them all. There :func:`run_blocking` has the call
made by a native thread and lets other requests go on meanwhile; in a server
with threads it is the call itself.

What runs in it takes no lock of :mod:`threading` (which monkey-patching makes
green) but those made here, touches no object that belongs to a hub, and logs
by :func:`get_logger`, which says on the hub's thread what a native one had to
say: handlers have locks too.

The mode holds for the whole process. ``auto`` is decided at the first call in
each process, since some servers patch after they have loaded the app and forked.

Imports: errors.
"""

from __future__ import annotations

import _thread
import atexit
import functools
import importlib
import logging
import os
import sys
import threading
from _queue import SimpleQueue  # queue.SimpleQueue is replaced by a green one
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from .errors import ConfigError

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

#: The values of the ``concurrency`` option.
MODES = ("auto", "threads", "eventlet", "gevent")


# What is native whatever was patched


def _native(name: str) -> Any:
    """Give a member of :mod:`_thread` as it was before anybody patched it."""
    if "eventlet.patcher" in sys.modules:
        return getattr(sys.modules["eventlet.patcher"].original("_thread"), name)
    if "gevent.monkey" in sys.modules:
        return sys.modules["gevent.monkey"].get_original("_thread", name)
    return getattr(_thread, name)


#: Locks that native threads may share.
Lock: Callable[[], threading.Lock] = _native("allocate_lock")
RLock: Callable[[], threading.RLock] = _native("RLock")

#: Tells native threads apart, not greenlets.
get_ident: Callable[[], int] = _native("get_ident")

_get_native_id: Callable[[], int] = _native("get_native_id")
_start_new_thread: Callable[..., int] = _native("start_new_thread")


class Condition:
    """A condition over a native lock: the three methods of threading's that are used here."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiters: list[threading.Lock] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def wait(self) -> None:
        """Wait, without the lock, for the next :meth:`notify_all`; lock held before and after."""
        waiter = Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        self._lock.release()
        try:
            waiter.acquire()
        finally:
            self._lock.acquire()

    def notify_all(self) -> None:
        """Wake all who wait; lock held."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()


class Alarm:
    """Lets one native thread sleep until another wakes it for good."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake it, now or when it next sleeps."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # set twice

    def wait(self, seconds: float) -> bool:
        """Sleep. :return: whether it was woken."""
        return self._lock.acquire(timeout=seconds)


def start_thread(function: Callable[..., object], *args: object, name: str) -> None:
    """Run a function in a daemon thread that is native in every mode.

    :raises RuntimeError: there can be no more threads.
    """
    if is_green():
        # An object of threading's would be green inside.
        _start_new_thread(function, args)
    else:
        threading.Thread(target=function, args=args, name=name, daemon=True).start()


class Pool:
    """Native threads that make calls; for hubs, where an executor of the library's is green."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._started = 0
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()

    def submit(self, function: Callable[..., object], *args: object) -> None:
        """Have a call made, which must not raise.

        :raises RuntimeError: there can be no thread for it.
        """
        if self._started < self._size:
            self._start()
        self._calls.put((function, args))

    def _start(self) -> None:
        self._started += 1
        try:
            _start_new_thread(self._work, ())
        except RuntimeError:
            self._started -= 1
            if not self._started:
                raise

    def _work(self) -> None:
        while True:
            function, args = self._calls.get()
            function(*args)


# The mode

_Offload = Callable[["_Call"], None]

_mode = "auto"

#: Has a call made by a native thread and waits for it; ``None``: calls are made where they are.
_offload: _Offload | None = None
_decided = False


def configure(mode: str) -> None:
    """Choose how blocking calls are made in this process.

    :param mode: one of :data:`MODES`.
    :raises ConfigError: the library is not installed.
    """
    global _mode, _decided
    if mode in _OFFLOADS:
        try:
            importlib.import_module(mode)
        except ImportError as exc:
            raise ConfigError(f"option 'concurrency' is {mode!r}, but: {exc}") from exc
    _mode, _decided = mode, False


def is_green() -> bool:
    """Say whether requests share a hub's thread."""
    if not _decided:
        _decide()
    return _offload is not None


def offloads() -> bool:
    """Say whether the calling thread must leave blocking calls to others."""
    return is_green() and _get_native_id() == os.getpid()


def _decide() -> None:
    global _offload, _decided
    mode = _patched_by() if _mode == "auto" else _mode
    _offload = _OFFLOADS[mode]() if mode in _OFFLOADS else None
    _decided = True


def _patched_by() -> str:
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and any(map(patcher.is_monkey_patched, ("thread", "socket", "select"))):
        return "eventlet"
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(map(monkey.is_module_patched, ("threading", "socket", "select"))):
        return "gevent"
    return "threads"


def _decide_again() -> None:
    global _decided
    _decided = False
    _unsaid.clear()


os.register_at_fork(after_in_child=_decide_again)


# Waiting and threads of requests

#: Seconds. The system takes no time-out without an end.
_DAY = 86400.0


class Waiter:
    """Lets one request's thread, or greenlet, wait until another of its kind wakes it.

    Unlike :class:`Alarm` it lets the hub's other requests go on. Only request
    threads (or a thread of :func:`start_request_thread`) may wake it.
    """

    __slots__ = ("_semaphore",)

    def __init__(self) -> None:
        if is_green():
            self._semaphore = _make_semaphore()
        else:
            self._semaphore = Lock()
            self._semaphore.acquire()

    def wake(self) -> None:
        """Wake it, now or when it next waits; once."""
        self._semaphore.release()

    def wait(self, seconds: float) -> bool:
        """Wait, at most for a day. :return: whether it was woken."""
        return bool(self._semaphore.acquire(timeout=min(seconds, _DAY)))


def start_request_thread(function: Callable[[], object], name: str) -> None:
    """Run a function beside the requests, as a thread or greenlet of their kind, so that it
    may call the app.

    :raises RuntimeError: there can be no more threads.
    """
    if not is_green():
        start_thread(function, name=name)
    elif _green_mode() == "eventlet":
        importlib.import_module("eventlet").spawn_n(function)
    else:
        importlib.import_module("gevent").spawn(function)


def _green_mode() -> str:
    return _patched_by() if _mode == "auto" else _mode


def _make_semaphore() -> Any:
    """Give a semaphore of the hub's, taken, with ``acquire(timeout=)`` and ``release()``."""
    module = "eventlet.semaphore" if _green_mode() == "eventlet" else "gevent.lock"
    return importlib.import_module(module).Semaphore(0)


# Calls


def run_blocking(
    function: Callable[..., T], *args: Any, undo: Callable[[T], object] | None = None
) -> T:
    """Make a call that may block for long.

    :param undo: gets a result that nobody waits for any more, because a time-out
        was raised in the greenlet that did.
    """
    if not offloads():
        return function(*args)
    call = _Call(function, args, undo)
    assert _offload is not None
    try:
        _offload(call)
    except BaseException:
        call.abandon()
        raise
    finally:
        _say()
    return cast(T, call.result())


def offloaded(
    method: Callable[Concatenate[S, P], T],
) -> Callable[Concatenate[S, P], T]:
    """Make every call of a method through :func:`run_blocking`."""

    @functools.wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        if offloads():
            return run_blocking(functools.partial(method, self, *args, **kwargs))
        return method(self, *args, **kwargs)

    return call


class _Call:
    """One call made by a native thread for a greenlet."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        undo: Callable[[Any], object] | None,
    ) -> None:
        self._function = function
        self._args = args
        self._undo = undo
        self._lock = Lock()
        self._done = self._abandoned = False
        self._value: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Make it; never raises, since libraries print what their threads raise."""
        try:
            self._value = self._function(*self._args)
        except BaseException as exc:
            self._error = exc
        with self._lock:
            self._done = True
            abandoned = self._abandoned
        if abandoned:
            self._discard()

    def abandon(self) -> None:
        """Have the result undone, now or when there is one."""
        with self._lock:
            self._abandoned = True
            done = self._done
        if done:
            self._discard()

    def result(self) -> Any:
        """Give what the call returned, or raise what it raised."""
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def _discard(self) -> None:
        if self._error is None and self._undo is not None:
            self._undo(self._value)


def _by_eventlet() -> _Offload:
    hubs = importlib.import_module("eventlet.hubs")
    tpool = importlib.import_module("eventlet.tpool")
    greenlet = importlib.import_module("greenlet")

    def offload(call: _Call) -> None:
        if greenlet.getcurrent() is hubs.get_hub().greenlet:
            call()  # the hub itself cannot wait
        else:
            tpool.execute(call)

    return offload


def _by_gevent() -> _Offload:
    gevent = importlib.import_module("gevent")

    def offload(call: _Call) -> None:
        hub = gevent.get_hub()
        if gevent.getcurrent() is hub:
            call()  # the hub itself cannot wait
        else:
            hub.threadpool.apply(call)

    return offload


_OFFLOADS: dict[str, Callable[[], _Offload]] = {"eventlet": _by_eventlet, "gevent": _by_gevent}


# Messages

#: What native threads had to say: logger, level, message, arguments, options.
_unsaid: deque[tuple[Logger, int, str, tuple[object, ...], dict[str, Any]]] = deque()


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger that native threads may call: the hub's thread says it for them."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not is_green() or offloads():
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            super().log(level, msg, *args, **kwargs)
            return
        if kwargs.get("exc_info") is True:
            kwargs["exc_info"] = sys.exc_info()
        _unsaid.append((self, level, str(msg), args, kwargs))

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def get_logger(name: str) -> Logger:
    """Give a logger for a module whose functions run in native threads."""
    return Logger(logging.getLogger(name), {})


@atexit.register
def _say() -> None:
    while _unsaid:
        logger, level, message, args, kwargs = _unsaid.popleft()
        logger.log(level, message, *args, **kwargs)
