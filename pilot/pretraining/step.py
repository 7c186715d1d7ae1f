"""Pre-trains tiny-llava the way multimodal LLMs are made: vision, text, connector, then connector and LLM together.

Every phase writes its weights to the work folder when it ends and is skipped when they are there already, so an
interrupted pre-training continues with the phase it was in.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pilot.io.checkpoint import load_state, save_state
from pilot.pretraining.recipe import PhaseRecipe

Report = Callable[[int, int, dict[str, float]], None]
"""Called with (step, number of steps, measures) as a phase goes on."""


def learning_rate_at(step: int, phase: PhaseRecipe) -> float:
    """Linear warm-up over 3 % of the steps, then a cosine down to a tenth of the peak; steps count from 0."""
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
    """The one training loop of pre-training: AdamW, clipping at norm 1, a report every 50 steps."""
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
    """Train one phase and keep its weights in `path`, or load them if it ended earlier with the same recipe."""
    if path.exists():
        model.load_state_dict(load_state(path), strict=True)
        return
    train()
    save_state(path, dict(model.state_dict()))


def index_batches(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Index batches of endless shuffled epochs; the last incomplete batch of an epoch is dropped."""
    source = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(size, generator=source)
        for start in range(0, size - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
