"""A few hundred generated runs; ``tests/stress/test_fuzz.py`` does many more."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.oracle import World
from tests.fuzz.strategies import RUNS

RUNS_EACH = 300


@pytest.mark.parametrize("by_id", [False, True], ids=["by-target", "by-id"])
def test_no_generated_request_gets_a_wrong_answer(by_id, tmp_path_factory):
    """RFC 9110 and 9111, as ``tests/fuzz/oracle.py`` reads them."""
    world = World(str(tmp_path_factory.mktemp("cache")), by_id)

    @settings(
        max_examples=RUNS_EACH,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(RUNS)
    def check(run):
        world.carry_out(run)

    with contextlib.closing(world):
        check()
