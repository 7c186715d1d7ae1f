"""Timings of the suite's arithmetic beside plain reference implementations, which are in `tests/bench/`."""
