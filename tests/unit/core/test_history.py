"""Samples of a day, and what was counted between them."""

import pytest

from cachemw.core import history
from cachemw.core.history import SAMPLES, STEP, Sample, grown, put, read, sample_of, steps

NOW = 1_700_000_000.0


def sample(time, requests=0, **others):
    numbers = dict.fromkeys(Sample._fields, 0) | {"time": time, "requests": requests} | others
    return Sample(**numbers)


def test_nothing_was_sampled_yet(tmp_path):
    assert read(str(tmp_path), 0.0) == []


def test_samples_come_in_order_and_survive(tmp_path):
    for number in (3, 1, 2):
        put(str(tmp_path), sample(NOW + number * STEP, number))

    assert [one.requests for one in read(str(tmp_path), 0.0)] == [1, 2, 3]
    assert [one.requests for one in read(str(tmp_path), NOW + 2 * STEP)] == [2, 3]


def test_those_of_yesterday_make_room(tmp_path):
    for number in range(SAMPLES + 5):
        put(str(tmp_path), sample(NOW + number * STEP, number))

    found = read(str(tmp_path), 0.0)

    assert [one.requests for one in found] == list(range(5, SAMPLES + 5))
    assert (tmp_path / ".stats" / history.NAME).stat().st_size < 2**20


def test_damaged_samples_are_left_out(tmp_path):
    for number in range(3):
        put(str(tmp_path), sample(NOW + number * STEP, number))
    path = tmp_path / ".stats" / history.NAME
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data[:-1] + data[-1:])

    assert [one.requests for one in read(str(tmp_path), 0.0)] == [0, 1]
    path.write_bytes(data[:-50])
    assert [one.requests for one in read(str(tmp_path), 0.0)] == [0, 1]


def test_sample_adds_up_what_was_counted():
    totals = {
        "cachemw_requests_total{outcome=hit}": 5,
        "cachemw_requests_total{outcome=miss}": 2,
        "cachemw_requests_total{outcome=revalidated}": 1,
        "cachemw_sent_bytes_total{outcome=hit}": 500,
        "cachemw_sent_bytes_total{outcome=miss}": 200,
        "cachemw_app_bytes_total": 150,
        "cachemw_fills_committed_total": 2,
        "cachemw_fills_rolled_back_total{reason=app}": 1,
        "cachemw_fills_rolled_back_total{reason=cache}": 3,
    }

    made = sample_of(NOW, totals, 1000, 7)

    assert (made.requests, made.hits, made.bytes, made.bytes_cache) == (8, 6, 700, 500)
    assert (made.bytes_app, made.fills, made.failures) == (150, 2, 4)
    assert (made.used, made.images) == (1000, 7)


def test_counts_that_began_anew_are_not_negative():
    change = grown(sample(NOW, 10, used=7), sample(NOW + 1, 3, used=5))

    assert (change.requests, change.used) == (3, 5)


@pytest.mark.parametrize("step", [10, 60])
def test_steps_have_what_was_counted_in_each(step):
    samples = [sample(NOW + number * STEP, number**2) for number in range(60)]

    found = steps(samples, step)

    assert sum(one.requests for one in found) <= 59**2
    numbers = [one.time // step for one in found]
    assert numbers == [numbers[0] + index for index in range(len(found))]


def test_step_after_a_time_without_samples_is_left_out():
    samples = [sample(NOW, 1), sample(NOW + 60, 2), sample(NOW + 600, 9), sample(NOW + 660, 10)]

    assert [one.requests for one in steps(samples, 60)] == [1, 1]
