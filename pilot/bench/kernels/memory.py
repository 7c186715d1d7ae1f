"""The most memory that a piece of work held in tensors of its own at once."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

EVENT = "[memory]"


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes that PyTorch's allocator for the host handed out and had not yet got back, at most.

    What was there before does not count; what `work` returns and what its graph holds does.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        result = work()
    del result
    assert run.profiler is not None and run.profiler.kineto_results is not None, "it has run"
    held = peak = 0
    events = [event for event in run.profiler.kineto_results.events() if event.name() == EVENT]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        peak = max(peak, held)
    return peak
