"""Fuzzes the whole filter for as long as one likes, guided by coverage.

::

    pip install atheris hypothesis
    python -m tests.stress.fuzz_atheris [--by-id] -max_total_time=3600 [CORPUS]

from the root of the checkout. The bytes that the fuzzer makes up choose what
``tests/fuzz/strategies.py`` draws, and ``tests/fuzz/oracle.py`` judges. On a
wrong answer it prints the run and ends; all after ``--by-id`` is libFuzzer's.
"""

from __future__ import annotations

import logging
import sys
import tempfile

import atheris
from hypothesis import HealthCheck, given, settings

with atheris.instrument_imports(include=["cachemw"]):
    from tests.fuzz.oracle import World
    from tests.fuzz.strategies import RUNS


def main() -> None:
    # A cut download is logged each time, and most of these are cut on purpose.
    logging.disable(logging.CRITICAL)
    by_id = "--by-id" in sys.argv
    arguments = [argument for argument in sys.argv if argument != "--by-id"]
    # Shorter inputs are used up before a run is drawn.
    arguments[1:1] = ["-max_len=4096", "-len_control=0"]
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory, by_id)

        @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(RUNS)
        def check(run):
            world.carry_out(run)

        atheris.Setup(arguments, check.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
