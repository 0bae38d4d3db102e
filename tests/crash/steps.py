"""One operation on a cache directory, stopped dead at a chosen system call.

Runs in a child. The calls of the drivers' modules that change something on
disk are numbered as they are made, SQLite's statements among them; at the
chosen one the child kills itself: before the call, after it, or with half of
what was to be written.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachemw import CacheFilter, ImageCache
from cachemw.core import check
from cachemw.core.config import Settings
from cachemw.drivers import _index, _xattrs
from cachemw.drivers.base import Record, Sink

from . import syncing
from .origin import ROUTES, Origin, body, download, headers, image_id

#: Functions of ``os`` that the drivers change a directory by.
_CALLS = (
    "open",
    "unlink",
    "rename",
    "replace",
    "fsync",
    "ftruncate",
    "pwrite",
    "write",
    "mkdir",
    "utime",
    "dup2",
    "chmod",
    "rmdir",
)

BEFORE, HALF, AFTER = "before", "half", "after"

#: Nothing is evicted but what the operation wants evicted.
OPTIONS: dict[str, Any] = {"max_size": 4_000_000, "min_free": 0}


class Steps:
    """Numbers the calls from :meth:`begin` on, and kills at one of them.

    :param at: the call's number, from 0; -1: none.
    :param when: ``"before"``, ``"half"`` or ``"after"``.
    """

    def __init__(self, at: int, when: str) -> None:
        self.names: list[str] = []
        self._at, self._when = at, when
        self._on = False

    def begin(self) -> None:
        for name in _CALLS:
            setattr(os, name, self._around(name, getattr(os, name)))
        for name in ("_set", "_remove"):
            setattr(_xattrs, name, self._around(f"xattr{name}", getattr(_xattrs, name)))
        self._on = True

    def end(self) -> None:
        self._on = False

    def make(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call, which is one step."""
        if not self._on or (name == "open" and not args[1] & (os.O_CREAT | os.O_TRUNC)):
            return call(*args, **kwargs)
        number = len(self.names)
        shown = [str(arg) for arg in args if isinstance(arg, str)]
        self.names.append(" ".join([name, *shown])[:60])
        if number == self._at and self._when == BEFORE:
            _die()
        if number == self._at and self._when == HALF:
            if name == "pwrite":
                call(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
            elif name == "write":
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            _die()
        try:
            return call(*args, **kwargs)
        finally:
            if number == self._at:
                _die()

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.make(name, call, *args, **kwargs)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch_sqlite(steps: Steps) -> None:
    """Make each statement that is not a question a step."""

    class Connection(syncing.Connection):
        def execute(self, statement: str, *parameters: Any) -> Any:
            if statement.lstrip().startswith("SELECT"):
                return super().execute(statement, *parameters)
            return steps.make("execute", super().execute, statement, *parameters)

        def executemany(self, statement: str, rows: Any) -> Any:
            return steps.make("executemany", super().executemany, statement, rows)

        def executescript(self, script: str) -> Any:
            return steps.make("executescript", super().executescript, script)

    connect = _index.sqlite3.connect
    _index.sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)


def run(operation: str, directory: str, driver: str, at: int, when: str, names: str) -> None:
    """Do one operation; die at a step of it, or write down the names of its steps.

    :param names: file for the names of the steps.
    """
    syncing.stop()
    steps = Steps(at, when)
    _watch_sqlite(steps)

    def opened() -> CacheFilter:
        options = {"dir": directory, "driver": driver, "driver_fallback": False, **OPTIONS}
        if operation.endswith("durable"):
            options["durability"] = "full"
        if operation == "abort":
            options["on_abort"] = "discard"
        app = CacheFilter(Origin(), routes=ROUTES, **options)
        # What it does beside the requests has steps too, at any time.
        app._background.end()
        return app

    if operation == "repair":
        steps.begin()
        _repair(directory, driver)
    elif operation == "start":
        steps.begin()
        opened()
    else:
        app = opened()
        app.cache.get_cache_size()
        # What the first operation of a process prepares is no step of this one.
        steps.begin()
        OPERATIONS[operation](app)
    steps.end()
    Path(names).write_text(json.dumps(steps.names))


def _repair(directory: str, driver: str) -> None:
    check.SETTLE = 0.0
    options = {"dir": directory, "driver": driver, "driver_fallback": False}
    cache = ImageCache.to_look_at(Settings.from_options(options))
    assert not cache.check(repair=True).is_clean
    cache.close()


