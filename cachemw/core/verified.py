"""Entries whose bytes are checked, chunk by chunk, before they are given.

What is compared is what is given: the block that was read, not the file that
it was read from. So damage is never sent, and no more is read than is wanted.

Imports: concurrency, drivers.base, errors, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import io
import os
from typing import Any

from .. import concurrency
from ..drivers.base import CHUNK, Driver, Entry, Sums
from ..errors import DriverError, ImageCorrupt
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import VERIFICATION_FAILURES

log = concurrency.get_logger(__name__)


class VerifiedEntry(Entry):
    """A complete image that gives no byte whose chunk does not match its checksum.

    What is found damaged, or cannot be read, leaves the cache and raises
    :class:`~cachemw.errors.ImageCorrupt`. Has no ``fileno``, since nobody else would check.
    Keeps one chunk in memory at most.

    :param entry: with a record; belongs to this one from now on.
    :param sums: of that entry.
    :param driver: that it was opened with.
    :param counters: count damage.
    """

    is_checked = True

    def __init__(
        self, entry: Entry, sums: Sums, driver: Driver, counters: Counters = NOBODY
    ) -> None:
        super().__init__(entry.detach(), entry.image_id, entry.size, entry.record, entry.identity)
        self._sums = sums
        self._driver = driver
        self._counters = counters
        #: Number and bytes of a chunk of which more is likely to be asked for.
        self._kept = (-1, b"")

    def fileno(self) -> int:
        raise io.UnsupportedOperation(f"{self.image_id} is to be read by its entry alone")

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``; fewer do not mean that it ends there.

        :raises ImageCorrupt: some of them are damaged.
        """
        stop = min(position + size, self.size)
        if position >= stop:
            return b""
        first = position // CHUNK
        start = first * CHUNK
        index, block = self._kept
        if index != first:
            block = self._read_chunks(start, stop)
        return block[position - start : stop - start]

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.pread(len(view), self.tell())
        view[: len(data)] = data
        self.seek(len(data), os.SEEK_CUR)
        return len(data)

    def _read_chunks(self, start: int, stop: int) -> bytes:
        """Give the checked bytes from ``start``, where a chunk begins, to where the one ends
        that has the last before ``stop``."""
        last = (stop - 1) // CHUNK
        end = min((last + 1) * CHUNK, self.size)
        try:
            block = self._read(end - start, start)
        except OSError as exc:
            raise self._condemned(f"cannot be read: {exc.strerror or exc}") from exc
        view = memoryview(block)
        for index in range(start // CHUNK, last + 1):
            offset = index * CHUNK - start
            if not self._sums.check(index, view[offset : offset + CHUNK]):
                raise self._condemned(
                    f"bytes {start + offset} to {min(start + offset + CHUNK, end) - 1}"
                    " do not match their checksum"
                )
        # A read that ends with its chunk is followed by one of the next.
        self._kept = (-1, b"") if stop == end else (last, block[last * CHUNK - start :])
        return block

    def _read(self, size: int, position: int) -> bytes:
        block = os.pread(self._descriptor(), size, position)
        while len(block) < size:
            # Rare: the file was cut, or its file system gives little at a time.
            more = os.pread(self._descriptor(), size - len(block), position + len(block))
            if not more:
                break
            block += more
        return block

    def _condemned(self, reason: str) -> ImageCorrupt:
        """Take the image out of the cache, and make the error that says so."""
        self._counters.add(VERIFICATION_FAILURES)
        self.on_close = None  # what is not there has no hits
        try:
            self._invalidate(reason)
        except (OSError, DriverError) as exc:
            log.warning("%s: %s; it could not be moved to invalid/: %s", self.image_id, reason, exc)
        return ImageCorrupt(self.image_id, reason)

    def _invalidate(self, reason: str) -> None:
        """Move the image to ``invalid/``, but not another that took its place meanwhile."""
        assert self.record is not None
        variant = self.record.variant
        with self._driver.open_for_read(self.image_id, variant) as current:
            status = os.fstat(current.fileno())
        if os.path.samestat(status, os.fstat(self._descriptor())):
            self._driver.invalidate(self.image_id, reason, variant)
