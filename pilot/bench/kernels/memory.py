"""Peak memory of the tensors that a function allocates."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

EVENT = "[memory]"


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the largest number of bytes that `work` held at once in memory from PyTorch's host allocator.

    Memory allocated before the call does not count; the result of `work` and the memory of its graph do.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = work()
    del result
    assert run.profiler is not None and run.profiler.kineto_results is not None, "it has run"
    held = peak = 0
    events = [event for event in run.profiler.kineto_results.events() if event.name() == EVENT]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative for memory that is freed
        peak = max(peak, held)
    return peak
