"""Offsets beside weights of both types: what they add to a layer's output, and that nothing of it is rounded away."""

import pytest
import torch
from torch import Tensor, nn

from pilot.backbone.lora import LoraLinear
from pilot.backbone.offsets import Offsets

INPUTS, OUTPUTS, ROWS = 256, 64, 512


class Model(nn.Module):
    """One layer of |W| = 0.02, s = 2, with B A = 0."""

    def __init__(self, dtype: torch.dtype, token_space: bool) -> None:
        super().__init__()
        base = nn.Linear(INPUTS, OUTPUTS, bias=False)
        base.weight = nn.Parameter((0.02 * signs(0, OUTPUTS, INPUTS)).to(dtype), requires_grad=False)
        self.q_proj = LoraLinear(base, 1, 2.0, token_space)


def signs(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


@pytest.mark.parametrize("token_space", [True, False])
def test_small_offsets_are_seen_in_bfloat16(token_space: bool) -> None:
    """W = +-0.02, whose step in bfloat16 is 1.2e-4, and s D = +-4e-5: in W + s D every one of them is rounded away.

    The output's change is a x D^T; a, by least squares, is s = 2, and it was 0. The rest is the output's own rounding.
    """
    model = Model(torch.bfloat16, token_space)
    offsets, layer = Offsets(model), model.q_proj
    offset = 2e-5 * signs(1, OUTPUTS, INPUTS)
    assert torch.equal((layer.weight.float() + 2 * offset).bfloat16(), layer.weight)
    x = torch.randn(ROWS, INPUTS, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = layer(x)
        offsets.parameters["offset.q_proj.weight"].copy_(offset)
        offsets.fold()
        change, wanted = (layer(x) - before).double(), x.double() @ offset.double().T
        assert float((change * wanted).sum() / wanted.square().sum()) == pytest.approx(2.0, rel=0.05)
        offsets.reset()
        offsets.fold()
        assert torch.equal(layer(x), before) and layer.offset is None


def test_float32_weights_hold_their_offsets() -> None:
    model = Model(torch.float32, token_space=False)
    offsets, layer, before = Offsets(model), model.q_proj, model.q_proj.weight.clone()
    offsets.parameters["offset.q_proj.weight"].fill_(2e-5)
    offsets.fold()
    assert layer.offset is None and torch.equal(layer.weight, before + 2 * 2e-5)


def test_gradients_go_through_an_offset() -> None:
    """dy/dx = W + s D: 64 rows of ones times s D = 4e-5 are 2.56e-3 more than without."""
    model = Model(torch.bfloat16, token_space=True)
    offsets, layer = Offsets(model), model.q_proj
    gradients = []
    for value in (0.0, 2e-5):
        offsets.parameters["offset.q_proj.weight"].fill_(value)
        offsets.fold()
        x = torch.zeros(1, INPUTS, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(x).float().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad)
    assert float((gradients[1] - gradients[0]).mean()) == pytest.approx(64 * 2 * 2e-5, rel=0.1)
