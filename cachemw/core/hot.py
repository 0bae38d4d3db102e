"""Hot small images, kept in memory by each process.

An image is taken in when it is asked for again. Before it is answered from
here, the driver says whether the file that it was read from is still the
entry: whatever deletes, evicts, replaces or changes it, in any process, holds
from the next request on. That is one question to the system where opening,
looking at and sending the file are many, and where threads share a processor
each question costs a turn.

Imports: concurrency, drivers.base.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from .. import concurrency
from ..drivers.base import Driver, Entry, MemoryEntry, Record

#: A longer image goes out by sendfile, which costs its length less than a copy here (bytes).
MOST_IMAGE_SIZE = 128 * 1024

#: What an image costs besides its bytes and its record's texts (bytes, roughly).
_OVERHEAD = 4096


#: An image's id, and which of its variants.
_Key = tuple[str, int]


class _Hot:
    """One image in memory."""

    __slots__ = ("cost", "data", "identity", "record", "used")

    def __init__(self, data: bytes, record: Record, identity: Hashable) -> None:
        self.data = data
        self.record = record
        self.identity = identity
        self.used = False
        texts = (text for pair in (*record.headers, *record.vary) for text in pair)
        self.cost = len(data) + _OVERHEAD + sum(len(text or "") for text in texts)


class HotImages:
    """The images that one process keeps in memory. Threads may share it.

    Makes room by second chance: an image that was asked for since the hand
    last passed it stays for another round. So a hit takes no lock.

    :param memory_size: bytes; 0: nothing is kept.
    """

    def __init__(self, driver: Driver, memory_size: int) -> None:
        self._driver = driver
        self._memory_size = memory_size
        self._images: dict[_Key, _Hot] = {}
        self._round: deque[_Key] = deque()
        self._size = 0
        # Never waited for, so that a fork while a thread holds it does no harm
        # but to leave the child without new hot images.
        self._lock = concurrency.Lock()

    def get(self, image_id: str, variant: int) -> MemoryEntry | None:
        """Give an image, if it is here and is still what the cache has."""
        hot = self._images.get((image_id, variant))
        if hot is None:
            return None
        if self._driver.identity(image_id, variant) != hot.identity:
            self._drop((image_id, variant), hot)
            return None
        hot.used = True
        return MemoryEntry(image_id, hot.data, hot.record)

    def offer(self, entry: Entry) -> None:
        """Take an image in, if it is small and the driver can tell it from others.

        :raises OSError: it cannot be read.
        """
        if entry.size > MOST_IMAGE_SIZE or entry.identity is None or entry.record is None:
            return
        if entry.size + _OVERHEAD > self._memory_size or not self._lock.acquire(blocking=False):
            return
        try:
            data = entry.pread(entry.size, 0)
            if len(data) == entry.size:
                key = entry.image_id, entry.record.variant
                self._insert(key, _Hot(data, entry.record, entry.identity))
        finally:
            self._lock.release()

    def _insert(self, key: _Key, hot: _Hot) -> None:
        if key in self._images:
            self._remove(key)
            self._round.remove(key)
        if hot.cost > self._memory_size:
            return
        while self._size + hot.cost > self._memory_size:
            oldest = self._round.popleft()
            other = self._images.get(oldest)
            if other is not None and other.used:
                other.used = False
                self._round.append(oldest)
            else:
                self._remove(oldest)
        self._images[key] = hot
        self._round.append(key)
        self._size += hot.cost

    def _drop(self, key: _Key, hot: _Hot) -> None:
        if self._lock.acquire(blocking=False):
            try:
                if self._images.get(key) is hot:
                    self._remove(key)
                    self._round.remove(key)
            finally:
                self._lock.release()

    def _remove(self, key: _Key) -> None:
        hot = self._images.pop(key, None)
        if hot is not None:
            self._size -= hot.cost
