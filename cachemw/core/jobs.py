"""Jobs: what takes long, is done in the background, and is looked at from any process.

Of each kind one job runs at a time, over all processes that share a cache
directory; who would start a second one is given the first.

Imports: concurrency, core._jobfiles, core.cache, core.config, errors.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import concurrency
from ..errors import CacheMwError
from ._jobfiles import Claim, JobFiles, new_id
from .cache import ImageCache
from .config import parse_bool, parse_duration, parse_size

log = concurrency.get_logger(__name__)

#: Seconds between two times that a job's progress is written.
_STEP = 0.5

#: How often the job that is in the way is looked for, some milliseconds apart.
_TRIES = 500

#: Findings of a check that are kept with its job.
_MOST_FINDINGS = 1000

#: Gets what is done and what is to be done in all, in bytes.
Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is known of a job.

    :param kind: one of :data:`KINDS`.
    :param state: ``"running"``, ``"done"``, ``"failed"``, or ``"lost"``: its process ended.
    :param started: seconds since the epoch, as ``ended``.
    :param done: bytes, of ``total``; ``total`` is 0 where nobody knows.
    :param result: what it did, once it is done.
    :param error: why it failed, one phrase.
    """

    id: str
    kind: str
    state: str
    started: float
    ended: float | None = None
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return dataclasses.asdict(self)


class Jobs:
    """The jobs of one cache directory. Threads may share it."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._files = JobFiles(cache.driver.directory)

    @concurrency.offloaded
    def start(self, kind: str, options: Mapping[str, Any] | None = None) -> Job:
        """Start a job, unless one of its kind runs, which is given instead.

        :param options: ``max_size`` of a prune, ``stall_time`` of a clean (with the meaning of
            the options of these names), ``repair`` of a check.
        :raises ValueError: there is no such kind or option, or its value is bad.
        :raises OSError: it cannot be noted in the cache directory.
        """
        work = _work(kind, dict(options or {}), self._cache)
        for _ in range(_TRIES):
            job = Job(new_id(kind), kind, "running", time.time())
            claim = self._files.claim(kind, job.id)
            if claim is not None:
                self._begin(_Running(self._files, job, work, claim))
                return job
            other = self._get_running(kind)
            if other is not None:
                return other
            # It has ended since, or its process has not noted it yet.
            concurrency.Alarm().wait(0.005)
        raise OSError(f"a job of the kind {kind} is in the way, and cannot be read")

    def _begin(self, running: _Running) -> None:
        try:
            running.note()
            self._files.forget_old()
            concurrency.start_thread(running.run, name=f"cachemw-{running.job.kind}")
        except RuntimeError as exc:  # no more threads
            running.end("failed", error="there can be no thread for it")
            raise OSError(f"the job cannot be started: {exc}") from exc
        except BaseException:
            running.claim.release()
            raise

    def _get_running(self, kind: str) -> Job | None:
        job_id = self._files.running(kind)
        kept = None if job_id is None else self._files.read(job_id)
        return _job(kept) if kept is not None and kept["state"] == "running" else None

    @concurrency.offloaded
    def get(self, job_id: str) -> Job | None:
        """Look at a job; ``None``: there is none with that id, or it was long ago."""
        kept = self._files.read(job_id)
        if kept is None:
            return None
        if kept["state"] == "running" and self._files.running(kept["kind"]) != job_id:
            # It may have ended between the two looks.
            kept = self._files.read(job_id) or kept
            if kept["state"] == "running":
                kept = {**kept, "state": "lost"}
        return _job(kept)

    @concurrency.offloaded
    def list(self) -> Sequence[Job]:
        """Look at all that are known, the newest first."""
        jobs = (self.get(job_id) for job_id in self._files.ids())
        return [job for job in jobs if job is not None]

    def wait(self, job: Job, seconds: float) -> Job:
        """Wait until a job has ended, or so long.

        :return: how it is then.
        """
        deadline = time.monotonic() + seconds
        while job.state == "running" and time.monotonic() < deadline:
            concurrency.Waiter().wait(0.01)
            job = self.get(job.id) or job
        return job


class _Running:
    """A job of this process."""

    def __init__(
        self, files: JobFiles, job: Job, work: Callable[[Progress], dict[str, Any]], claim: Claim
    ) -> None:
        self.job = job
        self.claim = claim
        self._files = files
        self._work = work
        self._noted = time.monotonic()

    def note(self) -> None:
        """Write what is known.

        :raises OSError: it cannot be written.
        """
        self._files.write(self.job.as_dict())

    def run(self) -> None:
        """Do it. Never raises."""
        try:
            result = self._work(self._progress)
        except (CacheMwError, OSError) as exc:
            self.end("failed", error=str(exc))
        except BaseException as exc:
            log.exception("the job %s failed", self.job.id)
            self.end("failed", error=type(exc).__name__)
        else:
            self.end("done", result=result)

    def end(self, state: str, **outcome: Any) -> None:
        """Note how it ended, and let others run such a job. Never raises."""
        done = self.job.total if state == "done" else self.job.done
        self.job = dataclasses.replace(
            self.job, state=state, ended=time.time(), done=done, **outcome
        )
        try:
            self.note()
        except OSError as exc:
            log.warning("the end of the job %s cannot be noted: %s", self.job.id, exc)
        finally:
            self.claim.release()

    def _progress(self, done: int, total: int) -> None:
        self.job = dataclasses.replace(self.job, done=done, total=total)
        now = time.monotonic()
        if now - self._noted >= _STEP:
            self._noted = now
            try:
                self.note()
            except OSError:
                pass  # a full disk; the job may be what frees it


def _job(kept: Mapping[str, Any]) -> Job:
    names = [field.name for field in dataclasses.fields(Job)]
    return Job(**{name: kept[name] for name in names if name in kept})


# Kinds


def _prune(cache: ImageCache, progress: Progress, max_size: int | None = None) -> dict[str, Any]:
    limit = cache.capacity.max_size if max_size is None else max_size
    progress(0, max(cache.driver.get_usage() - limit, 0))
    images, size = cache.prune(max_size)
    return {"images": images, "bytes": size}


def _clean(
    cache: ImageCache, progress: Progress, stall_time: float | None = None
) -> dict[str, Any]:
    return {"files": cache.clean(stall_time)}


def _check(cache: ImageCache, progress: Progress, repair: bool = False) -> dict[str, Any]:
    report = cache.check(repair, progress)
    return {
        "images": report.images,
        "bytes": report.bytes,
        "is_clean": report.is_clean,
        "findings": [dataclasses.asdict(one) for one in report.findings[:_MOST_FINDINGS]],
    }


#: What is done for each kind, and the readers of its options.
KINDS: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Callable[[Any], Any]]]] = {
    "prune": (_prune, {"max_size": parse_size}),
    "clean": (_clean, {"stall_time": parse_duration}),
    "check": (_check, {"repair": parse_bool}),
}


def _work(
    kind: str, options: dict[str, Any], cache: ImageCache
) -> Callable[[Progress], dict[str, Any]]:
    """Prepare a job.

    :raises ValueError: there is no such kind or option, or its value is bad.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected {', '.join(KINDS)}")
    function, readers = KINDS[kind]
    read = {}
    for name, value in options.items():
        if name not in readers:
            raise ValueError(f"unknown option {name!r}: expected {', '.join(readers)}")
        try:
            read[name] = readers[name](value)
        except ValueError as exc:
            raise ValueError(f"option {name!r}: {exc}") from None
    return lambda progress: function(cache, progress, **read)
