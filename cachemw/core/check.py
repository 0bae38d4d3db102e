"""Checking a cache directory, mending it, and verifying its images bit by bit.

The driver's inspectors say what is wrong with all that is kept besides the
bytes; the bytes are compared with their checksums here. Servers may go on
meanwhile: what looks wrong is looked at again with the directory locked.

Imports: concurrency, core.checksum, drivers.base, drivers.faults, errors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import concurrency
from ..drivers.base import Driver, Entry, Record
from ..drivers.faults import Fault, Inspector
from ..errors import DriverError
from .checksum import Digests, parse_checksum

log = concurrency.get_logger(__name__)

#: Bytes read at a time.
BLOCK = 2**20

#: Seconds after which what a living process leaves half done for a moment must be done.
SETTLE = 1.0

#: Names of images asked for at a time.
_BATCH = 1000

#: Gets bytes that were verified, and bytes that are to be verified in all.
Progress = Callable[[int, int], object]

_TO_INVALID = "move it to invalid/"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    :param kind: ``entry``, ``record``, ``sums``, ``index``, ``total``, ``fill``, ``invalid``,
        ``queue``, ``folder``, ``foreign`` or ``mode``.
    :param name: its path under the cache directory.
    :param image_id: of the image that it is about, where that can be told.
    :param problem: a lower-case phrase.
    :param mend: what a repair does, or did; empty for what is no damage.
    :param is_mended: whether it was done.
    :param is_damage: ``False``: nothing is wrong, it is only worth knowing.
    """

    kind: str
    name: str
    image_id: str | None
    problem: str
    mend: str
    is_mended: bool = False
    is_damage: bool = True


@dataclasses.dataclass(slots=True)
class Report:
    """What a check found.

    :param findings: in the order in which they were made.
    :param images: that were verified.
    :param bytes: of these.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    images: int = 0
    bytes: int = 0

    @property
    def damage(self) -> list[Finding]:
        """What was wrong."""
        return [finding for finding in self.findings if finding.is_damage]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong, and so nothing had to be mended."""
        return not self.damage

    @property
    def is_mended(self) -> bool:
        """Whether nothing is wrong any more."""
        return all(finding.is_mended for finding in self.damage)


class Scrubbed(NamedTuple):
    """What a step of scrubbing did.

    :param images: that were verified.
    :param bytes: of these.
    :param damaged: how many of them were damaged, and left the cache.
    """

    images: int
    bytes: int
    damaged: int


def check(
    driver: Driver,
    repair: bool = False,
    progress: Progress | None = None,
    found: Callable[[Finding], object] | None = None,
) -> Report:
    """Look at everything in a cache directory.

    A repair loses nothing that is intact. It may be interrupted at any point, and done again.

    :param repair: whether to mend what is wrong.
    :param progress: called now and then; what it raises ends the check.
    :param found: called with each finding when it is made.
    :raises DriverError: the directory cannot be looked at.
    """
    return _Check(driver, repair, progress, found).run()


class _Check:
    def __init__(
        self,
        driver: Driver,
        repair: bool,
        progress: Progress | None,
        found: Callable[[Finding], object] | None,
    ) -> None:
        self._driver = driver
        self._repair = repair
        self._progress = progress or _ignore
        self._found = found or _ignore
        self._report = Report()
        #: Entries that something is wrong with already.
        self._wrong: set[str] = set()
        #: Whether the directory can be locked: else nobody can use it, and nothing is mended.
        self._locks = False

    def run(self) -> Report:
        for fault in self._driver.healed():
            self._add(fault, is_mended=True)
        is_first = True
        for inspector in self._driver.inspectors():
            if inspector.needs_lock and is_first:
                is_first, self._locks = False, self._can_lock()
            with contextlib.closing(inspector):
                self._inspect(inspector)
        self._verify_all()
        if self._repair and self._locks:
            # What a crash left half done is repaired by whoever takes the lock.
            with self._driver.exclusive():
                pass
        return self._report

    def _can_lock(self) -> bool:
        try:
            with self._driver.looking():
                return True
        except DriverError as exc:
            log.warning("%s", exc)
            return False

    def _add(self, fault: Fault, is_mended: bool = False) -> None:
        if fault.kind == "entry" and fault.is_damage:
            self._wrong.add(fault.name)
        finding = Finding(*fault[:5], is_mended=is_mended, is_damage=fault.is_damage)
        self._report.findings.append(finding)
        self._found(finding)

    # All but the bytes

    def _inspect(self, inspector: Inspector) -> None:
        if not inspector.settles:
            for name in inspector.suspects():
                self._settle(inspector, name, self._look(inspector, name))
            return
        looked = ((name, self._look(inspector, name)) for name in inspector.suspects())
        suspects = [(name, fault) for name, fault in looked if fault is not None]
        if any(fault.is_damage for _, fault in suspects):
            concurrency.Alarm().wait(SETTLE)
        for name, fault in suspects:
            self._settle(inspector, name, fault)

    def _look(self, inspector: Inspector, name: str) -> Fault | None:
        try:
            return inspector.look(name)
        except OSError as exc:
            return _unknown(name, exc)

    def _settle(self, inspector: Inspector, name: str, fault: Fault | None) -> None:
        """Look again at what is wrong, with the directory locked, and mend it."""
        if fault is None:
            return
        if not fault.is_damage:
            self._add(fault)
            return
        is_mended = False
        is_locked = inspector.needs_lock and self._locks
        may_mend = self._repair and is_locked == inspector.needs_lock
        with self._driver.looking() if is_locked else contextlib.nullcontext():
            fault = self._look(inspector, name)
            if fault is not None and fault.is_damage and may_mend:
                is_mended = self._mend(inspector, name)
        if fault is not None:
            self._add(fault, is_mended)

    def _mend(self, inspector: Inspector, name: str) -> bool:
        try:
            return inspector.mend(name)
        except (OSError, DriverError) as exc:
            log.warning("%s could not be mended: %s", name, exc)
            return False

    # The bytes

    def _verify_all(self) -> None:
        total = self._driver.stored_bytes()
        self._progress(0, total)
        for name in self._driver.stored_names():
            if name in self._wrong:
                continue
            self._verify(name, max(total, self._report.bytes))

    def _verify(self, name: str, total: int) -> None:
        before = self._report.bytes
        verified = verify(
            self._driver,
            name,
            mends=self._repair and self._locks,
            read=lambda size: self._progress(before + size, max(total, before + size)),
        )
        if verified is None:
            return
        self._report.images += 1
        self._report.bytes += verified.size
        if verified.fault is not None:
            self._add(verified.fault, verified.is_mended)


