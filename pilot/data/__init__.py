"""Instruction records, the sources that make them, and their validation."""
