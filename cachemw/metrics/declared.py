"""The table of what is counted.

Names and units are by Prometheus's conventions: base units, ``_total`` for
what only grows. Each value of a label is declared too, so that each series
has a place of its own in a file that many processes have open.

Imports: nothing of ours.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence

#: Seconds: of a histogram for what a client waits for.
_CLIENT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Seconds: the same for one operation on the disk.
_DISK_BUCKETS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)

#: How a request was answered; see ``docs/reference/metrics.rst``.
OUTCOMES = (
    "hit",
    "stale",
    "revalidated",
    "collapsed",
    "miss",
    "pass",
    "bypass",
    "error",
)

#: Of these, what needed no bytes of the app's, and a request to it at most to ask.
FROM_CACHE = ("hit", "stale", "revalidated")

#: Why a fill did not become an entry.
ROLLED_BACK = ("checksum", "length", "app", "client", "cache")

#: What drivers are timed at.
OPERATIONS = ("open", "start", "commit", "evict", "delete")


@dataclasses.dataclass(frozen=True, eq=False)
class Metric:
    """One thing that is counted, in one series for each value of its label.

    :param kind: ``counter``, ``gauge`` (of living processes) or ``histogram``.
    :param label: the label's name; empty: there is none, and one series without.
    :param values: what the label may be.
    :param buckets: of a histogram: upper bounds, in seconds, ascending.
    :param first: place of its first series.
    """

    name: str
    kind: str
    doc: str
    label: str
    values: tuple[str, ...]
    buckets: tuple[float, ...]
    first: int

    def place(self, value: str = "") -> int:
        """Give the place of a series; of a histogram's, that of its first bucket.

        :raises ValueError: the label has no such value.
        """
        return self.first + self.values.index(value) * self.width

    @property
    def width(self) -> int:
        """Places that one series takes: a histogram's are its buckets, the one without bound,
        and the sum in nanoseconds."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    def names(self) -> Iterator[str]:
        """Give the name of each place, in order; they stand in the files."""
        for value in self.values:
            series = f"{self.name}{{{self.label}={value}}}" if self.label else self.name
            if self.kind != "histogram":
                yield series
                continue
            yield from (f"{series} le {bound:g}" for bound in self.buckets)
            yield f"{series} le inf"
            yield f"{series} sum"


class _Table:
    """Gives each metric its places."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self._next = 0

    def _add(
        self,
        name: str,
        kind: str,
        doc: str,
        label: str,
        values: Sequence[str],
        buckets: Sequence[float],
    ) -> Metric:
        metric = Metric(name, kind, doc, label, tuple(values), tuple(buckets), self._next)
        self._next += metric.width * len(metric.values)
        self.metrics.append(metric)
        return metric

    def counter(
        self, name: str, doc: str, label: str = "", values: Sequence[str] = ("",)
    ) -> Metric:
        return self._add(name, "counter", doc, label, values, ())

    def gauge(self, name: str, doc: str) -> Metric:
        return self._add(name, "gauge", doc, "", ("",), ())

    def histogram(
        self, name: str, doc: str, label: str, values: Sequence[str], buckets: Sequence[float]
    ) -> Metric:
        return self._add(name, "histogram", doc, label, values, buckets)


_table = _Table()

REQUESTS = _table.counter(
    "cachemw_requests_total", "Requests for images, by how they were answered.", "outcome", OUTCOMES
)
SENT_BYTES = _table.counter(
    "cachemw_sent_bytes_total", "Bytes of bodies sent to clients.", "outcome", OUTCOMES
)
APP_BYTES = _table.counter("cachemw_app_bytes_total", "Bytes of bodies that the app sent.")
FIRST_BYTE = _table.histogram(
    "cachemw_first_byte_seconds",
    "Time from a request to the first byte of its answer's body.",
    "outcome",
    OUTCOMES,
    _CLIENT_BUCKETS,
)
FILLS_STARTED = _table.counter("cachemw_fills_started_total", "Fills begun.")
FILLS_COMMITTED = _table.counter("cachemw_fills_committed_total", "Fills that became entries.")
FILLS_ROLLED_BACK = _table.counter(
    "cachemw_fills_rolled_back_total", "Fills that did not, by reason.", "reason", ROLLED_BACK
)
FILLS_RESUMED = _table.counter(
    "cachemw_fills_resumed_total", "Fills that went on with bytes that were kept."
)
FILLS_TAKEN_OVER = _table.counter(
    "cachemw_fills_taken_over_total", "Of these, those that somebody waited for."
)
FILLS = _table.gauge("cachemw_fills", "Fills under way.")
FOLLOWERS = _table.gauge(
    "cachemw_followers", "Requests that read along with a fill which another began."
)
EVICTED_IMAGES = _table.counter("cachemw_evicted_images_total", "Images evicted.")
EVICTED_BYTES = _table.counter(
    "cachemw_evicted_bytes_total", "Bytes freed by evicting images and what fills left."
)
VERIFICATION_FAILURES = _table.counter(
    "cachemw_verification_failures_total", "Stored images that were found damaged."
)
DRIVER_SECONDS = _table.histogram(
    "cachemw_driver_seconds",
    "Time that operations of the storage driver took.",
    "operation",
    OPERATIONS,
    _DISK_BUCKETS,
)

#: The whole table.
METRICS: tuple[Metric, ...] = tuple(_table.metrics)

#: The name of each place.
NAMES: tuple[str, ...] = tuple(name for metric in METRICS for name in metric.names())

#: The places that are true of living processes only.
GAUGES = frozenset(metric.first for metric in METRICS if metric.kind == "gauge")


def bucket(buckets: Sequence[float], seconds: float) -> int:
    """Give the number of the bucket that a time belongs to, by its upper bound."""
    return bisect.bisect_left(buckets, seconds)
