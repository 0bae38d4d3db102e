"""The parts of the storm: see ``tests/stress/test_storm.py``."""
