"""Conversion of rows to instruction records."""
