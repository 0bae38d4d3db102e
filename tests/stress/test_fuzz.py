"""A hundred thousand generated runs through the whole filter; about twenty minutes."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.oracle import World
from tests.fuzz.strategies import RUNS

RUNS_TOGETHER = 100_000

WORLDS = [(False, "sqlite"), (True, "sqlite"), (False, "xattr"), (True, "xattr")]


@pytest.mark.stress
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("by_id", "driver"), WORLDS)
def test_no_generated_request_gets_a_wrong_answer(by_id, driver, tmp_path, request):
    """RFC 9110 and 9111, as ``tests/fuzz/oracle.py`` reads them; other runs each time."""
    if driver == "xattr":
        request.getfixturevalue("attributes")
    world = World(str(tmp_path / "cache"), by_id, driver)

    @settings(
        max_examples=RUNS_TOGETHER // len(WORLDS),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(RUNS)
    def check(run):
        world.carry_out(run)

    with contextlib.closing(world):
        check()
