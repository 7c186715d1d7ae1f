"""Metrics, scoring and lm-eval tasks."""
