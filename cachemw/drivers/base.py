"""The contract of a storage driver, and what passes between it and the core.

Imports: concurrency, drivers._boot, drivers.faults, drivers.listing, drivers.queued, errors.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import io
import os
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .. import concurrency
from ..errors import DriverError
from ._boot import boot_id
from .faults import Fault, Inspector
from .listing import Query, select
from .queued import Claim, Note

#: Variants that are kept of one image, at most.
MOST_VARIANTS = 8

#: How many bytes iterating over an entry gives at a time.
ENTRY_BLOCK = 64 * 1024


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What is kept about an image besides its bytes.

    :param image_id: the id that it was stored under.
    :param size: bytes.
    :param checksum: ``"<algorithm>:<hex>"`` of the bytes.
    :param headers: end-to-end fields of the response that brought it.
    :param vary: the request fields that selected it, lower-case, with the
        value that the request had (``None``: it had none).
    :param stored: when the response began, seconds since the epoch, UTC.
    :param age: how old the response was by then, seconds (RFC 9111, section 4.2.3).
    :param variant: which of the image's variants it is, from 0; they share the id and
        differ in ``vary``.
    :param guarded: whether it may only be given to those whom the app, or a hook, allows it.
    :param boot: the machine's boot in which the bytes were written if nobody
        waited for the device; empty: they were synced.
    """

    image_id: str
    size: int
    checksum: str
    headers: tuple[tuple[str, str], ...] = ()
    vary: tuple[tuple[str, str | None], ...] = ()
    stored: float = 0.0
    age: float = 0.0
    variant: int = 0
    guarded: bool = False
    boot: str = ""


class Entry(io.RawIOBase):
    """A complete image, open for reading at offset 0, unbuffered.

    It stays readable when the image is deleted or replaced meanwhile (an open
    file outlives its last name, unlink(2)). Iterating gives blocks of bytes,
    not lines. Closing runs ``on_close`` once; further closes do nothing.

    :param fd: the file, closed with the entry.
    :param size: bytes.
    :param record: ``None``: adopted from another program and not verified yet.
    :param identity: as :meth:`Driver.identity` gives it; ``None``: too new to tell.
    """

    # Not io.FileIO, which asks the system about the file once more: a hit is so
    # short that it shows, most of all where threads wait for the interpreter.

    mode = "rb"

    #: The image's bytes, where they are in memory already.
    data: bytes | None = None

    #: Whether each read is compared with checksums, so that nothing else may read the file.
    is_checked = False

    #: A read may wait for the device.
    is_offloaded = True

    def __init__(
        self,
        fd: int,
        image_id: str,
        size: int,
        record: Record | None,
        identity: Hashable | None = None,
    ) -> None:
        self._fd = fd
        self.image_id = image_id
        self.size = size
        self.record = record
        self.identity = identity
        self.on_close: Callable[[], None] | None = None

    def fileno(self) -> int:
        return self._descriptor()

    def _descriptor(self) -> int:
        if self._fd == -1:
            raise ValueError(f"{self.image_id} is closed")
        return self._fd

    def detach(self) -> int:
        """Give the file to the caller, who closes it; ``on_close`` will not run."""
        fd, self._fd = self._descriptor(), -1
        return fd

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``; the entry's own does not move."""
        return os.pread(self._descriptor(), size, position)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return os.readv(self._descriptor(), [buffer])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor(), offset, whence)

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)

    @property
    def is_suspect(self) -> bool:
        """Whether a power cut may have taken bytes that were never synced."""
        record = self.record
        return record is not None and bool(record.boot) and record.boot != boot_id()

    def __next__(self) -> bytes:
        block = self.read(ENTRY_BLOCK)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd == -1:
            return
        on_close, self.on_close = self.on_close, None
        try:
            super().close()
            # Takes long where the image was deleted meanwhile and is large.
            concurrency.run_blocking(os.close, fd)
        finally:
            if on_close is not None:
                on_close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) != -1:
            warnings.warn(f"unclosed {self.image_id}", ResourceWarning, stacklevel=2, source=self)
            self.close()


