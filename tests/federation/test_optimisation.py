"""The optimiser of a phase beside PyTorch's own over separate parameters, and its state."""

import torch
from torch import nn

from pilot.federation.optimisation import Optimiser, rate_factor

RATES = {"text_adapter": 0.01, "connector": 0.1}
TEXT = ("text_adapter.a", "text_adapter.b")
SHAPES = {"connector.weight": (3, 2), "text_adapter.a": (4,), "connector.bias": (3,), "text_adapter.b": (2, 2)}
STEPS = 6


def make_parameters() -> dict[str, nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=source)) for name, shape in SHAPES.items()}


def make_optimiser(parameters: dict[str, nn.Parameter]) -> Optimiser:
    return Optimiser(parameters, TEXT, RATES, STEPS, 0.2, 0.05, 1.0)


def loss_of(parameters: dict[str, nn.Parameter], step: int) -> torch.Tensor:
    terms = [(value - step * number).square().sum() for number, value in enumerate(parameters.values())]
    return torch.stack(terms).sum()


def test_steps_are_those_of_adamw_over_separate_parameters() -> None:
    mine, plain = make_parameters(), make_parameters()
    optimiser = make_optimiser(mine)
    peaks = {name: RATES["text_adapter" if name in TEXT else "connector"] for name in plain}
    groups = [{"params": [value], "lr": 0.0, "peak": peaks[name]} for name, value in plain.items()]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.05)
    for step in range(STEPS):
        optimiser.begin(step)
        loss_of(mine, step).backward()  # type: ignore[no-untyped-call]
        optimiser.finish()
        for group in adam.param_groups:
            group["lr"] = group["peak"] * rate_factor(step, STEPS, 0.2)
        adam.zero_grad()
        loss_of(plain, step).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(plain.values()), 1.0)
        adam.step()
        for name, parameter in mine.items():
            assert torch.allclose(parameter, plain[name], rtol=1e-5, atol=1e-7), (step, name)
    assert not torch.allclose(mine["connector.weight"], make_parameters()["connector.weight"], atol=1e-2)


def test_a_restored_optimiser_goes_on_with_the_same_bits() -> None:
    whole, cut = make_parameters(), make_parameters()
    first = make_optimiser(whole)
    for step in range(STEPS):
        _step(first, whole, step)
    before = make_optimiser(cut)
    for step in range(3):
        _step(before, cut, step)
    kept = {name: value.detach().clone() for name, value in cut.items()}
    state = {key: value.clone() for key, value in before.state().items()}
    assert state["exp_avg.connector.weight"].shape == (3, 2) and float(state["step.text_adapter.a"]) == 3
    resumed = {name: nn.Parameter(value) for name, value in kept.items()}
    after = make_optimiser(resumed)
    after.restore(state)
    for step in range(3, STEPS):
        _step(after, resumed, step)
    assert all(torch.equal(resumed[name], whole[name]) for name in SHAPES)


def _step(optimiser: Optimiser, parameters: dict[str, nn.Parameter], step: int) -> None:
    optimiser.begin(step)
    loss_of(parameters, step).backward()  # type: ignore[no-untyped-call]
    optimiser.finish()
