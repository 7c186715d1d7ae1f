"""Atomic files, digests and checkpoints. A leaf: imports nothing else of this project."""
