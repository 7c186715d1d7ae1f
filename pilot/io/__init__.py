"""Atomic files, digests, checkpoints, locks and processes. A leaf of the import graph, except for `pilot.errors`."""
