"""Comparison of methods side by side, of two results folders, and with the reference tables."""
