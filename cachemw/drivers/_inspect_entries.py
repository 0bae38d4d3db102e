"""Inspectors of entries, of the records kept aside, and of checksums of chunks.

The bytes of entries are not read here: that takes long, and is done by whoever
checks, with the entries open.

Imports: names, drivers._claims, drivers._entries, drivers._records, drivers._sums, drivers._tree,
drivers.base, drivers.faults.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from .. import names
from . import _claims, _records, _sums
from ._entries import SHORTAGE, EntryFiles
from ._tree import scan
from .base import Entry, Record
from .faults import Fault, Inspector

_TO_INVALID = "move it to invalid/"


def entry_names(driver: EntryFiles) -> Iterator[str]:
    """Give the names of all entries, in no order."""
    for name, _ in scan(driver.tree.base):
        if names.is_entry_name(name):
            yield name


class Entries(Inspector):
    """Entries whose record is lost or damaged, or is of another image or length."""

    def __init__(self, driver: EntryFiles) -> None:
        self._driver = driver

    def suspects(self) -> Iterator[str]:
        return entry_names(self._driver)

    def look(self, name: str) -> Fault | None:
        try:
            fd = self._driver._open_file(name)
        except OSError as exc:
            if exc.errno in (*SHORTAGE, errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            return _unreadable(name, exc)
        try:
            return self._look(fd, name)
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            return _unreadable(name, exc)
        finally:
            os.close(fd)

    def _look(self, fd: int, name: str) -> Fault | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        records = self._driver.tree.records
        record = _records.read(fd, name, status, records)
        loose = _records.loose(fd, name, status, records) if record is None else None
        if (record or loose) is None:
            return _without_record(name, _records.is_in_attribute(fd))
        return _mismatch(name, record or loose, status.st_size)

    def mend(self, name: str) -> bool:
        fault = self.look(name)
        if fault is None:
            return True
        fd = self._driver._open_file(name)
        try:
            if fault.kind == "record":
                _records.drop_attribute(fd)
            else:
                image_id = fault.image_id or name
                self._driver._invalidate(name, image_id, fault.problem, fd)
        finally:
            os.close(fd)
        return True


def _without_record(name: str, is_damaged: bool) -> Fault | None:
    if names.is_safe_name(name):
        if is_damaged:
            return Fault("record", name, name, "its record is damaged", "remove the record")
        problem = "has no record: it will be compared with what the app sends"
        return Fault("entry", name, name, problem, "", is_damage=False)
    problem = "its record is damaged" if is_damaged else "its record is lost"
    return Fault("entry", name, None, problem, _TO_INVALID)


def _mismatch(name: str, record: Record | None, size: int) -> Fault | None:
    if record is None:
        return None
    if names.entry_name(record.image_id, record.variant) != name:
        problem = f"it belongs to {record.image_id}"
        return Fault("entry", name, None, problem, _TO_INVALID)
    if record.size != size:
        problem = f"{size} bytes long instead of {record.size}"
        return Fault("entry", name, record.image_id, problem, _TO_INVALID)
    return None


def _unreadable(name: str, exc: OSError) -> Fault:
    image_id = name if names.is_safe_name(name) else None
    problem = f"cannot be read: {exc.strerror or exc}"
    return Fault("entry", name, image_id, problem, "look at the disk, and delete it by hand")


class Records(Inspector):
    """Records kept aside that no entry has."""

    settles = True

    def __init__(self, driver: EntryFiles) -> None:
        self._driver = driver

    def suspects(self) -> Iterator[str]:
        for name, _ in scan(self._driver.tree.records):
            yield f"{_records.DIRECTORY}/{name}"

    def look(self, name: str) -> Fault | None:
        own = name.rpartition("/")[2]
        entry = _records.entry_of(own)
        tree = self._driver.tree
        if _claims.is_claimed(entry, tree.incomplete):
            return None
        problem = ""
        if not self._driver._status(entry):
            problem = "is the record of no entry"
        elif own != entry:
            problem = "is a record that was not put in its place"
        elif self._is_in_attribute(entry):
            problem = "is a record besides that in the entry's attribute"
        if not problem or not self._is_there(own):
            return None
        image_id = entry if names.is_safe_name(entry) else None
        return Fault("record", name, image_id, problem, "remove it, or put it in its place")

    def _is_there(self, own: str) -> bool:
        return os.access(own, os.F_OK, dir_fd=self._driver.tree.records, follow_symlinks=False)

    def _is_in_attribute(self, entry: str) -> bool:
        try:
            fd = self._driver._open_file(entry)
        except OSError:
            return False
        try:
            return _records.is_in_attribute(fd)
        finally:
            os.close(fd)

    def mend(self, name: str) -> bool:
        own = name.rpartition("/")[2]
        entry = _records.entry_of(own)
        status = self._driver._status(entry)
        records = self._driver.tree.records
        if status is not None and own != entry and not self._is_in_attribute(entry):
            # That of the entry, which may be another than this one.
            _records.finish(entry, status, records)
        _records.remove(own, records)
        return True


class ChunkSums(Inspector):
    """Checksums of chunks that no entry has, or not this one."""

    def __init__(self, driver: EntryFiles) -> None:
        self._driver = driver

    def suspects(self) -> Iterator[str]:
        for name, _ in scan(self._driver.tree.sums):
            yield f"{_sums.DIRECTORY}/{name}"

    def look(self, name: str) -> Fault | None:
        own = name.rpartition("/")[2]
        try:
            fd = self._driver._open_file(own) if names.is_entry_name(own) else -1
        except OSError as exc:
            if exc.errno in SHORTAGE:
                raise
            fd = -1
        image_id = own if names.is_safe_name(own) else None
        if fd == -1:
            return Fault("sums", name, image_id, "are the checksums of no entry", "remove them")
        with Entry(fd, own, os.fstat(fd).st_size, None) as entry:
            status = os.fstat(fd)
            records = self._driver.tree.records
            entry.record = _records.read(fd, own, status, records)
            if entry.record is None and _records.loose(fd, own, status, records) is not None:
                return None  # what becomes of the entry decides
            if _sums.load(own, entry, self._driver.tree.sums) is not None:
                return None
        if not os.access(own, os.F_OK, dir_fd=self._driver.tree.sums, follow_symlinks=False):
            return None
        return Fault("sums", name, image_id, "do not fit their entry", "remove them")

    def mend(self, name: str) -> bool:
        try:
            os.unlink(name.rpartition("/")[2], dir_fd=self._driver.tree.sums)
        except FileNotFoundError:
            pass
        return True
