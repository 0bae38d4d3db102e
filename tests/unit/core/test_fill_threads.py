"""One fill, many threads: whatever happens in whatever order, no wrong byte and no hang.

Everything is drawn from a seed, which is in the name of the test; threads are
real, so the order in which they meet is not repeated.
"""

import dataclasses
import random
import sys
import threading
import time

import pytest

import cachemw.core.fill as fill_module
from cachemw.core.fill import NEVER, Fill
from cachemw.core.growing import FillLost
from cachemw.core.intake import BLOCK
from cachemw.core.pipeline import LIMIT
from cachemw.drivers.base import Record
from cachemw.errors import DriverError, FillError
from tests.unit.core.filling import FakeSink, FreeRoom, Source, md5

#: Seconds after which a reader that still waits counts as hung.
HUNG = 20

#: Courses of events for each end.
SEEDS = 60

#: How an app's answer ends, and whether its readers may have the end.
ENDS = {"right": True, "fails": False, "short": False, "long": False, "wrong": False}


@dataclasses.dataclass
class Plan:
    """What one seed makes happen."""

    seed: int
    end: str
    body: bytes
    chunks: list[bytes]
    length: int | None
    fail_write_at: int | None
    fail_commit: bool
    fail_publish: bool
    is_resumable: bool
    is_movable: bool
    finish_from: float
    readers: int
    wanted: int
    is_large: bool
    stops: bool

    @classmethod
    def of(cls, seed: int, end: str) -> "Plan":
        choose = random.Random(f"{seed} {end}")
        size = choose.choice([1, 1000, BLOCK, 3 * BLOCK, choose.randrange(1, 8 * BLOCK)])
        body = random.Random(seed).randbytes(size)
        chunks, position = [], 0
        while position < size:
            most = choose.choice([100, BLOCK // 7, BLOCK, 2 * BLOCK])
            most = max(most if size < BLOCK else BLOCK // 50, choose.randrange(1, most + 1))
            chunks.append(body[position : position + most])
            position += most
        return cls(
            seed=seed,
            end=end,
            body=body,
            chunks=chunks,
            # What is cut short or too long is found out by the length.
            length=choose.choice([size, None]) if end in ("right", "fails", "wrong") else size,
            fail_write_at=choose.choice([None, None, None, 0, choose.randrange(8)]),
            fail_commit=choose.random() < 0.1,
            fail_publish=choose.random() < 0.1,
            is_resumable=choose.random() < 0.5,
            is_movable=choose.random() < 0.8,
            finish_from=choose.choice([0.0, 0.5, NEVER]),
            readers=choose.randrange(6),
            wanted=choose.choice([0, 0, 1, size // 2, 10**12]),
            is_large=choose.random() < 0.3,
            stops=choose.random() < 0.2,
        )

    @property
    def is_storable(self) -> bool:
        return self.fail_write_at is None and not self.fail_publish

    def source(self) -> "WatchedSource":
        chunks = list(self.chunks)
        if self.end == "fails":
            chunks[random.Random(self.seed).randrange(len(chunks)) :] = [OSError("gone")]
        elif self.end == "short":
            chunks.pop()
        elif self.end == "long":
            chunks.append(b"x")
        return WatchedSource(self.seed, *chunks)


class WatchedSource(Source):
    """Notices two threads at a time, and use after its close."""

    def __init__(self, seed, *chunks):
        super().__init__(*chunks)
        self.random = random.Random(seed)
        self.busy = threading.Lock()
        self.faults = []

    def __next__(self):
        if not self.busy.acquire(blocking=False):
            self.faults.append("two threads in the app")
        if self.closed:
            self.faults.append("called after its close")
        try:
            pause(self.random)
            return super().__next__()
        finally:
            self.busy.release()

    def close(self):
        if not self.busy.acquire(blocking=False):
            self.faults.append("closed while it ran")
        else:
            self.busy.release()
        super().close()


class WatchedSink(FakeSink):
    """Slow, fails as planned, and counts its ends; freed bytes are gone, as a file's."""

    def __init__(self, plan):
        super().__init__(fail_write_at=plan.fail_write_at, fail_commit=plan.fail_commit)
        self.plan = plan
        self.random = random.Random(plan.seed)
        self.ends = []
        self.shown = 0
        self.has_failed = False
        self.closed = 0
        self.faults = []

    def write(self, data, position=None):
        pause(self.random)
        if position != len(self.data):
            self.faults.append(f"{position} was written after {len(self.data)}")
        self.has_failed = self.has_failed or self.writes == self.fail_write_at
        return super().write(data, position)

    def publish(self, readable):
        if self.ends:
            return
        if self.plan.fail_publish and readable > len(self.plan.body) // 2:
            self.has_failed = True
            raise DriverError("cat", "input/output error")
        self.shown = max(self.shown, readable)
        if readable > len(self.data):
            self.faults.append("more was shown than is there")

    def wanted(self):
        if self.ends:
            raise DriverError("cat", "bad file descriptor")
        return self.plan.wanted

    def pread(self, size, position):
        if self.closed:
            self.faults.append("read after its close")
        return super().pread(size, position)

    def commit(self, record):
        pause(self.random)
        self.ends.append("commit")
        super().commit(record)

    def rollback(self, reason, *, keep=True, is_wrong=True):
        self.ends.append("rollback")
        if not keep:
            self.data = b""

    def leave(self, declined=""):
        self.ends.append("leave")

    def close(self):
        self.closed += 1


class Follower(threading.Thread):
    """Reads at random places, then mostly to the end; may leave at any time.

    :param reader: closed in the end.
    """

    def __init__(self, plan, reader, number):
        super().__init__(daemon=True)
        self.plan = plan
        self.reader = reader
        self.random = random.Random(f"{plan.seed} {number}")
        self.leaves_at = self.random.choice([None, None, self.random.randrange(len(plan.body))])
        self.faults = []
        self.error = None
        self.has_all = False

    def run(self):
        try:
            if self.random.random() < 0.5:
                for _ in range(self.random.randrange(4)):
                    self.read(self.random.randrange(len(self.plan.body)))
            self.read_on()
        except (FillLost, FillError, OSError) as exc:
            self.error = exc
        except BaseException as exc:
            self.faults.append(repr(exc))
        finally:
            self.reader.close()

    def read(self, position):
        pause(self.random)
        data = self.reader.read(position, self.random.choice([1, 1000, 10**6]), HUNG)
        if data != self.plan.body[position : position + len(data)]:
            self.faults.append(f"wrong bytes at {position}")
        return data

    def read_on(self):
        position = 0
        while self.leaves_at is None or position < self.leaves_at:
            data = self.read(position)
            if not data:
                self.has_all = position == len(self.plan.body)
                if not self.has_all:
                    self.faults.append(f"it ended at {position}")
                return
            position += len(data)


class Leader(Follower):
    """Iterates, as a server does."""

    def read_on(self):
        received, chunks = 0, iter(self.reader)
        # It was elsewhere, for the sake of ranges.
        self.reader.position = 0
        for chunk in chunks:
            pause(self.random)
            if chunk != self.plan.body[received : received + len(chunk)]:
                self.faults.append(f"wrong bytes at {received}")
            received += len(chunk)
            if self.leaves_at is not None and received >= self.leaves_at:
                return
        self.has_all = received == len(self.plan.body)
        if not self.has_all:
            self.faults.append(f"it ended at {received}")


def pause(choose):
    if choose.random() < 0.1:
        time.sleep(choose.random() * 0.002)


def attend(fill, gathered):
    """Do what the supervisor does, until the fill is over."""
    while not fill.is_over:
        if fill.attend():
            fill.pump_on()
        gathered.append(fill._arrived.in_memory)
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def eager_threads():
    """Have threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_nobody_gets_a_wrong_byte_and_nobody_hangs(seed, end, monkeypatch):
    plan = Plan.of(seed, end)
    monkeypatch.setattr(fill_module, "_LARGE", 1 if plan.is_large else 2**40)
    # So that a grace is over within the test.
    monkeypatch.setattr(fill_module, "_GRACE", 0.02)
    source, sink, ended, gathered = plan.source(), WatchedSink(plan), [], []
    fill = Fill(
        "cat",
        sink,
        FreeRoom(),
        finish_from=plan.finish_from,
        is_movable=plan.is_movable,
        ended=ended.append,
    )
    early = [fill.reader() for _ in range(plan.readers // 2)]
    checksum = md5(plan.body if end != "wrong" else b"other")
    leader = fill.begin(
        source,
        Record("cat", 0, ""),
        length=plan.length,
        expected=(checksum,),
        make_record=lambda size, checksum: Record("cat", size, checksum),
        is_resumable=plan.is_resumable,
    )
    late = [fill.reader() for _ in range(plan.readers - len(early))]
    threads = [Leader(plan, leader, 0)]
    threads += [Follower(plan, reader, n + 1) for n, reader in enumerate([*early, *late])]
    supervising = threading.Thread(target=attend, args=(fill, gathered), daemon=True)
    supervising.start()
    for thread in threads:
        thread.start()
    if plan.stops:
        fill.stop()
    # Elsewhere somebody may want it for ever; here he leaves in the end.
    for thread in threads:
        thread.join(HUNG / 2)
    plan.wanted = 0
    supervising.join(HUNG / 2)

    assert [thread for thread in (*threads, supervising) if thread.is_alive()] == []
    assert [thread.faults for thread in threads if thread.faults] == []
    assert (source.faults, sink.faults) == ([], [])
    assert (source.closed, sink.closed, ended) == (1, 1, [fill])
    # Bytes that were written in vain may be freed early; the end that follows does nothing.
    assert len(sink.ends) == 1 or (sink.has_failed and sink.ends[0] == "rollback")
    assert len(sink.ends) <= 2
    assert not fill._readers
    assert max(gathered, default=0) <= 2 * LIMIT
    assert sink.shown < len(plan.body) or fill.is_verified
    if fill.stored:
        assert sink.data == plan.body
        assert sink.record.checksum == str(checksum)
    if not ENDS[end]:
        assert not any(thread.has_all for thread in threads)
        assert not fill.stored
    elif plan.is_storable and (plan.is_movable or threads[0].leaves_at is None):
        assert all(thread.has_all for thread in threads if thread.leaves_at is None)
    elif len(threads) == 1 and threads[0].leaves_at is None:
        assert threads[0].has_all
