"""ImageCache: the images cached on this host, with bounds and verification.

What the filter, the commands and other people's code use. Everything about
bytes and files is the driver's; everything about HTTP is the web package's.

Imports: concurrency, core.asked, core.body, core.capacity, core.checksum, core.config, core.fill,
core.fills, core.growing, core.hot, core.reader, core.verified, drivers._hits, drivers.base,
errors, names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from .. import concurrency
from ..drivers._hits import flush_every_counter
from ..drivers.base import (
    MOST_VARIANTS,
    Driver,
    Entry,
    MemoryEntry,
    Note,
    Record,
    Sums,
    Victim,
)
from ..errors import BadDriverConfiguration, DriverError, FillUnderWay, ImageNotFound
from ..names import check_image_id
from .asked import Asked
from .body import Chunk
from .capacity import Capacity, Report, Room
from .checksum import Checksum, Digests, parse_checksum
from .config import Settings
from .fill import NEVER, Fill
from .fills import Fills
from .growing import Growing, GrowingReader
from .hot import HotImages
from .reader import Reader
from .verified import VerifiedEntry

log = concurrency.get_logger(__name__)

#: Seconds before who could neither lead nor follow looks again.
_MOMENT = 0.01


class Joined(NamedTuple):
    """Who has an image: an entry, a fill under way (with a reader), or the caller, who leads."""

    entry: Entry | MemoryEntry | None = None
    growing: Growing | None = None
    reader: GrowingReader | None = None
    lead: Fill | None = None


class FillOvertaken(DriverError):
    """The image was deleted after the app was asked for it."""


#: Bytes read at a time from a file that is cached or verified.
BLOCK = 2**20

#: Images of which a process remembers that it verified them; then it forgets all.
MOST_VERIFIED = 100_000

#: The driver that works everywhere.
FALLBACK_DRIVER = "sqlite"


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
        self.driver = _configured_driver(settings)
        self.capacity = Capacity(
            self.driver,
            max_size=settings.max_size,
            max_image_size=settings.max_image_size,
            min_free=settings.min_free,
        )
        self._fills = Fills(self.driver, self.capacity)
        # Whoever wants every answer verified wants it read from the disk.
        verified = settings.verify_reads == "always"
        self._hot = HotImages(self.driver, 0 if verified else settings.memory_size)
        self._verified: set[tuple[int, int, int]] = set()
        self._verified_lock = concurrency.Lock()

    def close(self) -> None:
        """Write what is gathered and let go of the directory."""
        self._fills.stop()
        self.driver.close()

    # Hits

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
        for variant in self.driver.other_variants(image_id):
            entry = self._open(image_id, variant)
            if entry is None:
                continue
            if entry.record is not None and selects(entry.record):
                return entry
            entry.close()
        return None

    @concurrency.offloaded
    def place_for(self, record: Record) -> int:
        """Choose which variant an answer becomes that replaces none: the one for the same
        requests, else the first that is free, else the one that was stored longest ago.

        :param record: of the answer.
        """
        if not record.vary:
            return 0
        stored: dict[int, float] = {}
        for variant in (0, *self.driver.other_variants(record.image_id)):
            try:
                with self.driver.open_for_read(record.image_id, variant) as entry:
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
                return self.driver.update(entry, record)
            with self.driver.open_for_read(record.image_id, record.variant) as opened:
                assert entry.record is not None
                known = entry.record.stored, entry.record.checksum
                if opened.record is None or (opened.record.stored, opened.record.checksum) != known:
                    return False  # replaced or renewed meanwhile
                return self.driver.update(opened, record)
        except ImageNotFound:
            return False
        except DriverError as exc:
            log.warning("the record of %s could not be updated: %s", record.image_id, exc)
            return False

    def _open(self, image_id: str, variant: int) -> Entry | MemoryEntry | None:
        hot = self._hot.get(image_id, variant)
        if hot is not None:
            return hot
        try:
            entry = self.driver.open_for_read(image_id, variant)
        except ImageNotFound:
            return None
        except DriverError as exc:
            log.warning("cannot look up %s", exc)
            return None
        try:
            if entry.record is None:
                return entry
            sums = self._sums(entry)
            if sums is not None:
                return VerifiedEntry(entry, sums, self.driver)
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

    def count_hit(self, entry: Entry | MemoryEntry) -> None:
        """Count one hit when the entry is closed."""
        driver, image_id = self.driver, entry.image_id
        variant = 0 if entry.record is None else entry.record.variant
        entry.on_close = lambda: driver.record_hit(image_id, time.time(), variant)

    def counting_later(self, growing: Growing, record: Record) -> Callable[[], None]:
        """Give what counts one hit of an image that is about to be an entry."""
        driver = self.driver

        def count() -> None:
            now = time.time()
            growing.count_hit(lambda: driver.record_hit(record.image_id, now, record.variant))

        return count

    def _sums(self, entry: Entry) -> Sums | None:
        """Give what a hit's bytes are checked with as they are sent; ``None``: they are not,
        or it has none that can be trusted."""
        if self.settings.verify_reads != "always" or entry.is_suspect:
            return None
        return self.driver.sums(entry)

    def _is_intact(self, entry: Entry, record: Record) -> bool:
        mode = self.settings.verify_reads
        if entry.is_suspect and mode == "size":
            mode = "first"
        if mode == "size":
            return True
        status = os.fstat(entry.fileno())
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if mode == "first" and identity in self._verified:
            return True
        if not matches(entry, parse_checksum(record.checksum)):
            reason = f"its bytes do not match {record.checksum}"
            self.driver.invalidate(record.image_id, reason, record.variant)
            return False
        with self._verified_lock:
            if len(self._verified) >= MOST_VERIFIED:
                self._verified.clear()
            self._verified.add(identity)
        return True

    @concurrency.offloaded
    def adopt(self, entry: Entry, record: Record) -> bool:
        """Give another program's image its record, if its bytes match the record's checksum.

        :return: whether they did; an image that does not match leaves the cache.
        """
        try:
            if entry.size == record.size and matches(entry, parse_checksum(record.checksum)):
                self.driver.adopt(entry, record)
                return True
            self.driver.invalidate(record.image_id, "adopted, but not what the app has")
        except (OSError, DriverError) as exc:
            log.warning("cannot adopt %s: %s", record.image_id, exc)
        return False

    # Fills

    def is_filling(self, image_id: str, selects: Callable[[Record], bool]) -> bool:
        """Say whether what is asked for may be on its way here, and nothing else is stored.

        It looks at no file: of many threads that come at once each would have to wait for its
        turn after every system call.
        """
        return any(
            fill.is_first and (fill.record is None or selects(fill.record))
            for fill in self._fills.own(image_id)
        )

    def join(
        self,
        image_id: str,
        selects: Callable[[Record], bool],
        *,
        patience: float,
        may_lead: bool,
        finish_from: float = NEVER,
        is_movable: bool = False,
    ) -> Joined:
        """Find who has an image that is not stored: a fill under way, or the caller.

        :param selects: whether an image, or a variant of it, is the one that is asked for.
        :param patience: seconds to wait for the app's answer to somebody else.
        :param may_lead: whether the caller will ask the app, and have its answer stored.
        :param finish_from: as for :class:`~cachemw.core.fill.Fill`, if it does.
        :return: what was found; empty: the caller asks the app for himself.
        """
        deadline = time.monotonic() + patience
        while True:
            under_way = self._fills.under_way(image_id)
            for growing in under_way:
                joined = self._follow(growing, selects, deadline if may_lead else 0.0)
                if joined is not None:
                    return joined
            if not may_lead:
                # What has just ended may be an entry.
                return Joined(entry=self.lookup(image_id, selects))
            claimed = self._fills.claim(image_id, finish_from=finish_from, is_movable=is_movable)
            if isinstance(claimed, Fill):
                return self._lead(claimed, selects)
            left = deadline - time.monotonic()
            if left <= 0:
                return Joined()
            if isinstance(claimed, Asked):
                claimed.wait(left)
            else:
                concurrency.Waiter().wait(_MOMENT)

    def _lead(self, claimed: Fill, selects: Callable[[Record], bool]) -> Joined:
        """Have the caller lead, unless the image was stored since it looked."""
        is_first = True

        def select(record: Record) -> bool:
            nonlocal is_first
            is_first = False
            return selects(record)

        try:
            entry = self.lookup(claimed.image_id, select)
        except BaseException:
            claimed.decline("")
            raise
        if entry is None:
            claimed.is_first = is_first
            return Joined(lead=claimed)
        claimed.decline("")
        return Joined(entry=entry)

    def _follow(
        self, growing: Growing, selects: Callable[[Record], bool], deadline: float
    ) -> Joined | None:
        """Follow a fill if it is the one that is asked for.

        :return: ``None``: it ended, and left nothing to be known of the image.
        """
        reader = growing.reader()
        has_ended = True
        try:
            # Else it ended since it was found under way, and its file may be closed by now.
            if growing.is_current():
                growing.wait_for_record(max(deadline - time.monotonic(), 0.0))
                record = growing.record
                # It may have been deleted while the app was about to answer.
                is_right = not growing.declined and not growing.is_overtaken()
                if record is not None and is_right and selects(record):
                    return Joined(growing=growing, reader=reader)
                has_ended = growing.is_overtaken() or (record is None and growing.is_over)
        except BaseException:
            reader.close()
            raise
        reader.close()
        if has_ended and not growing.declined:
            return None
        return Joined(entry=self.lookup(growing.image_id, selects))

    def start_fill(
        self,
        image_id: str,
        source: Iterable[Chunk],
        record: Record,
        *,
        lead: Fill | None = None,
        length: int | None = None,
        expected: tuple[Checksum, ...] = (),
        is_resumable: bool = False,
        keep: bool = False,
        mark: bytes | None = None,
    ) -> Reader:
        """Begin to store what an app sends.

        :param source: its chunks, and parts that are kept; closed by the fill.
        :param record: what is known before the first byte; size and checksum are filled in.
        :param lead: the fill that the caller has claimed; ended here if this raises.
        :param length: bytes promised, or ``None``.
        :param expected: checksums promised, the strongest first.
        :param is_resumable: whether the app can be asked for the rest of this version.
        :param keep: whether it goes on with what is kept, of which ``source`` has the parts.
        :param mark: what :meth:`mark_of_deletion` gave before the app was asked, if anything.
        :return: the leading reader.
        :raises FillOvertaken: the image was deleted since then.
        :raises CacheFull: there is no room for it.
        :raises DriverError: somebody else fills it, or it cannot be written.
        """
        fill = lead or self._fills.claim(image_id)
        if not isinstance(fill, Fill):
            raise FillUnderWay(image_id, "is being filled already")
        try:
            concurrency.run_blocking(self._make_ready, fill, record, length, keep, mark)
        except BaseException as exc:
            fill.decline(exc.reason if isinstance(exc, DriverError) else "error")
            raise
        self._fills.forget_declined(image_id)
        reader = fill.begin(
            source,
            record,
            length=length,
            expected=expected,
            make_record=_completing(record),
            is_resumable=is_resumable,
        )
        self._fills.begun(fill)
        return reader

    def _make_ready(
        self, fill: Fill, record: Record, length: int | None, keep: bool, mark: bytes | None
    ) -> None:
        """Have a fill's file ready for what the app answered."""
        sink = fill.sink
        if sink is not None and record.variant:
            # What is kept is of another variant.
            sink.leave()
            sink.close()
            sink = None
        if sink is None:
            sink = fill.sink = self.driver.start_fill(fill.image_id, record.variant)
        # Between the two: whoever deletes leaves the mark first, and then looks for the files.
        if mark is not None and self.driver.mark_of_deletion(fill.image_id) != mark:
            raise FillOvertaken(fill.image_id, "changed while the app answered")
        sink.announce(record, length, keep)
        parts = sink.kept.parts if keep and sink.kept is not None else ()
        kept = sum(stop - start for start, stop in parts)
        fill.room = Room(self.capacity, fill.image_id, length, kept)
        fill.room.begin(sink)

    def decline(self, lead: Fill, word: str, is_lasting: bool, keeps: bool = False) -> None:
        """End a fill whose answer is not stored.

        :param is_lasting: whether other answers for it will not be either, for a while.
        :param keeps: whether what is kept of the image stays.
        """
        if is_lasting:
            self._fills.remember_declined(lead.image_id)
        lead.decline(word, keeps)

    def was_declined(self, image_id: str) -> bool:
        """Say whether an image's answer was not stored a short while ago."""
        return self._fills.was_declined(image_id)

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
            return self.start_fill(image_id, image_iter, record, expected=expected)
        except DriverError as exc:
            log.warning("not cached: %s", exc)
        return self.verifying(image_iter, record, length=None, expected=expected)

    def verifying(
        self,
        source: Iterable[bytes],
        record: Record,
        *,
        length: int | None,
        expected: tuple[Checksum, ...],
    ) -> Reader:
        """Give what reads an image, and holds its end back until it was found right; it is not
        stored."""
        fill = Fill(record.image_id, None, Room(self.capacity, record.image_id, None))
        return fill.begin(
            source, record, length=length, expected=expected, make_record=_completing(record)
        )

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


