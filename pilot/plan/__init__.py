"""Estimates of a run before it starts: memory, disk, bytes exchanged, steps and hours."""
