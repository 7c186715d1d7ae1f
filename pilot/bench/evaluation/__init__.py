"""The suite's answers and scores compared with those of a stock lm-eval model."""

NUM_SHOWN = 5
"""Differences of answers, and of scores, that a report lists."""