class MemoryEntry:
    """A complete image whose bytes are in memory; for answering it is an :class:`Entry`.

    Iterating gives all of it at once.
    """

    __slots__ = ("data", "image_id", "on_close", "record", "size")

    is_checked = False

    #: A read may wait for the device.
    is_offloaded = True

    def __init__(self, image_id: str, data: bytes, record: Record) -> None:
        self.image_id = image_id
        self.data = data
        self.record = record
        self.size = len(data)
        self.on_close: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return iter((self.data,))

    def __len__(self) -> int:
        return 1  # block: some servers look whether there is more to come

    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``."""
        return self.data[position : position + size]

    def close(self) -> None:
        """Run ``on_close`` once."""
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


class Part(NamedTuple):
    """A part of an image, half-open: bytes from ``start`` to before ``stop``."""

    start: int
    stop: int


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """What is there of an image whose writer ended before it was whole.

    :param record: as it was announced; size 0, checksum empty.
    :param length: bytes that the app promised in all.
    :param parts: what is there and matches the checksums that were noted when it was written,
        in order, none touching the next.
    """

    record: Record
    length: int
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class FillState:
    """What other processes see of a fill.

    :param record: as announced; ``None``: the app has not answered yet.
    :param length: bytes that the app promised in all, or ``None``.
    :param readable: bytes, from the first, that readers may have by now.
    :param outcome: ``""``: under way, if a living writer holds it; ``"committed"``;
        ``"verified"``: all of it is right, but it is not stored;
        ``"failed: <reason>"``: the image is wrong, nobody may have the rest;
        ``"broken: <reason>"``: the app did not give the rest, it may be asked again;
        ``"declined: <word>"``: it is not stored, everybody asks the app.
    :param reserved: bytes that the fill counts as; fewer than the length if only a part comes.
    """

    record: Record | None
    length: int | None
    readable: int
    outcome: str
    reserved: int = 0


class Victim(NamedTuple):
    """What eviction or cleaning removes.

    :param kind: ``"image"``, ``"fill"`` (an abandoned one) or ``"invalid"``.
    :param image_id: whose it is; a file's name where nothing tells.
    :param size: bytes that its removal frees.
    """

    kind: str
    image_id: str
    size: int


#: What is told of each victim.
OnVictim = Callable[[Victim], None]

#: Bytes of a chunk, which has a checksum of its own.
CHUNK = 256 * 1024


class Sums:
    """The checksums of an image's chunks, noted when it was filled (CRC-32).

    :param size: bytes of the image.
    :param values: of each chunk in order.
    """

    def __init__(self, size: int, values: Sequence[int]) -> None:
        self.size = size
        self._values = values

    def check(self, index: int, chunk: bytes | memoryview) -> bool:
        """Say whether these are the bytes of chunk number ``index``."""
        length = min(CHUNK, self.size - index * CHUNK)
        return len(chunk) == length and zlib.crc32(chunk) == self._values[index]


class Tail(abc.ABC):
    """A fill that another process, or another part of this one, has under way.

    Looks at it as it goes on, and never waits. Threads may share it. It goes on being of use
    when the fill is committed, rolled back or deleted, and when another writer goes on with it.
    """

    @abc.abstractmethod
    def state(self) -> FillState:
        """Look how far it is.

        :raises DriverError: its state cannot be read.
        """

    @abc.abstractmethod
    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``, which are no more than may be had.

        :raises DriverError: they cannot be read.
        """

    @abc.abstractmethod
    def want(self, position: int) -> None:
        """Tell the writer that somebody has read up to ``position`` and waits. Never raises."""

    @abc.abstractmethod
    def is_alive(self) -> bool:
        """Say whether a living writer holds the fill; without one and without an outcome,
        whoever calls :meth:`Driver.start_fill` may go on with it."""

    @abc.abstractmethod
    def is_current(self) -> bool:
        """Say whether the image was not deleted since the fill began: a deleted fill goes on
        for those who read it, and is for nobody else."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of it; a second close does nothing."""


