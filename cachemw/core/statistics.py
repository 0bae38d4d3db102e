"""What the cache does and has, as one snapshot, for whoever shows it.

The shapes are on the reference page of the management API.

Imports: core.cache, core.history, core.jobs, core.live, drivers.base, errors, metrics.declared,
metrics.exposition, metrics.totals.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..drivers.base import Driver
from ..errors import DriverError
from ..metrics.declared import OUTCOMES, ROLLED_BACK
from ..metrics.exposition import Reading
from ..metrics.exposition import exposition as text
from ..metrics.totals import totals
from . import history, live
from .cache import ImageCache
from .history import Sample, grown, sample_of
from .jobs import Job, Jobs

#: Images in each of the lists of a snapshot.
_MOST = 10

#: What is in ``invalid/`` and in the queue is listed up to so many.
_MOST_LISTED = 100

#: The lists of images are not made again for so many times as long as it took.
_REST = 20.0

#: Of each driver: until when its lists hold, and they.
_found: weakref.WeakKeyDictionary[Driver, tuple[float, dict[str, list[dict[str, Any]]]]]
_found = weakref.WeakKeyDictionary()

#: Of the sizes: key, metric, and what it is.
_SIZES = (
    ("used", "cachemw_size_bytes", "Bytes of entries, fills under way and failed fills."),
    ("entries", "cachemw_entries_bytes", "Bytes of the entries."),
    ("max", "cachemw_max_size_bytes", "The bound of cachemw_size_bytes."),
    ("free", "cachemw_free_bytes", "Bytes free on the file system."),
    ("min_free", "cachemw_min_free_bytes", "Bytes that are left free there."),
)

#: Over how long rates are, by name, in seconds.
WINDOWS = {"10s": 10.0, "1m": 60.0, "10m": 600.0}


def snapshot(cache: ImageCache) -> dict[str, Any]:
    """Look at everything once.

    :raises DriverError: it cannot be read.
    """
    with _translating():
        return _snapshot(cache)


def past(cache: ImageCache, hours: float = 24.0, step: int = 60) -> dict[str, Any]:
    """Give what was counted in each step of time, the oldest first.

    :param hours: how far back; samples are kept for a day.
    :param step: seconds, a multiple of ten.
    :raises DriverError: it cannot be read.
    """
    with _translating():
        samples = history.read(cache.driver.directory, time.time() - hours * 3600)
    return {
        "step": step,
        "samples": [sample._asdict() for sample in history.steps(samples, step)],
    }


def exposition(cache: ImageCache) -> str:
    """Give all metrics as Prometheus reads them.

    :raises DriverError: they cannot be read.
    """
    driver = cache.driver
    with _translating():
        counted = totals(driver.directory)
        size = _size(cache, driver.get_usage())
        queue = cache.get_queue()
        set_aside = sum(queued["set_aside"] for queued in queue)
        info = {"version": importlib.metadata.version("cachemw"), "driver": driver.name}
        return text(
            counted,
            [
                *(_gauge(name, doc, size[key]) for key, name, doc in _SIZES),
                _gauge("cachemw_images", "Entries.", driver.count_images()),
                Reading(
                    "cachemw_queued_images",
                    "Ids in the queue.",
                    [
                        ({"state": "waiting"}, len(queue) - set_aside),
                        ({"state": "set-aside"}, set_aside),
                    ],
                ),
                Reading("cachemw_info", "Which version and driver it is.", [(info, 1)]),
            ],
        )


def _gauge(name: str, doc: str, value: float | None) -> Reading:
    return Reading(name, doc, [] if value is None else [({}, value)])


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DriverError("statistics", f"cannot be read: {exc.strerror or exc}") from exc


def _snapshot(cache: ImageCache) -> dict[str, Any]:
    now = time.time()
    driver = cache.driver
    counted = totals(driver.directory)
    sample = sample_of(now, counted, driver.get_usage(), driver.count_images())
    # Some seconds more, since samples are that far apart.
    longest = max(WINDOWS.values()) + 2 * history.STEP
    samples = history.read(driver.directory, now - longest)
    return {
        "time": now,
        "version": importlib.metadata.version("cachemw"),
        "dir": driver.directory,
        "driver": driver.name,
        "size": _size(cache, sample.used),
        "images": sample.images,
        "partial_images": len(driver.get_partial_images()),
        "totals": _totals(counted),
        "rates": {name: rate(samples, sample, window) for name, window in WINDOWS.items()},
        "fills": _fills(live.rows(driver.directory, now), now),
        "queue": cache.get_queue()[:_MOST_LISTED],
        "invalid": _newest(driver.get_invalid_images()),
        **_extremes(driver),
        "jobs": [_brief(job) for job in list(Jobs(cache).list())[:_MOST]],
    }


def _extremes(driver: Driver) -> dict[str, list[dict[str, Any]]]:
    """List the images at either end of an order.

    A driver may have to look at every image for that, so whoever asks often gets what was
    found before.
    """
    began = time.monotonic()
    found = _found.get(driver)
    if found is not None and began < found[0]:
        return found[1]
    lists = {
        "biggest": driver.find_images(sort="size", descending=True, limit=_MOST),
        "hottest": driver.find_images(sort="hits", descending=True, limit=_MOST),
        "coldest": driver.find_images(sort="last_accessed", limit=_MOST),
    }
    ended = time.monotonic()
    _found[driver] = ended + _REST * (ended - began), lists
    return lists


def _brief(job: Job) -> dict[str, Any]:
    """Give a job with the first of its findings."""
    found = job.as_dict()
    result = found["result"]
    if result is not None and "findings" in result:
        found["result"] = {**result, "findings": result["findings"][:_MOST]}
    return found


def rate(samples: Sequence[Sample], newest: Sample, window: float) -> dict[str, float | None]:
    """Give what was counted in each second of the time that is just past.

    :param samples: in order; the nearest to the window's beginning counts.
    :param window: seconds.
    :return: ratios are ``None`` without requests, and rates 0 without samples.
    """
    before = min(
        (one for one in samples if one.time < newest.time),
        key=lambda one: abs(newest.time - window - one.time),
        default=None,
    )
    if before is None:
        before = newest
    change = grown(before, newest)
    seconds = max(newest.time - before.time, 1.0)
    return {
        "requests": change.requests / seconds,
        "bytes": change.bytes / seconds,
        "bytes_cache": change.bytes_cache / seconds,
        "bytes_app": change.bytes_app / seconds,
        "hit_ratio": change.hits / change.requests if change.requests else None,
        "byte_hit_ratio": change.bytes_cache / change.bytes if change.bytes else None,
    }


def _size(cache: ImageCache, used: int) -> dict[str, int | None]:
    capacity = cache.capacity
    try:
        device = os.statvfs(cache.driver.directory)
        free = device.f_bavail * device.f_frsize
    except OSError:
        free = None
    return {
        "used": used,
        "entries": cache.driver.get_cache_size(),
        "max": capacity.max_size,
        "free": free,
        "min_free": capacity.min_free,
    }


def _totals(counted: Mapping[str, int]) -> dict[str, Any]:
    sample = sample_of(0.0, counted, 0, 0)
    return {
        "requests": {
            outcome: counted[f"cachemw_requests_total{{outcome={outcome}}}"] for outcome in OUTCOMES
        },
        "bytes": {"sent": sample.bytes, "cache": sample.bytes_cache, "app": sample.bytes_app},
        "fills": {
            "started": counted["cachemw_fills_started_total"],
            "committed": counted["cachemw_fills_committed_total"],
            "resumed": counted["cachemw_fills_resumed_total"],
            "taken_over": counted["cachemw_fills_taken_over_total"],
            "rolled_back": {
                reason: counted[f"cachemw_fills_rolled_back_total{{reason={reason}}}"]
                for reason in ROLLED_BACK
            },
        },
        "evictions": {
            "images": counted["cachemw_evicted_images_total"],
            "bytes": counted["cachemw_evicted_bytes_total"],
        },
        "verification_failures": counted["cachemw_verification_failures_total"],
    }


def _fills(rows: Sequence[live.Row], now: float) -> list[dict[str, Any]]:
    return [
        {**row, "rate": row["received"] / max(now - row["since"], 0.001)}
        for row in rows[:_MOST_LISTED]
    ]


def _newest(invalid: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(invalid, key=lambda one: -one["last_modified"])[:_MOST_LISTED]
