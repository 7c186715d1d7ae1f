"""Benchmarks of the suite: arithmetic, scale, evaluation, pipeline."""
