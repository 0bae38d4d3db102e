"""Servers that are not ours, started on loopback for the tests that need the real thing."""
