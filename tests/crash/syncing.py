"""Do without syncing, where only a power cut could tell the difference.

What a process wrote before it was killed is in the page cache, synced or not.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

from cachemw.drivers import _index


class Connection(sqlite3.Connection):
    """A connection that does not sync, whatever it is told."""

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement.startswith("PRAGMA synchronous"):
            statement = "PRAGMA synchronous = OFF"
        return super().execute(statement, *parameters)


def stop(setattr: Callable[[Any, str, Any], None] = setattr) -> None:
    """Sync nothing from now on in this process.

    :param setattr: a test gives its monkeypatch's.
    """
    connect = sqlite3.connect

    def connect_quickly(*args: Any, **kwargs: Any) -> Any:
        return connect(*args, **{"factory": Connection, **kwargs})

    setattr(os, "fsync", lambda fd: None)
    setattr(_index.sqlite3, "connect", connect_quickly)
