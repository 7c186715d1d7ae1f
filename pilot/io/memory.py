"""Memory that is given back to the system page by page has to be taken again page by page."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for its parameters, from glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20
KEPT = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for what it asks for next; whether the C library does so.

    By default glibc returns tensors above 128 KiB to the system at once or soon after, and every operation of a small
    model pays for fresh pages (measured in docs/log.md). Tensors above 32 MiB, glibc's limit, still go back, and of
    smaller ones what exceeds 512 MiB at the end of the heap. Results do not change.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(set_option(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and set_option(TRIM_THRESHOLD, KEPT))