def _completing(record: Record) -> Callable[[int, str], Record]:
    """Give what makes a record whole once size (bytes) and checksum are known."""
    return lambda size, checksum: dataclasses.replace(record, size=size, checksum=checksum)


def _configured_driver(settings: Settings) -> Driver:
    try:
        return _driver(settings.driver, settings)
    except BadDriverConfiguration as exc:
        if settings.driver == FALLBACK_DRIVER or not settings.driver_fallback:
            raise
        log.warning("%s; using %s in its place", exc, FALLBACK_DRIVER)
    return _driver(FALLBACK_DRIVER, settings)


def _driver(name: str, settings: Settings) -> Driver:
    driver: Driver = _driver_class(name, settings.dir)(
        settings.dir, durability=settings.durability, stall_time=settings.stall_time
    )
    driver.configure()
    return driver


def _driver_class(name: str, directory: str) -> type[Driver]:
    points = importlib.metadata.entry_points(group="cachemw.drivers")
    if name not in points.names:
        known = ", ".join(sorted(points.names))
        raise BadDriverConfiguration(name, directory, "no such driver", f"expected one of {known}")
    try:
        found: type[Driver] = points[name].load()
    except Exception as exc:
        raise BadDriverConfiguration(
            name, directory, f"cannot be loaded: {exc}", "install what it needs"
        ) from exc
    return found
