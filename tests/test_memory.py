"""Freed memory is kept by the process: asked for again, its pages are there."""

import resource

import pytest
import torch

from pilot.io.memory import keep_freed_memory


def test_freed_memory_costs_no_new_pages() -> None:
    """Twenty times 16 MiB are 81,920 pages of 4 KiB; kept, they are taken at most once."""
    if not keep_freed_memory():
        pytest.skip("the C library has no such option")
    for _ in range(3):
        torch.ones(4 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 * 2**20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 8_192
