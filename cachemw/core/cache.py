"""ImageCache: the images cached on this host, with bounds and verification.

What the commands and other people's code use. The filter works with two parts of it:
``entries``, from which it answers, and ``sharing``, by which one request asks the app for
all. Everything about bytes and files is the driver's; everything about HTTP is the web
package's.

Imports: concurrency, core.capacity, core.check, core.checksum, core.config, core.entries,
core.fills, core.opening, core.reader, core.sharing, core.targets, drivers._hits, drivers.base,
drivers.queued, errors, metrics.counters, metrics.declared, names.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from .. import concurrency
from ..drivers._hits import flush_every_counter
from ..drivers.base import Entry, OnVictim, Record, Victim
from ..drivers.queued import Claim
from ..errors import DriverError
from ..metrics.counters import Counters
from ..metrics.declared import DRIVER_SECONDS
from ..names import check_image_id
from . import targets
from .capacity import Capacity, OnPruned
from .check import Finding, Progress, Report, Scrubbed, check, scrub
from .checksum import parse_checksum
from .config import Settings
from .entries import Entries
from .fills import Fills
from .opening import open_driver
from .reader import Reader
from .sharing import Sharing

log = concurrency.get_logger(__name__)

#: Bytes read at a time from a file that is cached.
BLOCK = 2**20


class Worker(Protocol):
    """Works on a cache in the background."""

    def end(self) -> None:
        """Stop, since the cache is about to be closed."""


class ImageCache:
    """The images in one cache directory. Threads may share it.

    ``ImageCache(dir="/var/cache/images", driver="xattr", max_size="5GiB")``

    An image id is a non-empty string of up to 2,000 characters (an int stands
    for its decimal form), else ``ValueError``. A checksum is
    ``"sha256:<hex>"`` or bare hex, whose length names the algorithm.

    :param options: the storage options of the reference page.
    :raises ConfigError: an option is unknown or its value is bad; as
        :class:`~cachemw.errors.BadDriverConfiguration` if the driver cannot work.
    """

    def __init__(self, **options: Any) -> None:
        self._begin(Settings.from_options(options))

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageCache:
        """Open the cache that the settings describe."""
        cache = cls.__new__(cls)
        cache._begin(settings)
        return cache

    @classmethod
    def to_look_at(cls, settings: Settings) -> ImageCache:
        """Open the cache that the settings describe for nothing but :meth:`check`: nothing is
        made or mended by opening it."""
        cache = cls.__new__(cls)
        cache._begin(settings, looks=True)
        return cache

    def _begin(self, settings: Settings, looks: bool = False) -> None:
        self.settings = settings
        concurrency.configure(settings.concurrency)
        self.driver = open_driver(settings, looks)
        #: What is counted in this directory, by every process.
        self.counters = Counters(self.driver.directory)
        self.capacity = Capacity(
            self.driver,
            max_size=settings.max_size,
            max_image_size=settings.max_image_size,
            min_free=settings.min_free,
            counters=self.counters,
        )
        self.entries = Entries(
            self.driver,
            verify_reads=settings.verify_reads,
            memory_size=settings.memory_size,
            counters=self.counters,
        )
        self.fills = Fills(self.driver, self.capacity, self.counters)
        self.sharing = Sharing(self.driver, self.capacity, self.fills, self.entries, self.counters)
        #: What works on the cache in the background, and ends before it.
        self.workers: weakref.WeakSet[Worker] = weakref.WeakSet()

    def close(self) -> None:
        """Write what is gathered and let go of the directory."""
        for worker in list(self.workers):
            worker.end()
        self.fills.stop()
        self.driver.close()
        self.counters.close()

    # Storing

    def get_caching_iter(
        self, image_id: str | int, image_checksum: str | None, image_iter: Iterable[bytes]
    ) -> Iterable[bytes]:
        """Give an iterator over the image that caches it as it is read; ``image_iter`` itself
        if the image is cached or being cached."""
        image_id = check_image_id(image_id)
        if not self.driver.is_cacheable(image_id):
            return image_iter
        return self.cache_tee_iter(image_id, image_iter, image_checksum)

    def cache_tee_iter(
        self, image_id: str | int, image_iter: Iterable[bytes], image_checksum: str | None
    ) -> Iterable[bytes]:
        """Give an iterator over the image that caches it as it is read.

        Trouble with the cache does not stop it. In place of its end it raises
        :class:`~cachemw.errors.ChecksumMismatch` if the checksum does not match.

        :raises ValueError: the id or the checksum is malformed.
        """
        image_id = check_image_id(image_id)
        expected = (parse_checksum(image_checksum),) if image_checksum else ()
        record = Record(image_id, 0, "", stored=time.time())
        try:
            return self.sharing.start_fill(image_id, image_iter, record, expected=expected)
        except DriverError as exc:
            log.warning("not cached: %s", exc)
        return self.sharing.verifying(image_iter, record, length=None, expected=expected)

    def cache_image_iter(
        self,
        image_id: str | int,
        image_iter: Iterable[bytes],
        image_checksum: str | None = None,
    ) -> bool:
        """Cache an image from its chunks. :return: whether it was cached by this call."""
        image_id = check_image_id(image_id)
        if not self.driver.is_cacheable(image_id):
            return False
        fill = self.cache_tee_iter(image_id, image_iter, image_checksum)
        assert isinstance(fill, Reader)
        with contextlib.closing(fill):
            for _ in fill:
                pass
        return fill.stored

    def cache_image_file(self, image_id: str | int, image_file: BinaryIO) -> bool:
        """Cache an image from a file open for reading. :return: whether it was cached."""
        return self.cache_image_iter(image_id, iter(lambda: image_file.read(BLOCK), b""))

    # What is there

    @contextlib.contextmanager
    def open_for_read(self, image_id: str | int) -> Iterator[Entry]:
        """Open an image for reading; its hit is counted when the block ends without an error.

        :raises ImageNotFound: it is not cached.
        :raises ImageCorrupt: it was found damaged, and is not cached any more.
        """
        image_id = check_image_id(image_id)
        opened = concurrency.run_blocking(self.driver.open_any, image_id, undo=_close)
        with opened as entry:
            yield entry
            variant = 0 if entry.record is None else entry.record.variant
            self.driver.record_hit(entry.image_id, time.time(), variant)

    @concurrency.offloaded
    def is_cached(self, image_id: str | int) -> bool:
        """Say whether a complete image is stored."""
        return self.driver.is_cached(check_image_id(image_id))

    @concurrency.offloaded
    def is_being_cached(self, image_id: str | int) -> bool:
        """Say whether a fill of the image is under way."""
        return self.driver.is_being_cached(check_image_id(image_id))

    @concurrency.offloaded
    def is_cacheable(self, image_id: str | int) -> bool:
        """Say whether the image is neither cached nor being cached."""
        return self.driver.is_cacheable(check_image_id(image_id))

    @concurrency.offloaded
    def get_cache_size(self) -> int:
        """Give the bytes of all cached images."""
        return self.driver.get_cache_size()

    @concurrency.offloaded
    def get_hit_count(self, image_id: str | int) -> int:
        """Give an image's hits; 0 for one that is not cached."""
        return self.driver.get_hit_count(check_image_id(image_id))

    @concurrency.offloaded
    def get_image_size(self, image_id: str | int) -> int:
        """Give an image's bytes.

        :raises ImageNotFound: it is not cached.
        """
        return self.driver.get_image_size(check_image_id(image_id))

    @concurrency.offloaded
    def get_cached_images(self) -> list[dict[str, Any]]:
        """List cached images by id: dicts with ``image_id``, ``size`` (bytes), ``hits``,
        ``last_accessed``, ``last_modified`` (seconds since the epoch, UTC) and ``checksum``."""
        return self.driver.get_cached_images()

    @concurrency.offloaded
    def find_images(self, **query: Any) -> list[dict[str, Any]]:
        """List some cached images, in an order; the arguments are those of
        :meth:`cachemw.drivers.base.Driver.find_images`."""
        return self.driver.find_images(**query)

    @concurrency.offloaded
    def count_images(self, search: str = "") -> int:
        """Give how many cached images have a text in their id."""
        return self.driver.count_images(search)

    @concurrency.offloaded
    def find_image(self, image_id: str | int) -> list[dict[str, Any]]:
        """Describe a cached image, each variant for itself; empty: it is not cached."""
        return self.driver.find_image(check_image_id(image_id))

    @concurrency.offloaded
    def get_partial_images(self) -> list[dict[str, Any]]:
        """List images of which only parts are there, by id: dicts with ``image_id``, ``size``
        (bytes that are there), ``length`` (of the whole) and ``last_modified``. They are no
        entries; whoever fetches one has the holes sent."""
        return self.driver.get_partial_images()

    # Removing

    @concurrency.offloaded
    def delete_cached_image(self, image_id: str | int) -> bool:
        """Remove an image. :return: whether there was one."""
        began = time.perf_counter()
        deleted = self.driver.delete_cached_image(check_image_id(image_id))
        self.counters.observe(DRIVER_SECONDS, time.perf_counter() - began, "delete")
        return deleted

    @concurrency.offloaded
    def mark_of_deletion(self, image_id: str) -> bytes:
        """Give what is another once any process has begun to delete the image."""
        return self.driver.mark_of_deletion(image_id)

    @concurrency.offloaded
    def delete_all_cached_images(self) -> int:
        """Remove every image. :return: how many there were."""
        return self.driver.delete_all_cached_images()

    @concurrency.offloaded
    def prune(self, max_size: int | None = None, report: OnPruned | None = None) -> tuple[int, int]:
        """Remove the least recently read images until the cache fits.

        :param max_size: bytes; ``None``: the option's.
        :param report: called now and then with what was removed since, and the bytes removed so
            far and to be removed in all.
        :return: images and bytes removed.
        """
        return self.capacity.prune(max_size, report)

    @concurrency.offloaded
    def plan_prune(self, max_size: int | None = None) -> list[Victim]:
        """Give what :meth:`prune` would remove now, in its order."""
        return self.capacity.plan_prune(max_size)

    @concurrency.offloaded
    def clean(self, stall_time: float | None = None, note: OnVictim | None = None) -> int:
        """Empty ``invalid/``, and remove fills abandoned for ``stall_time`` seconds.

        :param stall_time: ``None``: the option's.
        :param note: called with each file that is removed; it does nothing that may wait.
        :return: files removed.
        """
        return self.driver.clean(stall_time, note)

    @concurrency.offloaded
    def plan_cleaning(self, stall_time: float | None = None) -> list[Victim]:
        """Give what :meth:`clean` would remove now."""
        return self.driver.plan_cleaning(stall_time)

    @concurrency.offloaded
    def check(
        self,
        repair: bool = False,
        progress: Progress | None = None,
        found: Callable[[Finding], object] | None = None,
    ) -> Report:
        """Verify all images, and whether all else in the directory is as it should be. Servers
        may go on meanwhile.

        A repair loses nothing that is intact; it can be interrupted, and done again.

        :param repair: whether to mend what is wrong.
        :param progress: called now and then with bytes verified and bytes in all.
        :param found: called with each finding when it is made.
        """
        return check(self.driver, repair, progress, found)

    @concurrency.offloaded
    def scrub(self, byte_budget: int, progress: Progress | None = None) -> Scrubbed:
        """Verify the images whose turn was longest ago; damaged ones leave the cache.

        :param byte_budget: bytes after which no further image is begun; the last one may go
            beyond them.
        :param progress: called after each block with bytes read and the budget; it may wait,
            and may raise to end it.
        :return: how many images, their bytes, and how many were damaged.
        """
        return scrub(self.driver, byte_budget, progress)

    # Queue

    @concurrency.offloaded
    def queue_image(
        self, image_id: str | int, url: str | None = None, *, anew: bool = True
    ) -> bool:
        """Put an image in the queue; ``False`` if it is cached, being cached or queued.

        :param url: how a request fetched it, if one named it.
        :param anew: whether an image that was set aside starts anew.
        """
        return self.driver.queue_image(check_image_id(image_id), url, anew)

    @concurrency.offloaded
    def can_fetch(self, image_id: str | int, url: str | None = None) -> bool:
        """Say whether anything tells how to fetch an image, so that queueing it makes sense.

        :param url: how a request fetched it, if one named it.
        """
        image_id = check_image_id(image_id)
        if targets.target_of(image_id, url, self.settings) is not None:
            return True
        # A request may have named it before it was queued.
        return any(
            queued["image_id"] == image_id and queued["url"] for queued in self.driver.get_queue()
        )

    @concurrency.offloaded
    def is_queued(self, image_id: str | int) -> bool:
        """Say whether an image waits in the queue, and was not set aside."""
        return self.driver.is_queued(check_image_id(image_id))

    @concurrency.offloaded
    def get_queued_images(self) -> list[str]:
        """List the ids that wait in the queue, the longest waiting first."""
        return self.driver.get_queued_images()

    @concurrency.offloaded
    def get_queue(self) -> list[dict[str, Any]]:
        """List all that is in the queue, the longest waiting first: dicts with ``image_id``,
        ``queued`` (since when), ``url``, ``tries``, ``after`` (not tried before that),
        ``reason`` (of the last failure), ``set_aside`` and ``fetching``."""
        return self.driver.get_queue()

    @concurrency.offloaded
    def queue_state(self) -> Hashable:
        """Give what is mostly another once the queue has changed; it costs next to nothing."""
        return self.driver.queue_state()

    @concurrency.offloaded
    def claim_queued(self, image_id: str) -> Claim | None:
        """Keep all others from fetching a queued image; ``None`` if it is not queued, or
        somebody fetches it."""
        return self.driver.claim_queued(image_id)

    @concurrency.offloaded
    def delete_queued_image(self, image_id: str | int) -> bool:
        """Take an image out of the queue. :return: whether it was there."""
        return self.driver.delete_queued_image(check_image_id(image_id))

    @concurrency.offloaded
    def delete_all_queued_images(self) -> int:
        """Empty the queue. :return: how many were in it."""
        return self.driver.delete_all_queued_images()


def flush_hits() -> None:
    """Write the hits that every cache of this process gathered; for an end without atexit."""
    flush_every_counter()


def _close(entry: Entry) -> None:
    entry.close()
