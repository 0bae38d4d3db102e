"""Jobs in the background: one of a kind, told to every process."""

import json
import os
import threading
import time

import pytest

from cachemw import ImageCache
from cachemw.core import _jobfiles
from cachemw.core.jobs import Jobs
from cachemw.errors import DriverError


@pytest.fixture
def cache(tmp_path):
    cache = ImageCache(dir=str(tmp_path / "cache"), min_free=0)
    yield cache
    cache.close()


@pytest.fixture
def jobs(cache):
    return Jobs(cache)


@pytest.fixture
def held(cache, monkeypatch):
    """Prunes that go on until the event is set, and how many there were."""
    go_on = threading.Event()
    calls = []

    def prune(max_size, report):
        calls.append(max_size)
        report([], 4, 10)
        go_on.wait(30)
        return 2, 10

    monkeypatch.setattr(cache, "prune", prune)
    go_on.calls = calls
    yield go_on
    go_on.set()


def test_a_job_tells_what_it_did(jobs, cache):
    cache.cache_image_iter("cat", [bytes(1000)])
    cache.cache_image_iter("dog", [bytes(500)])
    started = jobs.start("prune", {"max_size": "600"})
    job = jobs.wait(started, 30)

    assert (job.id, job.kind, job.state) == (started.id, "prune", "done")
    assert job.result == {"images": 1, "bytes": 1000}
    assert job.done == job.total == 900
    assert started.started <= job.ended
    assert [image["image_id"] for image in cache.get_cached_images()] == ["dog"]
    assert jobs.list() == [job]
    assert json.loads(json.dumps(job.as_dict()))["result"] == job.result


def test_cleaning_is_a_job(jobs, cache):
    cache.driver.start_fill("cat").rollback("broken")
    job = jobs.wait(jobs.start("clean", {"stall_time": 0}), 30)

    assert (job.state, job.result) == ("done", {"files": 1})


def test_a_second_one_of_a_kind_is_the_first_one(jobs, cache, held):
    first = jobs.start("prune")
    second = Jobs(cache).start("prune", {"max_size": 1})
    other = jobs.wait(jobs.start("clean"), 30)

    assert second.id == first.id != other.id
    assert jobs.get(first.id).state == "running"
    held.set()
    assert jobs.wait(first, 30).state == "done"
    assert held.calls == [None]
    third = jobs.wait(jobs.start("prune"), 30)
    assert third.id != first.id
    assert [job.id for job in jobs.list()] == [third.id, other.id, first.id]


def test_a_job_that_runs_tells_how_far_it_is(jobs, held, monkeypatch):
    monkeypatch.setattr("cachemw.core.jobs._STEP", 0.0)
    job = jobs.start("prune")
    deadline = time.monotonic() + 30
    while (looked := jobs.get(job.id)).total == 0 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert (looked.state, looked.done, looked.total) == ("running", 4, 10)


