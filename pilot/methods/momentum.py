"""Momentum on the server, after FedAvgM (Hsu et al. 2019, arXiv 1909.06335), for methods that send several models.

    v = beta v + (x' - x), v = 0 at first;    x += v

with x the value sent before and x' what the method's own aggregation makes of the updates.
"""

from pilot.methods.base import State


def momentum_step(after: State, before: State, momentum: State, beta: float) -> State:
    """Return x + v for every tensor x' of `after`, with x in `before`; write the new v into `momentum`."""
    result = {}
    for name, value in after.items():
        change = value - before[name]
        momentum[name] = beta * momentum[name] + change if name in momentum else change
        result[name] = before[name] + momentum[name]
    return result
