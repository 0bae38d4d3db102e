"""Inspectors of the sqlite driver's index: the file, and a row for each entry.

They read it through a connection of their own, which makes nothing and
changes nothing.

Imports: errors, names, drivers._index, drivers._inspect_entries, drivers.faults,
drivers.sqlite.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import names
from ..errors import DriverError
from . import _index
from ._inspect_entries import Entries, entry_names
from .faults import Fault, Inspector

if TYPE_CHECKING:
    from .sqlite import Driver

#: Rows read at a time.
_BATCH = 1000


class _Reading(Inspector):
    """What reads the index."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._reader = _index.Index(driver.index.path, durable=False, is_reader=True)

    def close(self) -> None:
        self._reader.close()


class IndexFile(_Reading):
    """``cache.db`` as a whole."""

    def suspects(self) -> Iterator[str]:
        yield names.INDEX_NAME

    def look(self, name: str) -> Fault | None:
        problem, mend = self._problem()
        return Fault("index", name, None, problem, mend) if problem else None

    def _problem(self) -> tuple[str, str]:
        """Say what is wrong, and what is done about it."""
        again = "make it again from the files"
        is_ours = self._driver.lock.last_writer() == self._driver.name
        try:
            status = os.stat(names.INDEX_NAME, dir_fd=self._driver.tree.base, follow_symlinks=False)
        except FileNotFoundError:
            # Where another driver was at work, the start makes it.
            return ("is missing", again) if is_ours else ("", "")
        if not stat.S_ISREG(status.st_mode):
            return "", ""
        try:
            problem = self._reader.problem()
            if problem:
                return f"is damaged: {problem}", again
            miscount = self._reader.miscount()
            if miscount:
                return f"its total is {miscount:+d} bytes off", "sum up its rows"
        except _index.IndexNew:
            return ("was never filled", again) if is_ours else ("", "")
        except _index.IndexBroken as exc:
            return f"is damaged: {exc.reason}", again
        except DriverError as exc:
            return f"cannot be read: {exc.reason}", "look at its permissions and the disk"
        return "", ""

    def mend(self, name: str) -> bool:
        problem, _ = self._problem()
        self._reader.close()
        if problem.startswith("its total"):
            self._driver.index.recount()
            return True
        if problem.startswith("cannot be read"):
            return False
        self._driver.make_index_again()
        return True


class IndexRows(_Reading):
    """Rows against the entries' files."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._entries = Entries(driver)

    def suspects(self) -> Iterator[str]:
        try:
            self._reader.total()
        except DriverError:
            return  # that is said of the file
        yield from entry_names(self._driver)
        after = ""
        while batch := self._reader.names(after, _BATCH):
            yield from (name for name in batch if self._driver._status(name) is None)
            after = batch[-1]

    def look(self, name: str) -> Fault | None:
        row = self._reader.row(name)
        found = self._driver._found(name)
        if found is None:
            if row is None or self._driver._status(name) is not None:
                return None
            image_id = _index.text(row[1])
            return Fault("index", name, image_id, "has a row, but no file", "remove the row")
        if found.image_id is None:
            return None  # that is said of the entry
        checksum = found.record.checksum if found.record else None
        right = _index.row(name, found.image_id, found.status, checksum, 0.0)
        if row is None:
            problem = "has no row"
        elif wrong := _differences(row, right):
            problem = f"its row has another {wrong}"
        else:
            return None
        if self._is_at_fault(name):
            return None
        return Fault("index", name, found.image_id, problem, "make its row again")

    def _is_at_fault(self, name: str) -> bool:
        """Say whether it is the entry that is to be mended."""
        fault = self._entries.look(name)
        return (fault is not None and fault.is_damage) or (
            self._driver.loose_record(name) is not None
        )

    def mend(self, name: str) -> bool:
        self._driver._repair([name])
        return True


def _differences(row: _index.Row, right: _index.Row) -> str:
    fields = ("", "id", "size", "", "time of change", "checksum")
    wrong = [
        field
        for field, has, should in zip(fields, row, right, strict=True)
        if field and has != should
    ]
    return ", ".join(wrong)
