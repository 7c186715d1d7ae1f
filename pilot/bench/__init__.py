"""Benchmarks of the suite itself: arithmetic, scale, evaluation, pipeline."""
