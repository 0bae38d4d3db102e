"""The text that Prometheus reads.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).

Imports: metrics.declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .declared import METRICS, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Reading(NamedTuple):
    """A metric that is read where it is, and counted by nobody.

    :param samples: labels and value of each series.
    """

    name: str
    doc: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def exposition(totals: Mapping[str, int], readings: Sequence[Reading] = ()) -> str:
    """Give everything as text.

    :param totals: what was counted, by name.
    """
    lines: list[str] = []
    for metric in METRICS:
        lines += _head(metric.name, metric.kind, metric.doc)
        for value in metric.values:
            labels = {metric.label: value} if metric.label else {}
            lines += _series(metric, labels, totals)
    for reading in readings:
        lines += _head(reading.name, "gauge", reading.doc)
        lines += [_line(reading.name, labels, value) for labels, value in reading.samples]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, doc: str) -> Iterator[str]:
    yield f"# HELP {name} {_escaped(doc, quotes=False)}"
    yield f"# TYPE {name} {kind}"


def _series(metric: Metric, labels: Mapping[str, str], totals: Mapping[str, int]) -> Iterator[str]:
    series = metric.name + "".join(f"{{{name}={value}}}" for name, value in labels.items())
    if metric.kind != "histogram":
        yield _line(metric.name, labels, totals.get(series, 0))
        return
    count = 0
    for bound in (*(f"{bound:g}" for bound in metric.buckets), "inf"):
        count += totals.get(f"{series} le {bound}", 0)
        le = "+Inf" if bound == "inf" else bound
        yield _line(f"{metric.name}_bucket", {**labels, "le": le}, count)
    yield _line(f"{metric.name}_sum", labels, totals.get(f"{series} sum", 0) / 1e9)
    yield _line(f"{metric.name}_count", labels, count)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
