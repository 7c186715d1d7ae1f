"""Comparison of methods side by side, of two result folders, and of fresh runs with the reference tables."""