def _commit(number: int, version: int = 0) -> Callable[[CacheFilter], None]:
    def operation(app: CacheFilter) -> None:
        answer = download(app, number, version=version, fresh=True)
        answer.assert_right(number)
        assert answer.cache_status.endswith("stored")

    return operation


def _abort(app: CacheFilter) -> None:
    assert not download(app, FRESH, stop_at=0.5).complete


def _begin(app: CacheFilter, number: int, version: int = 0) -> Sink:
    sink = app.cache.driver.start_fill(image_id(number))
    data = body(number, version)
    record = Record(image_id(number), 0, "", tuple(headers(number, version)), stored=time.time())
    sink.announce(record, len(data), keep=not version)
    if sink.kept is None:
        sink.reserve(len(data))
        sink.write(data[: len(data) // 2])
        sink.publish(len(data) // 2)
    return sink


def _finish(sink: Sink, number: int, version: int = 0) -> None:
    data = body(number, version)
    sink.write(data[sink.written :])
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    fields = tuple(headers(number, version))
    sink.commit(Record(image_id(number), len(data), checksum, fields, stored=time.time()))
    sink.close()


def _leave(app: CacheFilter) -> None:
    _begin(app, FRESH_LARGE).leave()


def _leave_and_go_on(app: CacheFilter) -> None:
    _begin(app, FRESH_LARGE).leave()
    sink = _begin(app, FRESH_LARGE)
    assert sink.kept is not None
    _finish(sink, FRESH_LARGE)


def _leave_and_begin_anew(app: CacheFilter) -> None:
    _begin(app, FRESH_LARGE).leave()
    _finish(_begin(app, FRESH_LARGE, 7), FRESH_LARGE, 7)


def _decline(app: CacheFilter) -> None:
    _begin(app, FRESH).leave(declined="no-store")


def _delete_while_filled(app: CacheFilter) -> None:
    sink = _begin(app, FRESH)
    app.cache.delete_cached_image(image_id(FRESH))
    sink.leave()


def _adopt(app: CacheFilter) -> None:
    answer = download(app, ADOPTABLE)
    answer.assert_right(ADOPTABLE)
    assert answer.cache_status == "hit; detail=adopted"


def _invalidate(app: CacheFilter) -> None:
    app.cache.driver.invalidate(image_id(STORED), "damaged, says the test")


def _invalidate_with_record_aside(app: CacheFilter) -> None:
    app.cache.driver.invalidate(image_id(STORED_ASIDE), "damaged, says the test")


def _delete(app: CacheFilter) -> None:
    assert app.cache.delete_cached_image(image_id(STORED))


def _delete_all(app: CacheFilter) -> None:
    assert app.cache.delete_all_cached_images() > 3


def _evict_three(app: CacheFilter) -> None:
    driver = app.cache.driver
    oldest = [driver.get_image_size(image_id(number)) for number in EVICTABLE]
    assert driver.evict(sum(oldest))[0] == 3


def _clean(app: CacheFilter) -> None:
    assert app.cache.clean(0) > 0


def _hits(app: CacheFilter) -> None:
    for number in (STORED, STORED_ASIDE):
        assert download(app, number).cache_status == "hit"
    app.cache.driver.flush_hits()


#: Images that a test stores before the operation, the oldest first. Of these, 3 keeps its
#: record aside (its fields are too long for an attribute of ext4), and so does 8.
EVICTABLE = (0, 3, 1)
STORED, STORED_ASIDE = 4, 8
BYSTANDERS = (9, 10)

#: Images that are not stored before.
FRESH, FRESH_ASIDE, FRESH_LARGE, ADOPTABLE = 6, 13, 7, 12

OPERATIONS: dict[str, Callable[[CacheFilter], None]] = {
    "commit": _commit(FRESH),
    "commit durable": _commit(FRESH),
    "commit with the record aside": _commit(FRESH_ASIDE),
    "commit of a large image": _commit(FRESH_LARGE),
    "replace": _commit(STORED, 7),
    "replace with the record aside": _commit(STORED_ASIDE, 7),
    "replace with the record aside durable": _commit(STORED_ASIDE, 7),
    "replace an id that is no name, with the record aside": _commit(3, 7),
    "abort": _abort,
    "leave": _leave,
    "leave and go on": _leave_and_go_on,
    "leave and begin anew": _leave_and_begin_anew,
    "decline": _decline,
    "delete while it is filled": _delete_while_filled,
    "adopt": _adopt,
    "invalidate": _invalidate,
    "invalidate with the record aside": _invalidate_with_record_aside,
    "delete": _delete,
    "delete all": _delete_all,
    "evict": _evict_three,
    "clean": _clean,
    "hits": _hits,
}
