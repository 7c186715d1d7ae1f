"""The suite's own arithmetic timed beside plain implementations of the same, which lie in `tests/bench/`."""
