"""A real Glance for tests: installed once, started on loopback, ended by whoever started it."""
