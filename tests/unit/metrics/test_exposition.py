"""The text that Prometheus reads."""

import json
import re
from pathlib import Path

from cachemw.metrics.counters import Counters
from cachemw.metrics.declared import FIRST_BYTE, METRICS, REQUESTS
from cachemw.metrics.exposition import Reading, exposition

_SAMPLE = re.compile(
    r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\.)*"(,[a-z]+="(?:[^"\\\n]|\\.)*")*\})? [0-9.e+-]+'
)


def test_every_line_is_a_comment_or_a_sample():
    lines = exposition({}).splitlines()

    for line in lines:
        assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+", line) or _SAMPLE.fullmatch(line), line
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(METRICS)


def test_counts_and_times_stand_where_they_belong():
    counters = Counters(None)
    counters.add(REQUESTS, 3, "hit")
    for seconds in (0.0005, 0.002, 100.0):
        counters.observe(FIRST_BYTE, seconds, "miss")

    lines = exposition(counters.own()).splitlines()

    assert 'cachemw_requests_total{outcome="hit"} 3' in lines
    name = "cachemw_first_byte_seconds"
    for le, count in (("0.001", 1), ("0.0025", 2), ("10", 2), ("+Inf", 3)):
        assert f'{name}_bucket{{outcome="miss",le="{le}"}} {count}' in lines
    assert f'{name}_count{{outcome="miss"}} 3' in lines
    assert f'{name}_sum{{outcome="miss"}} 100.0025' in lines


def test_what_is_read_elsewhere_is_escaped():
    reading = Reading("cachemw_info", "Which\nit is.", [({"dir": 'a"b\\c\nd'}, 1)])

    text = exposition({}, [reading])

    assert text.endswith(
        "# HELP cachemw_info Which\\nit is.\n# TYPE cachemw_info gauge\n"
        'cachemw_info{dir="a\\"b\\\\c\\nd"} 1\n'
    )


def test_grafana_dashboard_asks_for_what_there_is():
    path = Path(__file__).parents[3] / "etc" / "grafana-dashboard.json"
    board = json.loads(path.read_text())
    read_elsewhere = {"size_bytes", "max_size_bytes", "free_bytes", "min_free_bytes", "images"}
    known = {metric.name for metric in METRICS} | {f"cachemw_{name}" for name in read_elsewhere}
    known |= {"cachemw_queued_images"}

    asked = re.findall(r"cachemw_\w+", json.dumps(board["panels"]))

    assert len(board["panels"]) > 8
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= known
    assert {metric.name for metric in METRICS} <= {
        *(re.sub(r"_(bucket|sum|count)$", "", name) for name in asked),
        "cachemw_evicted_bytes_total",
    }
