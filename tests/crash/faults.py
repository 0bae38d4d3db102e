"""System calls and statements of the drivers that fail at the Nth time, in process.

The drivers' modules get an ``os`` of their own, so nobody else sees a fault.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import cachemw.drivers
from cachemw.drivers import _index, _xattrs

from . import syncing


class Faults:
    """Counts the calls of some functions, and fails at some of them.

    :param calls: names of functions of ``os``, or ``"setxattr"``, or ``"sqlite"``.
    :param error: makes what is raised.
    :param first: number of the first call that fails, from 1.
    :param last: number of the last one.
    """

    def __init__(
        self, calls: tuple[str, ...], error: Callable[[], Exception], first: int, last: float
    ) -> None:
        self.calls = calls
        self.made = self.failed = 0
        self.on = False
        self._error = error
        self._first, self._last = first, last

    def check(self, name: str) -> None:
        """Count a call about to be made.

        :raises Exception: the one to be raised, if this one fails.
        """
        if not self.on or name not in self.calls:
            return
        self.made += 1
        if self._first <= self.made <= self._last:
            self.failed += 1
            raise self._error()

    def install(self, monkeypatch: Any) -> None:
        """Put the faults between the drivers and the system."""
        for module in _driver_modules():
            if getattr(module, "os", None) is os:
                monkeypatch.setattr(module, "os", _Os(self))
        set_attribute = _xattrs._set
        monkeypatch.setattr(_xattrs, "_set", lambda *a: self.check("setxattr") or set_attribute(*a))
        connect = _index.sqlite3.connect
        factory = _connection_class(self)
        monkeypatch.setattr(
            _index.sqlite3, "connect", lambda *a, **k: connect(*a, **{"factory": factory, **k})
        )


class _Os:
    """``os``, but for what fails."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in self._faults.calls:
            return function
        return lambda *a, **k: self._faults.check(name) or function(*a, **k)


def _connection_class(faults: Faults) -> type[sqlite3.Connection]:
    class Connection(syncing.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            # Rolling back writes nothing to a write-ahead log.
            if args[0] != "ROLLBACK":
                faults.check("sqlite")
            return super().execute(*args)

        def executemany(self, *args: Any) -> sqlite3.Cursor:
            faults.check("sqlite")
            return super().executemany(*args)

    return Connection


def _driver_modules() -> Iterator[Any]:
    for module in pkgutil.iter_modules(cachemw.drivers.__path__, "cachemw.drivers."):
        yield importlib.import_module(module.name)
