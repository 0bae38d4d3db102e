"""A process is killed at a random moment of its work; the next one finds a sound cache.

Promise 1 of the design, and the promise that every driver keeps: a reader
meets a complete image or none.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from .checks import assert_sound
from .workload import EVICT, FILL, IMAGES, OPTIONS, Whereabouts

#: Longest wait, seconds, between the beginning of what is to be interrupted and the kill.
REACH = {FILL: 0.004, EVICT: 0.001}

PHASES = {FILL: "fills", EVICT: "evictions"}


@pytest.fixture
def where(tmp_path):
    where = Whereabouts(tmp_path / "whereabouts")
    yield where
    where.close()


def kill_once(zygote, directory, driver, where, seed):
    """Let a child work and kill it in a fill or an eviction. :return: what it was doing."""
    choice = random.Random(seed)
    wanted = choice.choice((FILL, EVICT))
    number = choice.randrange(1, 12)
    delay = choice.uniform(0, REACH[wanted])
    where.clear()
    child = zygote.start(
        "tests.crash.workload:run",
        str(directory),
        driver,
        str(directory.parent / "whereabouts"),
        seed,
    )
    deadline = time.monotonic() + 20
    # A busy wait: whoever sleeps wakes up after the moment is over.
    while where[wanted] < number and time.monotonic() < deadline:
        pass
    moment = time.perf_counter() + delay
    while time.perf_counter() < moment:
        pass
    child.kill()
    assert child.wait() == -9, zygote.log.read_text()[-5000:]
    assert where[wanted] >= number
    return where[0]


def kill_many(zygote, directory, driver, where, kills, inside):
    """Kill until there were so many kills, and so many ``inside`` fills and evictions each."""
    landed = Counter()
    hits = responses = 0
    for attempt in range(50 * kills):
        if attempt >= kills and min(landed[FILL], landed[EVICT]) >= inside:
            return landed, hits, responses
        seed = f"{driver} {attempt}"
        try:
            phase = kill_once(zygote, directory, driver, where, seed)
            landed[phase] += 1
            responses += where[3]
            # What survived must be seen by requests in an order of their own.
            numbers = random.Random(seed).sample(IMAGES, len(IMAGES))
            clean_first = bool(attempt % 2)
            hits += len(assert_sound(directory, driver, numbers, clean_first, **OPTIONS))
        except BaseException as exc:
            exc.add_note(f"seed {seed!r}, directory {directory}")
            raise
    pytest.fail(f"the kills did not land where they should: {landed}")


def test_cache_is_sound_after_a_process_was_killed(zygote, driver_name, tmp_path, where):
    landed, hits, responses = kill_many(zygote, tmp_path / "cache", driver_name, where, 20, 5)

    # Kills in evictions leave the others; a cache that were always lost would pass all else.
    assert hits > 20
    assert responses > 20
    assert landed[FILL] >= 5


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_cache_is_sound_after_400_kills(zygote, driver_name, tmp_path, where, capsys):
    landed, hits, responses = kill_many(zygote, tmp_path / "cache", driver_name, where, 400, 200)

    with capsys.disabled():
        print(
            f"\n{driver_name}: killed in {landed[FILL]} fills, {landed[EVICT]} evictions and"
            f" {landed[0]} times elsewhere; {responses} right responses before,"
            f" {hits} hits after"
        )
