"""Baseline methods, one per file."""