def _ignore(*args: object) -> None:
    pass


def _unknown(name: str, exc: OSError) -> Fault:
    return Fault(
        "foreign", name, None, f"cannot be read: {exc.strerror or exc}", "look at the disk"
    )


class Verified(NamedTuple):
    """What came out of verifying one image.

    :param size: bytes that were read.
    :param fault: what is wrong with it.
    :param is_mended: whether that is mended.
    """

    size: int
    fault: Fault | None = None
    is_mended: bool = False


def verify(
    driver: Driver, name: str, *, mends: bool, read: Callable[[int], object]
) -> Verified | None:
    """Compare an image's bytes with its checksum.

    :param name: one of the driver's stored names.
    :param mends: whether to move it to ``invalid/`` if they do not match; one whose record
        fits the bytes, but not the file any more, gets it back.
    :param read: called now and then with how many of its bytes were read.
    :return: ``None``: it is gone or was replaced, or has no checksum to be compared with.
    :raises DriverError: it cannot be opened.
    """
    try:
        entry = driver.open_stored(name)
        if entry is None:
            return None
        with entry:
            return _verified(driver, name, entry, mends, read)
    except OSError as exc:
        raise DriverError(name, (exc.strerror or str(exc)).lower()) from exc


def _verified(
    driver: Driver, name: str, entry: Entry, mends: bool, read: Callable[[int], object]
) -> Verified | None:
    loose = driver.loose_record(name) if entry.record is None else None
    record = entry.record or loose
    if record is None:
        return None
    size, problem = _compare(entry, record, read)
    if not driver.is_stored(entry, name):
        return None
    if problem:
        fault = Fault("entry", name, record.image_id, problem, _TO_INVALID)
        entry.image_id = record.image_id
        return Verified(size, fault, mends and _is_done(driver.condemn, entry, name, problem))
    if loose is None:
        return Verified(size)
    problem = "its record does not fit the file's times, but its bytes have the checksum"
    fault = Fault("record", name, loose.image_id, problem, "write the record again")
    entry.image_id = loose.image_id
    return Verified(size, fault, mends and _is_done(driver.adopt, entry, loose))


def _is_done(mend: Callable[..., object], entry: Entry, *args: Any) -> bool:
    try:
        mend(entry, *args)
    except DriverError as exc:
        log.warning("%s could not be mended: %s", entry.image_id, exc)
        return False
    return True


def _compare(entry: Entry, record: Record, read: Callable[[int], object]) -> tuple[int, str]:
    """Read an image. :return: bytes that were read, and what is wrong; empty: nothing."""
    position = 0
    try:
        expected = parse_checksum(record.checksum)
        digests = Digests([expected.algorithm])
        while block := entry.pread(BLOCK, position):
            digests.update(block)
            position += len(block)
            read(position)
    except ValueError:
        return position, "its record has no checksum that can be read"
    except OSError as exc:
        return position, f"cannot be read: {exc.strerror or exc}"
    if position != record.size:
        return position, f"{position} bytes long instead of {record.size}"
    if digests.mismatch([expected]) is not None:
        return position, f"its bytes do not match {record.checksum}"
    return position, ""


def scrub(driver: Driver, byte_budget: int, progress: Progress | None = None) -> Scrubbed:
    """Verify the images whose turn was longest ago, and take the damaged ones out of the cache.

    :param byte_budget: bytes after which no further image is begun; the last one may go far
        beyond them, which the caller takes off what comes next.
    :param progress: called after each block with bytes read and the budget. It may wait, to
        keep to a rate, and end it by raising.
    :return: all zero: there is nothing to verify.
    :raises DriverError: the directory cannot be looked at.
    """
    images = done = damaged = 0
    for name in _turns(driver):
        if done >= byte_budget:
            break
        read = functools.partial(_tell, progress or _ignore, done, byte_budget)
        verified = verify(driver, name, mends=True, read=read)
        driver.note_verified(name)
        if verified is not None:
            images += 1
            done += verified.size
            damaged += verified.fault is not None and verified.fault.kind == "entry"
    return Scrubbed(images, done, damaged)


def _tell(progress: Progress, before: int, budget: int, size: int) -> None:
    progress(before + size, budget)


def _turns(driver: Driver) -> Iterator[str]:
    """Give the names of stored images by turn, each at most once."""
    first = ""
    is_second = False
    while True:
        names = driver.next_to_verify(_BATCH)
        if not names:
            if is_second:
                return
            is_second = True
            driver.note_verified("")
        for name in names:
            if is_second and first and name >= first:
                return
            first = first or name
            yield name


def as_dict(report: Report) -> dict[str, Any]:
    """Give a report as plain values."""
    return {
        "is_clean": report.is_clean,
        "is_mended": report.is_mended,
        "images": report.images,
        "bytes": report.bytes,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
    }