class Sink(abc.ABC):
    """The growing file of one fill, owned by one writer.

    Ends by exactly one of :meth:`commit`, :meth:`rollback` and :meth:`leave`; what comes
    after that does nothing. Not safe for calls from several threads at once, but for
    :meth:`pread`. An ``OSError`` from any method means that the fill can only be rolled back.
    """

    #: Bytes written so far: where the next go that are written without a position.
    written: int

    #: What an earlier writer left; ``None``: nothing that is of use. Still there after
    #: :meth:`announce` with ``keep``, gone after one without.
    kept: Kept | None

    @abc.abstractmethod
    def announce(self, record: Record, length: int | None, keep: bool = False) -> None:
        """Tell other processes what this fill will be, before the first byte is written.

        :param keep: go on with what was kept, which is of the same version; else it is
            dropped, and nobody who still reads it meets bytes of the new version.
        """

    @abc.abstractmethod
    def reserve(self, size: int) -> None:
        """Make the file count as ``size`` bytes against the cache's bound, written or not."""

    @abc.abstractmethod
    def write(self, data: bytes, position: int | None = None) -> int:
        """Write all of ``data``, and note its checksums.

        :param position: in the image; ``None``: after what was written last.
        :return: its length.
        :raises CacheFull: no room on the device.
        """

    @abc.abstractmethod
    def pread(self, size: int, position: int) -> bytes:
        """Give up to ``size`` bytes from ``position``, of those that were written."""

    @abc.abstractmethod
    def publish(self, readable: int) -> None:
        """Tell other processes how many bytes, from the first, their readers may have."""

    @abc.abstractmethod
    def wanted(self) -> int:
        """Give the furthest position at which a reader of another process waits; 0: nobody."""

    @abc.abstractmethod
    def is_current(self) -> bool:
        """Say whether the image was not deleted since the fill began. Never raises."""

    @abc.abstractmethod
    def commit(self, record: Record) -> None:
        """Make the image complete, as durably as configured; replaces an older one in one step.

        :raises DriverError: it could not be; the image is not stored.
        """

    @abc.abstractmethod
    def rollback(self, reason: str, *, keep: bool = True, is_wrong: bool = True) -> None:
        """Give the fill up; its file goes to ``invalid/`` with the reason. Never raises.

        :param keep: whether the bytes are kept too; else they are freed, and the fault is the
            cache's: other processes see the fill as declined.
        :param is_wrong: whether the bytes are at fault, so that nobody may have the rest; else
            the app did not give it, and may be asked again.
        """

    @abc.abstractmethod
    def leave(self, declined: str = "") -> None:
        """Let go of the fill without a verdict; what was written, or kept from before, can be
        gone on with. Where nothing was, nothing stays. Never raises.

        :param declined: a word for why everybody is to ask the app for himself.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the file, which can be read until then, also when the fill has ended.
        Never raises; a second close does nothing."""


