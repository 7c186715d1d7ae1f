"""Optional client-level differential privacy: the Gaussian mechanism on every update before it leaves its client.

With r the values at the start of a phase and t the trained values, over all shared tensors together, a client sends

    r + u min(1, C / ||u||) + N(0, (z C)^2 I),   u = t - r.

Everything that the server does with it, however adaptive, is post-processing. T such messages of one client together
are mu-GDP with mu = sqrt(T) / z (Dong, Roth and Su, JRSS B 2022), which is exactly (epsilon, delta)-DP for

    delta = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)     (Balle and Wang, ICML 2018).

Flower's accountant gives an upper bound on this epsilon, but needs a package that the lock file cannot include
(`flwr[dp]`); tests compare the two.

What is protected: the training data of one client as a whole, in the tensors of its updates, against anyone who sees
its messages, including the server. Two relations (names as in Flower's accountant):

    add-or-remove-one   the client's updates u, or zero instead; its message is still sent
    replace-one         its data, or any other data: u changes by up to 2 C, which is equivalent to half the noise

What is not protected, and must not be claimed to be:

- A client's participation, its task, and `num_examples`, which are sent unchanged.
- `Update.statistics` and `Phase.choices`, to which no noise is added; methods that send any are refused.
- Losses, diagnostics and evaluation scores reported by clients.
- r: the guarantee needs values that the server sent or that follow from the seed. If r was trained by the client
  earlier and never sent, the message reveals the client's data through r; methods with such phases are refused.
- Anything, with `seeded` noise, against anyone who knows or guesses the seed and can subtract the noise. It is for
  measuring the cost of privacy reproducibly. `system` noise is drawn from the operating system, so no two runs are
  equal; a phase that is trained again after a kill sends another message, which is counted separately.
- A single image or example beyond its client, and attacks on the rounding of floating-point noise (Mironov, CCS 2012).
"""

import math
import secrets
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from scipy.special import log_ndtr
from torch import Tensor

from pilot.errors import UserError
from pilot.io.seeding import generator
from pilot.methods.base import Phase, State
from pilot.methods.robust import clip_difference

Noise = Callable[[int], Tensor]
"""Function that returns the given number of independent draws of N(0, 1) in float64."""

Relation = Literal["add-or-remove-one", "replace-one"]
MANTISSA = 53


def privatise(state: State, received: State, clip_norm: float, noise_multiplier: float, noise: Noise) -> State:
    """Return the clipped and noised tensors to send instead of `state` (see the module docstring).

    Clipping and noise are computed in float64 and rounded to the states' dtypes at the very end. An update with a NaN
    or an infinity counts as zero, since sending it unchanged would be a message without noise.

    Args:
        state: t, the tensors that the phase shares.
        received: r, for the same tensors; may hold other tensors, too.
        clip_norm: C, positive.
        noise_multiplier: z, positive.
        noise: `seeded_noise(...)` or `system_noise`.

    Raises:
        ValueError: names, shapes or dtypes differ, or a number is out of range.
    """
    _require_positive("noise_multiplier", noise_multiplier)
    _require_positive("clip_norm", clip_norm)
    finite = all(bool(torch.isfinite(value).all()) for value in state.values())
    sent = state if finite else {name: received.get(name, value) for name, value in state.items()}
    update, _ = clip_difference(sent, received, clip_norm)
    result = {}
    for name in sorted(update):
        drawn = noise(update[name].numel()).reshape(update[name].shape)
        noisy = update[name] + noise_multiplier * clip_norm * drawn
        result[name] = (received[name].detach().double() + noisy).to(state[name].dtype)
    return {name: result[name] for name in state}


def seeded_noise(*purpose: str | int) -> Noise:
    """Return reproducible noise, a function of `purpose`: (seed, "privacy", round, client, phase).

    It gives no privacy (see the module docstring). It is drawn with NumPy, since `torch.Generator` on the CPU uses only
    32 bits of a seed (torch 2.13), few enough to try all of them.
    """
    source = generator(*purpose)
    return lambda count: torch.from_numpy(source.standard_normal(count))


def system_noise(count: int) -> Tensor:
    """Draw (count,) values of N(0, 1) from the operating system's cryptographic source (Box and Muller 1958)."""
    num_pairs = (count + 1) // 2
    bits = np.frombuffer(secrets.token_bytes(16 * num_pairs), dtype="<u8") >> np.uint64(64 - MANTISSA)
    uniform = bits.astype(np.float64)
    radius = np.sqrt(-2 * np.log((uniform[:num_pairs] + 1) * 2.0**-MANTISSA))  # uniform in (0, 1]
    angle = 2 * np.pi * uniform[num_pairs:] * 2.0**-MANTISSA
    return torch.from_numpy(np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count])


def epsilon(
    noise_multiplier: float, num_releases: int, delta: float, relation: Relation = "add-or-remove-one"
) -> float:
    """Compute the least epsilon for which `num_releases` messages of a client together are (epsilon, delta)-DP.

    Exact up to floating-point error: the smallest number found at which delta, by the module's formula, is at most
    `delta`.

    Args:
        noise_multiplier: z.
        num_releases: T, all updates that the client sent, one per phase and round, including those that were excluded.
        delta: in (0, 1); well below 1 / number of clients.
        relation: which data sets count as neighbouring (see the module docstring).

    Raises:
        ValueError: a number is out of range, or the relation is unknown.
    """
    moves = {"add-or-remove-one": 1.0, "replace-one": 2.0}
    _require_positive("noise_multiplier", noise_multiplier)
    if relation not in moves:
        raise ValueError(f"relation: expected one of {', '.join(moves)}, got {relation!r}")
    if num_releases < 0:
        raise ValueError(f"num_releases: expected at least 0, got {num_releases}")
    if not 0 < delta < 1:
        raise ValueError(f"delta: expected a number above 0 and below 1, got {delta}")
    mu = moves[relation] * math.sqrt(num_releases) / noise_multiplier
    if _delta(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while _delta(high, mu) > delta:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _delta(middle, mu) > delta else (low, middle)
    return high


def refuse_unprotected(phases: Iterable[Phase], where: str = "privacy") -> None:
    """Refuse phases that send statistics or choices, to which no noise is added, or that start from private values.

    `where` names the field in messages.

    Raises:
        UserError: a phase does; the message names it and what it sends or starts from.
    """
    for phase in phases:
        if phase.shared and phase.starts_from == "own training":
            raise UserError(
                f"{where}: phase {phase.name} starts from what the client has trained and never sent, so that its "
                "message reveals more than the bounded update, and privacy is not guaranteed. Choose a method whose "
                "clients start from what the server sends, or no privacy."
            )
        for kind, sent in (("statistics", phase.statistics), ("choices", phase.choices)):
            if sent:
                raise UserError(
                    f"{where}: phase {phase.name} sends {kind} ({', '.join(sorted(sent))}), to which no noise is "
                    f"added, so privacy is not guaranteed. Choose a method without {kind}, or no privacy."
                )


def _delta(epsilon_: float, mu: float) -> float:
    """Compute delta of mu-GDP at an epsilon, in logarithms to avoid over- and underflow of e^epsilon and the tails."""
    if mu == 0:
        return 0.0
    first = float(log_ndtr(-epsilon_ / mu + mu / 2))
    second = epsilon_ + float(log_ndtr(-epsilon_ / mu - mu / 2))
    return -math.exp(first) * math.expm1(min(0.0, second - first))


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive finite number, got {value}")
