"""A fill without an app and without files: chunks, a sink in memory, and what goes wrong."""

import hashlib

from cachemw.core.checksum import Checksum
from cachemw.core.fill import Fill
from cachemw.drivers.base import Record, Sink
from cachemw.errors import CacheFull


class FakeSink(Sink):
    """A sink in memory whose steps can fail."""

    def __init__(self, fail_write_at=None, fail_commit=False, error=None):
        self.written = 0
        self.data = b""
        self.record = None
        self.outcome = None
        self.fail_write_at = fail_write_at
        self.fail_commit = fail_commit
        self.writes = 0
        self.error = error or CacheFull("cat", "no space left on device")

    kept = None

    def announce(self, record, length, keep=False):
        pass

    def reserve(self, size):
        pass

    def publish(self, readable):
        self.published = readable

    def wanted(self):
        return 0

    def is_current(self):
        return True

    def pread(self, size, position):
        return self.data[position : position + size]

    def leave(self, declined=""):
        self.outcome = f"left {declined}".strip()

    def close(self):
        pass

    def write(self, data, position=None):
        if self.writes == self.fail_write_at:
            raise self.error
        self.writes += 1
        self.data += data
        self.written += len(data)
        return len(data)

    def commit(self, record):
        if self.fail_commit:
            raise self.error
        self.record, self.outcome = record, "committed"

    def rollback(self, reason, *, keep=True, is_wrong=True):
        self.outcome = reason


class FreeRoom:
    """Room without end."""

    def extend(self, sink, needed):
        pass

    def relieve(self, wanted):
        raise CacheFull("cat", "nothing to evict")


class Source:
    """The app's chunks; counts its closing."""

    def __init__(self, *chunks):
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self):
        self.closed += 1


def fill_of(source, sink, length=None, expected=()):
    return Fill("cat", sink, FreeRoom()).begin(
        source,
        Record("cat", 0, ""),
        length=length,
        expected=expected,
        make_record=lambda size, checksum: Record("cat", size, checksum),
    )


def md5(data):
    return Checksum("md5", hashlib.md5(data).hexdigest())


def shared(sink, **options):
    return Fill("cat", sink, FreeRoom(), is_movable=True, **options)


def begin(fill, source, length=None, expected=(), is_resumable=False):
    return fill.begin(
        source,
        Record("cat", 0, ""),
        length=length,
        expected=expected,
        make_record=lambda size, checksum: Record("cat", size, checksum),
        is_resumable=is_resumable,
    )


def read_all(reader):
    data = b""
    while piece := reader.read(len(data), 10**6, 5):
        data += piece
    return data
