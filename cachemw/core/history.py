"""What the cache did in the last day: one sample each ten seconds, in a file that goes round.

``docs/formats/cache-directory.rst`` is the authority for its bytes. One
process writes it, the one that attends to the directory (``core.upkeep``).

Imports: concurrency, metrics.counters, metrics.declared.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import concurrency
from ..metrics.counters import FOLDER
from ..metrics.declared import FROM_CACHE, OUTCOMES

log = concurrency.get_logger(__name__)

#: The file, in the folder of the statistics.
NAME = "history"

#: Seconds between two samples.
STEP = 10

#: Samples that are kept: those of a day.
SAMPLES = 24 * 3600 // STEP

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_SAMPLE = struct.Struct("<d11q")
_CRC = struct.Struct("<I")
_SIZE = _SAMPLE.size + _CRC.size


class Sample(NamedTuple):
    """The numbers at one time: all of them since the directory was made, but for the last two.

    :param time: seconds since the epoch.
    :param requests: requests for images.
    :param hits: of these, those answered from the cache.
    :param bytes: bytes sent.
    :param bytes_cache: of these, those of hits.
    :param bytes_app: bytes that the app sent.
    :param fills: fills that became entries.
    :param failures: fills that did not.
    :param evictions: images evicted.
    :param damaged: images found damaged.
    :param used: bytes in use then.
    :param images: entries then.
    """

    time: float
    requests: int
    hits: int
    bytes: int
    bytes_cache: int
    bytes_app: int
    fills: int
    failures: int
    evictions: int
    damaged: int
    used: int
    images: int


#: The numbers that only grow.
GROWING = (
    "requests",
    "hits",
    "bytes",
    "bytes_cache",
    "bytes_app",
    "fills",
    "failures",
    "evictions",
    "damaged",
)


def sample_of(now: float, totals: Mapping[str, int], used: int, images: int) -> Sample:
    """Make a sample of what was counted by now.

    :param totals: as :func:`cachemw.metrics.totals.totals` gives them.
    """

    def added(name: str, values: Sequence[str] | None = None) -> int:
        if values is None:
            return sum(v for k, v in totals.items() if k == name or k.startswith(name + "{"))
        return sum(totals.get(f"{name}{{outcome={value}}}", 0) for value in values)

    return Sample(
        time=now,
        requests=added("cachemw_requests_total", OUTCOMES),
        hits=added("cachemw_requests_total", FROM_CACHE),
        bytes=added("cachemw_sent_bytes_total", OUTCOMES),
        bytes_cache=added("cachemw_sent_bytes_total", FROM_CACHE),
        bytes_app=added("cachemw_app_bytes_total"),
        fills=added("cachemw_fills_committed_total"),
        failures=added("cachemw_fills_rolled_back_total"),
        evictions=added("cachemw_evicted_images_total"),
        damaged=added("cachemw_verification_failures_total"),
        used=used,
        images=images,
    )


def put(directory: str, sample: Sample) -> None:
    """Write a sample in its place, where one of yesterday was.

    :raises OSError: it cannot be written.
    """
    folder = os.path.join(directory, FOLDER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    data = _SAMPLE.pack(*sample)
    fd = os.open(os.path.join(folder, NAME), os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600)
    try:
        place = int(sample.time / STEP) % SAMPLES
        os.pwrite(fd, data + _CRC.pack(zlib.crc32(data)), place * _SIZE)
    finally:
        os.close(fd)


def read(directory: str, since: float) -> list[Sample]:
    """Read the samples that are not older, the oldest first; damaged ones are left out.

    :param since: seconds since the epoch.
    :raises OSError: they cannot be read.
    """
    try:
        fd = os.open(os.path.join(directory, FOLDER, NAME), os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        data = file.read()
    found = []
    for start in range(0, len(data) - _SIZE + 1, _SIZE):
        sample = data[start : start + _SAMPLE.size]
        if _CRC.unpack_from(data, start + _SAMPLE.size)[0] == zlib.crc32(sample):
            found.append(Sample(*_SAMPLE.unpack(sample)))
    return sorted(sample for sample in found if sample.time >= max(since, 1.0))


def grown(before: Sample, after: Sample) -> Sample:
    """Give what was counted between two samples; where the later has less, since it began anew,
    all that it has."""
    changes = {
        name: getattr(after, name) - getattr(before, name)
        if getattr(after, name) >= getattr(before, name)
        else getattr(after, name)
        for name in GROWING
    }
    return after._replace(**changes)


def steps(samples: Sequence[Sample], step: int) -> list[Sample]:
    """Give what was counted in each step of time, the oldest first.

    Where there are no samples for longer than a step, there is no step.

    :param samples: in order.
    :param step: seconds, a multiple of :data:`STEP`.
    """
    last_of_step: dict[int, Sample] = {}
    for sample in samples:
        last_of_step[int(sample.time // step)] = sample
    numbers = sorted(last_of_step)
    return [
        grown(last_of_step[number - 1], last_of_step[number])
        for number in numbers
        if number - 1 in last_of_step
    ]
