"""The suite's arithmetic timed beside plain implementations of the same, which are in `tests/bench/`."""
