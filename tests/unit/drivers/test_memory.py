"""Records are remembered for as long as nobody can have changed their file."""

import os

from cachemw.drivers import _memory
from cachemw.drivers._memory import RecordMemory
from cachemw.drivers.base import Record

RECORD = Record("cat", 3, "sha256:00")


def aged(monkeypatch, status, seconds):
    now = status.st_ctime_ns + int(seconds * 1e9)
    monkeypatch.setattr(_memory.time, "time_ns", lambda: now)


def file_in(directory):
    path = directory / "cat"
    path.write_bytes(b"abc")
    return path


def test_record_of_a_file_at_rest_is_remembered(tmp_path, monkeypatch):
    memory, status = RecordMemory(), os.stat(file_in(tmp_path))
    aged(monkeypatch, status, 2)
    memory.put(status, RECORD)

    assert memory.get(status) is RECORD


def test_record_of_a_file_that_just_changed_is_not(tmp_path, monkeypatch):
    """Another change within the same tick of the clock would look the same."""
    memory, status = RecordMemory(), os.stat(file_in(tmp_path))
    aged(monkeypatch, status, 0.5)
    memory.put(status, RECORD)

    assert memory.get(status) is None


def test_changed_file_is_another(tmp_path, monkeypatch):
    memory, path = RecordMemory(), file_in(tmp_path)
    status = os.stat(path)
    aged(monkeypatch, status, 2)
    memory.put(status, RECORD)
    while os.stat(path).st_ctime_ns == status.st_ctime_ns:
        path.chmod(0o600)

    assert memory.get(os.stat(path)) is None


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "MOST", 2)
    memory = RecordMemory()
    for number in range(5):
        path = tmp_path / str(number)
        path.write_bytes(b"abc")
        status = os.stat(path)
        aged(monkeypatch, status, 2)
        memory.put(status, RECORD)

    assert len(memory._records) <= 2
