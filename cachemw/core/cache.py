"""ImageCache: the images cached on this host, with bounds and verification.

What the commands and other people's code use. The filter works with two parts of it:
``entries``, from which it answers, and ``sharing``, by which one request asks the app for
all. Everything about bytes and files is the driver's; everything about HTTP is the web
package's.

Imports: concurrency, core.capacity, core.checksum, core.config, core.entries, core.fills,
core.opening, core.reader, core.sharing, drivers._hits, drivers.base, errors, names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from .. import concurrency
from ..drivers._hits import flush_every_counter
from ..drivers.base import Entry, Note, Record, Victim
from ..errors import DriverError
from ..names import check_image_id
from .capacity import Capacity, Report
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

    def _begin(self, settings: Settings) -> None:
        self.settings = settings
        concurrency.configure(settings.concurrency)
        self.driver = open_driver(settings)
        self.capacity = Capacity(
            self.driver,
            max_size=settings.max_size,
            max_image_size=settings.max_image_size,
            min_free=settings.min_free,
        )
        self.entries = Entries(
            self.driver, verify_reads=settings.verify_reads, memory_size=settings.memory_size
        )
        self._fills = Fills(self.driver, self.capacity)
        self.sharing = Sharing(self.driver, self.capacity, self._fills, self.entries)

    def close(self) -> None:
        """Write what is gathered and let go of the directory."""
        self._fills.stop()
        self.driver.close()

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
    def get_partial_images(self) -> list[dict[str, Any]]:
        """List images of which only parts are there, by id: dicts with ``image_id``, ``size``
        (bytes that are there), ``length`` (of the whole) and ``last_modified``. They are no
        entries; whoever fetches one has the holes sent."""
        return self.driver.get_partial_images()

    # Removing

    @concurrency.offloaded
    def delete_cached_image(self, image_id: str | int) -> bool:
        """Remove an image. :return: whether there was one."""
        return self.driver.delete_cached_image(check_image_id(image_id))

    @concurrency.offloaded
    def mark_of_deletion(self, image_id: str) -> bytes:
        """Give what is another once any process has begun to delete the image."""
        return self.driver.mark_of_deletion(image_id)

    @concurrency.offloaded
    def delete_all_cached_images(self) -> int:
        """Remove every image. :return: how many there were."""
        return self.driver.delete_all_cached_images()

    @concurrency.offloaded
    def prune(self, max_size: int | None = None, report: Report | None = None) -> tuple[int, int]:
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
    def clean(self, stall_time: float | None = None, note: Note | None = None) -> int:
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

    # Queue

    @concurrency.offloaded
    def queue_image(self, image_id: str | int) -> bool:
        """Put an image in the queue; ``False`` if it is cached, being cached or queued."""
        return self.driver.queue_image(check_image_id(image_id))

    @concurrency.offloaded
    def is_queued(self, image_id: str | int) -> bool:
        """Say whether an image is in the queue."""
        return self.driver.is_queued(check_image_id(image_id))

    @concurrency.offloaded
    def get_queued_images(self) -> list[str]:
        """List the ids in the queue, the longest waiting first."""
        return self.driver.get_queued_images()

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
