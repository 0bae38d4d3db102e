"""The entries of one cache directory, as answers are made from them: found, verified, counted.

Whatever is wrong with an entry makes it a miss. What is found damaged leaves the cache.

Imports: concurrency, core.checksum, core.growing, core.hot, core.verified, drivers.base, errors,
metrics.counters, metrics.declared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .. import concurrency
from ..drivers.base import MOST_VARIANTS, Driver, Entry, MemoryEntry, Record, Sums
from ..errors import DriverError, ImageCorrupt, ImageNotFound
from ..metrics.counters import NOBODY, Counters, observed
from ..metrics.declared import DRIVER_SECONDS, VERIFICATION_FAILURES
from .checksum import Checksum, Digests, parse_checksum
from .growing import Growing
from .hot import HotImages
from .verified import VerifiedEntry

log = concurrency.get_logger(__name__)

#: Bytes read at a time from a file that is verified.
BLOCK = 2**20

_OPEN = DRIVER_SECONDS.place("open")

#: Images of which a process remembers that it verified them; then it forgets all.
MOST_VERIFIED = 100_000


class Entries:
    """Finds, verifies and renews entries. Threads may share it.

    :param verify_reads: as the option of that name.
    :param memory_size: bytes for hot images.
    :param counters: count damage, and time what is opened.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        verify_reads: str,
        memory_size: int,
        counters: Counters = NOBODY,
    ) -> None:
        self._driver = driver
        self._counters = counters
        self._verify_reads = verify_reads
        # Whoever wants every answer verified wants it read from the disk.
        self._hot = HotImages(driver, 0 if verify_reads == "always" else memory_size)
        self._verified: set[tuple[int, int, int]] = set()
        self._verified_lock = concurrency.Lock()

    def lookup(
        self, image_id: str, selects: Callable[[Record], bool] = lambda record: True
    ) -> Entry | MemoryEntry | None:
        """Open an image for an answer, verified as ``verify_reads`` says.

        Whatever is wrong with the cache makes it ``None``, a miss, and is logged.
        The caller closes the entry.

        :param selects: whether a variant is the one that is asked for. One that was never
            compared with the app's answer (without a record) is not asked about.
        """
        if concurrency.offloads():
            return concurrency.run_blocking(self.lookup, image_id, selects, undo=_close)
        entry = self._open(image_id, 0)
        if entry is not None and (entry.record is None or selects(entry.record)):
            return entry
        if entry is not None:
            entry.close()
        for variant in self._driver.other_variants(image_id):
            entry = self._open(image_id, variant)
            if entry is None:
                continue
            if entry.record is not None and selects(entry.record):
                return entry
            entry.close()
        return None

    def _open(self, image_id: str, variant: int) -> Entry | MemoryEntry | None:
        hot = self._hot.get(image_id, variant)
        if hot is not None:
            return hot
        began = time.perf_counter()
        try:
            entry = self._driver.open_for_read(image_id, variant)
        except ImageNotFound:
            return None
        except DriverError as exc:
            log.warning("cannot look up %s", exc)
            if isinstance(exc, ImageCorrupt):
                self._counters.add(VERIFICATION_FAILURES)
            return None
        finally:
            seconds = time.perf_counter() - began
            self._counters.add_to(*observed(DRIVER_SECONDS, _OPEN, seconds))
        try:
            if entry.record is None:
                return entry
            sums = self._sums(entry)
            if sums is not None:
                return VerifiedEntry(entry, sums, self._driver, self._counters)
            if self._is_intact(entry, entry.record):
                self._hot.offer(entry)
                return entry
        except (OSError, DriverError) as exc:
            log.warning("cannot verify %s: %s", image_id, exc)
        except BaseException:
            entry.close()
            raise
        entry.close()
        return None

    def _sums(self, entry: Entry) -> Sums | None:
        """Give what a hit's bytes are checked with as they are sent; ``None``: they are not,
        or it has none that can be trusted."""
        if self._verify_reads != "always" or entry.is_suspect:
            return None
        return self._driver.sums(entry)

    def _is_intact(self, entry: Entry, record: Record) -> bool:
        mode = self._verify_reads
        if entry.is_suspect and mode == "size":
            mode = "first"
        if mode == "size":
            return True
        status = os.fstat(entry.fileno())
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if mode == "first" and identity in self._verified:
            return True
        if not matches(entry, parse_checksum(record.checksum)):
            self._counters.add(VERIFICATION_FAILURES)
            reason = f"its bytes do not match {record.checksum}"
            self._driver.invalidate(record.image_id, reason, record.variant)
            return False
        with self._verified_lock:
            if len(self._verified) >= MOST_VERIFIED:
                self._verified.clear()
            self._verified.add(identity)
        return True

    @concurrency.offloaded
    def place_for(self, record: Record) -> int:
        """Choose which variant an answer becomes that replaces none: the one for the same
        requests, else the first that is free, else the one that was stored longest ago.

        :param record: of the answer.
        """
        if not record.vary:
            return 0
        stored: dict[int, float] = {}
        for variant in (0, *self._driver.other_variants(record.image_id)):
            try:
                with self._driver.open_for_read(record.image_id, variant) as entry:
                    other = entry.record
            except ImageNotFound:
                continue
            except DriverError as exc:
                log.warning("cannot look up %s", exc)
                continue
            if other is None or other.vary in ((), record.vary):
                return variant
            stored[variant] = other.stored
        free = [variant for variant in range(MOST_VARIANTS) if variant not in stored]
        return free[0] if free else min(stored, key=stored.__getitem__)

    @concurrency.offloaded
    def update(self, entry: Entry | MemoryEntry, record: Record) -> bool:
        """Give an entry another record with the same id, variant, size and checksum.

        :return: whether it has it now; trouble is logged.
        """
        try:
            if isinstance(entry, Entry) and not entry.is_checked:
                return self._driver.update(entry, record)
            with self._driver.open_for_read(record.image_id, record.variant) as opened:
                assert entry.record is not None
                known = entry.record.stored, entry.record.checksum
                if opened.record is None or (opened.record.stored, opened.record.checksum) != known:
                    return False  # replaced or renewed meanwhile
                return self._driver.update(opened, record)
        except ImageNotFound:
            return False
        except DriverError as exc:
            log.warning("the record of %s could not be updated: %s", record.image_id, exc)
            return False

    @concurrency.offloaded
    def adopt(self, entry: Entry, record: Record) -> bool:
        """Give another program's image its record, if its bytes match the record's checksum.

        :return: whether they did; an image that does not match leaves the cache.
        """
        try:
            if entry.size == record.size and matches(entry, parse_checksum(record.checksum)):
                self._driver.adopt(entry, record)
                return True
            self._driver.invalidate(record.image_id, "adopted, but not what the app has")
        except (OSError, DriverError) as exc:
            log.warning("cannot adopt %s: %s", record.image_id, exc)
        return False

    def count_hit(self, entry: Entry | MemoryEntry) -> None:
        """Count one hit when the entry is closed."""
        driver, image_id = self._driver, entry.image_id
        variant = 0 if entry.record is None else entry.record.variant
        entry.on_close = lambda: driver.record_hit(image_id, time.time(), variant)

    def counting_later(self, growing: Growing, record: Record) -> Callable[[], None]:
        """Give what counts one hit of an image that is about to be an entry."""
        driver = self._driver

        def count() -> None:
            now = time.time()
            growing.count_hit(lambda: driver.record_hit(record.image_id, now, record.variant))

        return count


def matches(entry: Entry, checksum: Checksum) -> bool:
    """Read an image whole and compare it; the entry's own position does not move.

    :raises OSError: it cannot be read.
    """
    digests = Digests([checksum.algorithm])
    position = 0
    while block := entry.pread(BLOCK, position):
        digests.update(block)
        position += len(block)
    return digests.mismatch([checksum]) is None


def _close(entry: Entry | MemoryEntry | None) -> None:
    if entry is not None:
        entry.close()