class Driver(abc.ABC):
    """Keeps the images cached on this host.

    One instance owns one cache directory. Threads may share the instance and
    other processes may open the same directory. Image ids arrive already
    checked; sizes are bytes; times are seconds since the epoch, UTC, as float.

    The promise every driver keeps: a reader meets a complete image or none,
    also after a crash or on a full disk. An ``OSError`` inside leaves as
    :class:`~cachemw.errors.DriverError`.

    :param directory: the cache directory.
    :param durability: ``"none"``, ``"data"`` or ``"full"``.
    :param stall_time: seconds after which :meth:`clean` removes an abandoned fill.
    """

    #: The name in the ``driver`` option.
    name: str

    def __init__(
        self, directory: str, *, durability: str = "data", stall_time: float = 86400
    ) -> None:
        self.directory = directory
        self.durability = durability
        self.stall_time = stall_time

    # Life

    @abc.abstractmethod
    def configure(self) -> None:
        """Make the directory ready and repair what a crash left half done.

        :raises BadDriverConfiguration: names the driver, the directory and the mend.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Write gathered hit counts and let go of everything. May be called twice."""

    # Images

    @abc.abstractmethod
    def open_for_read(self, image_id: str, variant: int = 0) -> Entry:
        """Open a complete image (a response made from it counts the hit).

        :param variant: below :data:`MOST_VARIANTS`, as in every method that takes one.
        :raises ImageNotFound: nothing complete is stored under ``image_id``.
        :raises ImageCorrupt: the stored size and the file's length disagree;
            the entry has been moved to ``invalid/``.
        """

    def open_any(self, image_id: str) -> Entry:
        """Open the first variant of an image that is there.

        :raises ImageNotFound: there is none.
        :raises ImageCorrupt: there was only what is damaged.
        """
        try:
            return self.open_for_read(image_id)
        except DriverError as exc:
            for variant in self.other_variants(image_id):
                with contextlib.suppress(DriverError):
                    return self.open_for_read(image_id, variant)
            raise exc

    def other_variants(self, image_id: str) -> Iterable[int]:
        """Give the numbers, but for 0, of the variants that may be stored, in order; none that
        is stored is left out."""
        return range(1, MOST_VARIANTS)

    def identity(self, image_id: str, variant: int = 0) -> Hashable | None:
        """Give what tells an image from whatever else was ever stored under its id.

        It changes with the bytes and with the record, and costs less than opening the image.

        :return: ``None`` if there is no image, or if the driver cannot tell.
        """
        return None

    @abc.abstractmethod
    def start_fill(self, image_id: str, variant: int = 0) -> Sink:
        """Begin to write an image, or go on with what an earlier writer left
        (:attr:`Sink.kept`).

        :raises FillUnderWay: a living writer has it.
        :raises DriverError: the file cannot be made.
        """

    def begin_asking(self, image_id: str) -> bool:
        """Become the one process that asks the app for an image, until :meth:`end_asking`. For
        one thread of a process at a time. Never waits.

        :return: whether no other process is; a driver that does not know says so too.
        :raises DriverError: it cannot be found out.
        """
        return True

    def end_asking(self, image_id: str) -> None:  # noqa: B027 (a driver may do without)
        """Ask no more. Never raises."""

    def is_asked_elsewhere(self, image_id: str) -> bool:
        """Say whether another process asks the app for an image. Never raises."""
        return False

    @abc.abstractmethod
    def has_fill(self, image_id: str) -> bool:
        """Say whether a fill was begun that has not ended as an entry; somebody's or nobody's.

        Costs little. Never raises.
        """

    @abc.abstractmethod
    def tail(self, image_id: str, variant: int = 0) -> Tail | None:
        """Look at an image's fill, whoever has it under way; ``None`` if there is none."""

    @abc.abstractmethod
    def get_partial_images(self) -> list[dict[str, Any]]:
        """List images of which only parts are there and nobody is writing, by id: dicts with
        ``image_id``, ``size`` (bytes that are there), ``length`` (of the whole) and
        ``last_modified``."""

    @abc.abstractmethod
    def sums(self, entry: Entry) -> Sums | None:
        """Give the checksums of an entry's chunks; ``None``: there are none that fit it."""

    @contextlib.contextmanager
    def open_for_write(self, image_id: str) -> Iterator[Sink]:
        """Write an image: committed when the block ends, rolled back when it raises."""
        sink = self.start_fill(image_id)
        try:
            yield sink
            record = self.describe(image_id, sink)
        except BaseException as exc:
            sink.rollback(str(exc) or type(exc).__name__)
            sink.close()
            raise
        try:
            sink.commit(record)
        finally:
            sink.close()

    @abc.abstractmethod
    def describe(self, image_id: str, sink: Sink) -> Record:
        """Make the record of a fill of which nothing is known but its bytes (reads them)."""

    @abc.abstractmethod
    def adopt(self, entry: Entry, record: Record) -> None:
        """Give a record to an entry that had none, once its bytes were verified."""

    @abc.abstractmethod
    def update(self, entry: Entry, record: Record) -> bool:
        """Give an open entry another record, unless it was deleted or replaced meanwhile.

        The bytes stay, and so must id, variant, size and checksum. After a power cut the
        old record may be back.

        :return: whether it has it now.
        """

    @abc.abstractmethod
    def invalidate(self, image_id: str, reason: str, variant: int = 0) -> None:
        """Take an image that was found damaged out of the cache, into ``invalid/``."""

    @abc.abstractmethod
    def delete_cached_image(self, image_id: str) -> bool:
        """Remove an image, all its variants, and see that no fill of it under way is stored.

        :return: whether there was one.
        """

    @abc.abstractmethod
    def delete_all_cached_images(self) -> int:
        """Remove every image. :return: how many there were."""

    def mark_of_deletion(self, image_id: str) -> bytes:
        """Give what is another once any process has begun to delete the image."""
        return b""

    # What is there

    @abc.abstractmethod
    def is_cached(self, image_id: str) -> bool:
        """Say whether a complete image is stored."""

    @abc.abstractmethod
    def is_being_cached(self, image_id: str) -> bool:
        """Say whether a living writer is filling the image."""

    def is_cacheable(self, image_id: str) -> bool:
        """Say whether a fill of the image may start."""
        return not (self.is_cached(image_id) or self.is_being_cached(image_id))

    @abc.abstractmethod
    def get_image_filepath(
        self, image_id: str, cache_status: str = "active", variant: int = 0
    ) -> str:
        """Give the path of an image's file.

        :param cache_status: ``"active"``, ``"incomplete"``, ``"invalid"`` or ``"queue"``.
        """

    @abc.abstractmethod
    def get_image_size(self, image_id: str) -> int:
        """Give a stored image's size in bytes.

        :raises ImageNotFound: it is not stored.
        """

    @abc.abstractmethod
    def get_cache_size(self) -> int:
        """Give the bytes of all complete images."""

    @abc.abstractmethod
    def get_cached_images(self) -> list[dict[str, Any]]:
        """List complete images, each variant for itself, by id: dicts with ``image_id``,
        ``size``, ``hits``, ``last_accessed``, ``last_modified`` and ``checksum`` (``None``:
        adopted, not verified)."""

    def find_images(
        self,
        *,
        search: str = "",
        sort: str = "image_id",
        descending: bool = False,
        limit: int | None = None,
        marker: str | None = None,
        marker_value: float | None = None,
    ) -> list[dict[str, Any]]:
        """List complete images as :meth:`get_cached_images` does, but only some, in an order.

        :param search: only ids that contain it.
        :param sort: ``"image_id"``, ``"size"``, ``"hits"``, ``"last_accessed"`` or
            ``"last_modified"``; those for which it is the same come by their ids.
        :param limit: entries at the most, but that the variants of one image for which ``sort``
            is the same stay together; ``None``: all.
        :param marker: id of the last one of the page before; ``None``: the first page.
        :param marker_value: what that one was sorted by, so that its place is known though it
            was deleted, or changed; ``None``: as it is now.
        :raises ValueError: ``sort`` is something else.
        :raises ImageNotFound: nobody knows the marker's place.
        """
        query = Query(
            search=search,
            sort=sort,
            descending=descending,
            limit=limit,
            marker=marker,
            marker_value=marker_value,
        )
        return self._find(query)

    def _find(self, query: Query) -> list[dict[str, Any]]:
        """Answer :meth:`find_images`; a driver that has an index asks that."""
        return select(self.get_cached_images(), query)

    def count_images(self, search: str = "") -> int:
        """Give how many complete images, each variant for itself, have a text in their id."""
        return sum(search in image["image_id"] for image in self.get_cached_images())

    def find_image(self, image_id: str) -> list[dict[str, Any]]:
        """Describe an image as :meth:`get_cached_images` does; empty: it is not stored."""
        return [image for image in self.get_cached_images() if image["image_id"] == image_id]

    @abc.abstractmethod
    def get_invalid_images(self) -> list[dict[str, Any]]:
        """List what is in ``invalid/`` by id: dicts with ``image_id``, ``size``, ``reason``
        and ``last_modified``."""

    # Use

    @abc.abstractmethod
    def record_hit(self, image_id: str, when: float, variant: int = 0) -> None:
        """Count a hit; written together with others, at the latest a second later."""

    @abc.abstractmethod
    def flush_hits(self) -> None:
        """Write the hits gathered in this process now. Never raises."""

    @abc.abstractmethod
    def get_hit_count(self, image_id: str) -> int:
        """Give an image's hits; 0 for one that is not stored."""

    # Room

    @abc.abstractmethod
    def exclusive(self) -> contextlib.AbstractContextManager[Any]:
        """Keep every other process and thread from changing the directory meanwhile; re-entrant."""

    @abc.abstractmethod
    def get_usage(self) -> int:
        """Give the bytes of entries, fills under way and failed fills together."""

    @abc.abstractmethod
    def get_least_recently_accessed(self) -> tuple[str, int] | None:
        """Give id and bytes of the image that was read longest ago, or ``None``."""

    @abc.abstractmethod
    def evict(self, wanted: int, note: OnVictim | None = None) -> tuple[int, int]:
        """Delete failed and abandoned fills, then least recently read images, until ``wanted``
        bytes are free. Hits count as of the last flush.

        :param note: called with each that is deleted, the directory's lock held: it does
            nothing that may wait.
        :return: images deleted, and bytes of all that was; fewer bytes than wanted if nothing
            is left.
        """

    @abc.abstractmethod
    def plan_eviction(self, wanted: int) -> list[Victim]:
        """Give what :meth:`evict` would delete now, in its order."""

    @abc.abstractmethod
    def reap_invalid(self, grace: float | None = None, note: OnVictim | None = None) -> int:
        """Remove what is in ``invalid/`` and older than ``grace`` seconds (``None``: all).

        :param note: called with each that is removed.
        :return: how many were removed.
        """

    @abc.abstractmethod
    def reap_stalled(self, grace: float | None = None, note: OnVictim | None = None) -> int:
        """Remove abandoned fills older than ``grace`` seconds (``None``: all); a fill whose
        writer lives stays.

        :param note: called with each that is removed, as in :meth:`evict`.
        :return: how many were removed.
        """

    def clean(self, stall_time: float | None = None, note: OnVictim | None = None) -> int:
        """Empty ``invalid/`` and remove abandoned fills.

        :param stall_time: seconds; ``None``: as configured.
        :param note: called with each that is removed, as in :meth:`evict`.
        :return: how many files were removed.
        """
        grace = self.stall_time if stall_time is None else stall_time
        return self.reap_invalid(note=note) + self.reap_stalled(grace, note)

    @abc.abstractmethod
    def plan_cleaning(self, stall_time: float | None = None) -> list[Victim]:
        """Give what :meth:`clean` would remove now, in no order."""

    # Check

    def look(self) -> None:
        """Open the directory to check it, in place of :meth:`configure`. Nothing is made, and
        nothing is mended but by an inspector.

        :raises BadDriverConfiguration: there is no such directory, or it cannot be opened.
        """
        self.configure()

    def looking(self) -> contextlib.AbstractContextManager[Any]:
        """As :meth:`exclusive`; what a crash left half done is not repaired first."""
        return self.exclusive()

    def inspectors(self) -> Sequence[Inspector]:
        """Give what looks for faults, in an order in which what one mends is not in the way of
        the next. The bytes of images are none of their business."""
        return ()

    def healed(self) -> list[Fault]:
        """Give what this instance found broken on its way, and has mended; each once."""
        return []

    def stored_names(self) -> Iterator[str]:
        """Give a name for each stored image and variant, in no order; those that come or go
        meanwhile may be among them."""
        for image in self.get_cached_images():
            yield image["image_id"]

    def stored_bytes(self) -> int:
        """Give the bytes of all of these together."""
        return self.get_cache_size()

    def open_stored(self, name: str) -> Entry | None:
        """Open what has one of these names; ``None``: it is gone, or a matter of inspectors."""
        try:
            return self.open_any(name)
        except DriverError:
            return None

    def loose_record(self, name: str) -> Record | None:
        """Give the record that an image without one seems to have lost; if its bytes have the
        checksum, :meth:`adopt` gives it back."""
        return None

    def is_stored(self, entry: Entry, name: str) -> bool:
        """Say whether an open image is still what has that name."""
        return True

    def condemn(self, entry: Entry, name: str, reason: str) -> bool:
        """Take an open image that was found damaged out of the cache.

        :return: whether it was; not, if it was deleted or replaced meanwhile.
        """
        variant = 0 if entry.record is None else entry.record.variant
        self.invalidate(entry.image_id, reason, variant)
        return True

    def next_to_verify(self, limit: int) -> list[str]:
        """Give names of stored images, those first that were verified longest ago; none, once
        all had their turn (:meth:`note_verified` with an empty name begins the next)."""
        return []

    def note_verified(self, name: str) -> None:  # noqa: B027 (a driver may do without)
        """Remember that an image had its turn; those that :meth:`next_to_verify` named before
        it had theirs too.

        :param name: empty: all begin anew.
        """

    # Queue

    @abc.abstractmethod
    def queue_image(self, image_id: str, url: str | None = None, anew: bool = True) -> bool:
        """Put an image in the queue; ``False`` if it is cached, being cached or waiting there.

        :param url: how a request fetched it, if one named it.
        :param anew: whether an image that was set aside starts anew; else ``False`` for one.
        """

    @abc.abstractmethod
    def is_queued(self, image_id: str) -> bool:
        """Say whether an image waits in the queue, and was not set aside."""

    @abc.abstractmethod
    def get_queued_images(self) -> list[str]:
        """List the ids that wait, the longest waiting first, without those set aside."""

    def get_queue(self) -> list[dict[str, Any]]:
        """List all that is in the queue, the longest waiting first: dicts with ``image_id``,
        ``queued`` (since when), ``url``, ``tries``, ``after``, ``reason``, ``set_aside`` and
        ``fetching``, as in :class:`~cachemw.drivers.queued.Note`."""
        blank = {**dataclasses.asdict(Note()), "queued": 0.0, "fetching": False}
        return [{**blank, "image_id": image_id} for image_id in self.get_queued_images()]

    def queue_state(self) -> Hashable:
        """Give what is mostly another once the queue has changed; it costs next to nothing."""
        return object()

    def claim_queued(self, image_id: str) -> Claim | None:
        """Keep everybody else from fetching a queued image, here and in other processes.

        :return: ``None``: it is not in the queue, or somebody else fetches it.
        """
        return None

    @abc.abstractmethod
    def delete_queued_image(self, image_id: str) -> bool:
        """Take an image out of the queue, also one set aside. :return: whether it was there."""

    @abc.abstractmethod
    def delete_all_queued_images(self) -> int:
        """Empty the queue. :return: how many were in it."""
