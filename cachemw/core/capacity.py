"""The cache's bounds, and room for what comes in.

A fill counts from its start with the length it was promised, or with steps
of :data:`STEP`, because its file is made that long before it is written; so
the sum of the files is the sum of what will be there, in every process, and
nothing has to be given back after a crash.

Imports: drivers.base, errors, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from ..drivers.base import Driver, OnVictim, Sink, Victim
from ..errors import CacheFull
from ..metrics.counters import NOBODY, Counters
from ..metrics.declared import DRIVER_SECONDS, EVICTED_BYTES, EVICTED_IMAGES

_EVICTED_IMAGES, _EVICTED_BYTES = EVICTED_IMAGES.place(), EVICTED_BYTES.place()

#: Bytes set aside at a time for a fill of unknown length, at the most.
STEP = 64 * 2**20

#: Steps that a prune takes at the most, but for small ones.
PRUNE_STEPS = 50

#: Told of a prune: what a step deleted, and bytes deleted so far and to be deleted in all.
OnPruned = Callable[[Sequence[Victim], int, int], None]


class Capacity:
    """The bounds of one cache directory. Safe for threads and processes.

    :param max_size: bytes of entries, fills under way and failed fills together.
    :param max_image_size: bytes of one image.
    :param min_free: bytes left free on the file system.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        max_size: int,
        max_image_size: int,
        min_free: int,
        counters: Counters = NOBODY,
    ) -> None:
        self._driver = driver
        self._counters = counters
        self.max_size = max_size
        self.max_image_size = min(max_image_size, max_size)
        self.min_free = min_free

    def make_room(self, image_id: str, sink: Sink, size: int, more: int) -> None:
        """Let a fill count as ``size`` bytes, ``more`` than before; evict for it.

        :raises CacheFull: there is not so much room, whatever is evicted.
        :raises DriverError: the cache directory could not be looked at.
        """
        if size > self.max_image_size:
            raise CacheFull(image_id, f"larger than the {self.max_image_size} bytes allowed")
        for flushed in (False, True):
            with self._driver.exclusive():
                wanted, usage = self._missing(more)
                if wanted <= 0 or flushed:
                    self._evict(image_id, wanted, usage)
                    sink.reserve(size)
                    return
            # The gathered hits decide who goes; writing them needs the lock that is held above.
            self._driver.flush_hits()

    def _missing(self, more: int) -> tuple[int, int]:
        """Give the bytes to be freed before ``more`` fit, and the bytes in use."""
        usage = self._driver.get_usage()
        over = usage + more - self.max_size
        if self.min_free:
            device = os.statvfs(self._driver.directory)
            free = device.f_bavail * device.f_frsize
            over = max(over, self.min_free + more - free)
        return over, usage

    def _evict(self, image_id: str, wanted: int, usage: int) -> None:
        if wanted <= 0:
            return
        # Where others have filled the disk, evicting all of ours would not help.
        if wanted > usage or self._evicted(wanted)[1] < wanted:
            raise CacheFull(image_id, f"no room within the bounds: {wanted} bytes are missing")

    def relieve(self, image_id: str, wanted: int) -> None:
        """Evict what makes so much room on a device that others have filled.

        :raises CacheFull: there is nothing to evict.
        """
        self._driver.flush_hits()
        with self._driver.exclusive():
            if not self._evicted(wanted)[1]:
                raise CacheFull(image_id, "the disk is full, and there is nothing to evict")

    def prune(self, max_size: int | None = None, report: OnPruned | None = None) -> tuple[int, int]:
        """Evict until the cache fits.

        It is done in steps, so that fills get their turn, and ends when as much is deleted as
        was too much at the beginning.

        :param max_size: bytes; ``None``: the bound.
        :param report: called after each step.
        :return: images and bytes deleted.
        """
        self._driver.flush_hits()
        images = freed = total = 0
        while True:
            gone: list[Victim] = []
            with self._driver.exclusive():
                over = self._over(max_size)
                total = total or over
                if over <= 0 or freed >= total:
                    return images, freed
                wanted = min(over, max(total // PRUNE_STEPS, STEP))
                count, size = self._evicted(wanted, gone.append)
            images += count
            freed += size
            if report is not None:
                report(gone, freed, total)
            if size < wanted:
                return images, freed

    def plan_prune(self, max_size: int | None = None) -> list[Victim]:
        """Give what :meth:`prune` would delete now, in its order."""
        self._driver.flush_hits()
        with self._driver.exclusive():
            over = self._over(max_size)
            return self._driver.plan_eviction(over) if over > 0 else []

    def _over(self, max_size: int | None) -> int:
        return self._driver.get_usage() - (self.max_size if max_size is None else max_size)

    def _evicted(self, wanted: int, note: OnVictim | None = None) -> tuple[int, int]:
        """Evict, and count it. :return: images and bytes."""
        began = time.perf_counter()
        images, size = self._driver.evict(wanted, note)
        self._counters.observe(DRIVER_SECONDS, time.perf_counter() - began, "evict")
        self._counters.add_to((_EVICTED_IMAGES, images), (_EVICTED_BYTES, size))
        return images, size


class Room:
    """What one fill has set aside.

    :param length: bytes promised, or ``None``.
    :param kept: bytes that are there and count already.
    """

    def __init__(
        self, capacity: Capacity, image_id: str, length: int | None, kept: int = 0
    ) -> None:
        self._capacity = capacity
        self._image_id = image_id
        self._length = length
        self._reserved = kept

    def begin(self, sink: Sink) -> None:
        """Set aside what the fill needs at its start.

        :raises CacheFull: there is no room; the fill should not begin.
        """
        self._reserve(sink, self._reserved + self._step() if self._length is None else self._length)

    def extend(self, sink: Sink, needed: int) -> None:
        """Set aside what an image of ``needed`` bytes or more takes.

        :raises CacheFull: there is no room; the fill should end.
        """
        if needed > self._reserved:
            # A step must not refuse an image that may end within it.
            step = min(self._reserved + self._step(), self._capacity.max_image_size)
            self._reserve(sink, max(needed, step))

    def relieve(self, wanted: int) -> None:
        """Free bytes on a device that is full, though the bounds are not reached.

        :raises CacheFull: there is nothing to evict.
        """
        self._capacity.relieve(self._image_id, max(wanted, self._step()))

    def _step(self) -> int:
        # A small cache should not be emptied for an image that may be small too.
        return min(STEP, self._capacity.max_image_size, self._capacity.max_size // 16)

    def _reserve(self, sink: Sink, size: int) -> None:
        self._capacity.make_room(self._image_id, sink, size, size - self._reserved)
        self._reserved = size