def test_many_that_start_at_once_start_one(jobs, held):
    ids = []
    threads = [
        threading.Thread(target=lambda: ids.append(jobs.start("prune").id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    held.set()

    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert jobs.wait(jobs.get(ids[0]), 30).state == "done"
    assert len(held.calls) == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DriverError("cat", "cannot be deleted"), "cat: cannot be deleted"),
        (KeyError("x"), "KeyError"),
    ],
)
def test_a_job_that_fails_says_why(jobs, cache, monkeypatch, error, told):
    def prune(max_size, report):
        raise error

    monkeypatch.setattr(cache, "prune", prune)
    job = jobs.wait(jobs.start("prune"), 30)

    assert (job.state, job.error, job.result) == ("failed", told, None)
    monkeypatch.undo()
    assert jobs.wait(jobs.start("prune"), 30).state == "done"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("burn", {}, "kind 'burn': expected prune, clean, check"),
        ("prune", {"repair": True}, "unknown option 'repair': expected max_size"),
        ("prune", {"max_size": "lots"}, "option 'max_size': expected bytes"),
        ("clean", {"stall_time": None}, "option 'stall_time': expected seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused(jobs, kind, options, message):
    with pytest.raises(ValueError, match=message):
        jobs.start(kind, options)
    assert jobs.list() == []


def test_a_check_reports_its_findings(jobs, cache, monkeypatch):
    cache.cache_image_iter("cat", [bytes(1000)])
    cache.cache_image_iter("dog", [bytes(70)])
    assert jobs.wait(jobs.start("check"), 30).result["is_clean"]
    with open(cache.driver.get_image_filepath("cat"), "r+b") as file:
        file.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr("cachemw.core.jobs._MOST_FINDINGS", 0)
        assert jobs.wait(jobs.start("check"), 30).result["findings"] == []
    found = jobs.wait(jobs.start("check"), 30)
    mended = jobs.wait(jobs.start("check", {"repair": "yes"}), 30)
    after = jobs.wait(jobs.start("check"), 30)

    assert (found.state, found.result["is_clean"]) == ("done", False)
    assert "cat" in {finding["image_id"] for finding in found.result["findings"]}
    assert not any(finding["is_mended"] for finding in found.result["findings"])
    assert all(finding["is_mended"] for finding in mended.result["findings"])
    assert (after.result["images"], after.result["bytes"]) == (1, 70)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


def test_a_job_whose_process_died_is_lost_and_in_nobodys_way(jobs, cache, start_python):
    process = start_python(
        """
import sys, time
from cachemw import ImageCache
from cachemw.core.jobs import Jobs
cache = ImageCache(dir=sys.argv[1], min_free=0)
cache.prune = lambda max_size, report: time.sleep(60)
print(Jobs(cache).start("prune").id, flush=True)
time.sleep(60)
""",
        cache.driver.directory,
    )
    job_id = process.stdout.readline().strip()
    assert jobs.get(job_id).state == "running"
    assert jobs.start("prune").id == job_id

    process.kill()
    process.wait()

    assert jobs.get(job_id).state == "lost"
    following = jobs.wait(jobs.start("prune"), 30)
    assert following.id != job_id
    assert following.state == "done"
    assert jobs.get(job_id).state == "lost"


def test_a_child_of_fork_does_not_keep_its_parents_job(cache, run_python):
    output = run_python(
        """
import os, sys, threading
from cachemw import ImageCache
from cachemw.core.jobs import Jobs
cache = ImageCache(dir=sys.argv[1], min_free=0)
go_on = threading.Event()
cache.prune = lambda max_size, report: go_on.wait(30) and (0, 0)
jobs = Jobs(cache)
first = jobs.start("prune")
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
go_on.set()
assert jobs.wait(first, 30).state == "done"
second = jobs.wait(jobs.start("prune"), 30)
os.write(writing, b".")
os.waitpid(pid, 0)
print(first.id != second.id, second.state)
""",
        cache.driver.directory,
    )

    assert output.split() == ["True", "done"]


@pytest.mark.parametrize(
    "job_id", ["", ".prune", "../cache", "prune-1-2", "a/b", "prune-" + "0" * 16 + "-" + "0" * 8]
)
def test_an_id_that_no_job_has_is_none(jobs, job_id):
    jobs.wait(jobs.start("prune"), 30)

    assert jobs.get(job_id) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"id": "ID"}'])
def test_a_file_that_is_no_job_is_none(jobs, cache, content):
    job = jobs.wait(jobs.start("prune"), 30)
    path = os.path.join(cache.driver.directory, _jobfiles.FOLDER, f"{job.id}.json")
    with open(path, "wb") as file:
        file.write(content.replace(b"ID", job.id.encode()))

    assert jobs.get(job.id) is None
    assert jobs.list() == []


def test_only_the_last_ones_are_kept_and_nobody_else_may_read_them(jobs, cache, monkeypatch):
    monkeypatch.setattr(_jobfiles, "_MOST_KEPT", 3)
    ids = [jobs.wait(jobs.start("prune"), 30).id for _ in range(6)]

    assert [job.id for job in jobs.list()] == ids[:2:-1]
    folder = os.path.join(cache.driver.directory, _jobfiles.FOLDER)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert {os.stat(os.path.join(folder, name)).st_mode & 0o777 for name in os.listdir(folder)} == {
        0o600
    }
