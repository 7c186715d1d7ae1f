"""Pre-training of tiny-llava in the usual order: vision, text, connector, then connector and LLM together.

Every phase writes its weights to the work folder when it ends and is skipped if they are already there, so an
interrupted pre-training continues with the unfinished phase.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pilot.io.checkpoint import load_state, save_state
from pilot.pretraining.recipe import PhaseRecipe

Report = Callable[[int, int, dict[str, float]], None]
"""Called with (step, number of steps, measures) during a phase."""


def learning_rate_at(step: int, phase: PhaseRecipe) -> float:
    """Return the learning rate: linear warm-up over 3 % of the steps, then a cosine to a tenth of the peak.

    Steps count from 0.
    """
    warmup = max(1, round(0.03 * phase.steps))
    if step < warmup:
        return phase.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, phase.steps - warmup)
    return phase.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def optimise(
    phase: PhaseRecipe,
    parameters: list[nn.Parameter],
    batches: Iterator[dict[str, Tensor]],
    loss_of: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    report: Report,
) -> None:
    """Train a phase with AdamW, gradients clipped at norm 1, and a report every 50 steps."""
    optimiser = torch.optim.AdamW(parameters, lr=phase.learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    for step in range(phase.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, phase)
        measures = loss_of(next(batches))
        optimiser.zero_grad(set_to_none=True)
        measures["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 50 == 0 or step + 1 == phase.steps:
            report(step + 1, phase.steps, {name: round(float(value.detach()), 4) for name, value in measures.items()})


def run_phase(path: Path, model: nn.Module, train: Callable[[], None]) -> None:
    """Train one phase and save its weights to `path`, or load them if it ended earlier with the same recipe."""
    if path.exists():
        model.load_state_dict(load_state(path), strict=True)
        return
    train()
    save_state(path, dict(model.state_dict()))


def index_batches(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield index batches of endless shuffled epochs; drop the last incomplete batch of an epoch."""
    source = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(size, generator=source)
        for start in range(0, size - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
