"""What becomes of a fill's bytes while others have them written at the same time."""

import hashlib
import threading
import time

from cachemw.core.intake import Intake
from tests.unit.core.filling import FakeSink, FreeRoom


class LockThatComesLate:
    """Lets somebody else go first, once."""

    def __init__(self, first):
        self.first = first
        self.lock = threading.Lock()

    def __enter__(self):
        first, self.first = self.first, None
        if first is not None:
            first()
        self.lock.acquire()

    def __exit__(self, *exc_info):
        self.lock.release()

    def acquire(self, blocking=True):
        return self.lock.acquire(blocking)

    def release(self):
        self.lock.release()


class SlowSink(FakeSink):
    def write(self, data, position=None):
        time.sleep(0.05)
        return super().write(data, position)


def test_all_is_worked_off_although_somebody_else_flushes_just_then():
    """Else a checksum of less than all would be compared, and kept."""
    sink = SlowSink()
    intake = Intake("cat", sink, FreeRoom(), ())
    intake.take(b"abc")
    intake._lock = LockThatComesLate(intake.flush)
    intake.work_off()

    assert sink.data == b"abc"
    assert intake.verify() == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"


def test_nothing_is_published_after_the_end():
    """Whoever ends the sink tells of all bytes; fewer would be an end for other processes."""
    sink = FakeSink()
    intake = Intake("cat", sink, FreeRoom(), ())
    intake.take(b"abc")
    intake.end()
    intake.limit = 2
    intake.flush()

    assert not hasattr(sink, "published")
