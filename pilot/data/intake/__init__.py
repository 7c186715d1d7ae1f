"""Rows of a table to instruction records."""
