"""Two connectors under a gate."""

import pytest
import torch

from pilot.connector.base import set_trainable
from pilot.connector.dual import DualConnector
from pilot.connector.projector import Projector

FEATURES = torch.ones(1, 2, 3)


def constant(mlp: Projector, value: float) -> None:
    """Makes every token `value`, whatever the features."""
    with torch.no_grad():
        mlp.linear_2.weight.zero_()
        mlp.linear_2.bias.fill_(value)


def test_the_gate_weighs_the_two() -> None:
    # 0.25 * 4 + 0.5 * 6 = 4
    dual = DualConnector(Projector(3, 4), (0.25, 0.5))
    constant(dual.connector, 4.0)
    constant(dual.private_connector, 6.0)
    assert torch.equal(dual(FEATURES).tokens_BNC, torch.full((1, 2, 4), 4.0))


@pytest.mark.parametrize("gate", [(1.0, 0.0), (0.5, 0.5)])
def test_both_start_as_the_projector(gate: tuple[float, float]) -> None:
    projector = Projector(3, 4)
    torch.testing.assert_close(DualConnector(projector, gate)(FEATURES).tokens_BNC, projector(FEATURES))


def test_names_are_by_group_and_gradients_reach_the_trained_one_alone() -> None:
    dual = DualConnector(Projector(3, 4), (0.5, 0.5))
    assert {name.split(".")[0] for name, _ in dual.named_parameters()} == {"connector", "private_connector", "gate"}
    assert dual.gate.weight.shape == (2,)
    set_trainable(dual, {"private_connector"})
    dual(FEATURES).tokens_BNC.sum().backward()
    reached = {name.split(".")[0] for name, parameter in dual.named_parameters() if parameter.grad is not None}
    assert reached == {"private_connector"}


def test_a_gate_has_two_numbers() -> None:
    with pytest.raises(ValueError, match="gate"):
        DualConnector(Projector(3, 4), (1.0,))
