"""The plain implementations in `tests/bench/` are right: by hand, and by what the suite computes."""

import pytest
import torch

from pilot.bench.kernels.ct_moa import Shape, Sides, products
from pilot.bench.kernels.products import flops, record_products
from pilot.bench.kernels.references import reference
from pilot.connector.losses import difference_loss
from pilot.methods.base import State, weighted_mean
from pilot.methods.text_aggregation import adaptive_text_aggregation


def test_difference_loss_by_hand() -> None:
    # A = [[3, 4]] / 5 and B = [[0, 2]] / 2: A^T B = [[0, .6], [0, .8]], squares sum to 1. Second sample, two tokens:
    # A = I / sqrt 2, B = [[1, 0], [0, 0]]: A^T B = [[1 / sqrt 2, 0], [0, 0]], 0.5. Mean 0.75.
    x_t = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    x_s = torch.tensor([[[0.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    assert reference("difference_loss").difference_loss(x_t, x_s).item() == pytest.approx(0.75)
    assert difference_loss(x_t, x_s).item() == pytest.approx(0.75)


def test_router_losses_by_hand() -> None:
    # Probabilities [.8, .2] and [.5, .5] (the first counts as top): f = [1, 0], mean P_1 = .65, 2 * .65 = 1.3.
    # logsumexp: log 5 and log 2; (2.590290 + 0.480453) / 2 = 1.535372.
    losses = reference("ct_moa").losses(torch.tensor([[4.0, 1.0], [1.0, 1.0]]).log())
    assert losses["load_balance"].item() == pytest.approx(1.3)
    assert losses["router_z"].item() == pytest.approx(1.535372, abs=1e-6)


def test_weighted_mean_by_hand() -> None:
    states = [{"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([4.0, 6.0])}]
    assert reference("aggregate").weighted_mean(states, [2, 1])["x"].tolist() == pytest.approx([2.0, 10 / 3])


def test_text_aggregation_by_hand() -> None:
    # On a line at 0, 1, 3, with 1 example each and M = 2. Client 0: 1/d = 1, 1/3, so w = .75, .25; the others' examples
    # weigh 1, so a = .5: 0 * .5 + .5 * (.75 * 1 + .25 * 3) = .75.
    states = [{"x": torch.tensor([value])} for value in (0.0, 1.0, 3.0)]
    found = reference("aggregate").adaptive_text_aggregation(states, [1, 1, 1], 2)
    assert found[0]["x"].item() == pytest.approx(0.75)


@pytest.mark.parametrize("clients", [2, 5, 70])
def test_aggregation_is_that_of_the_suite(clients: int) -> None:
    """70 clients are compared in blocks."""
    generator = torch.Generator().manual_seed(3)
    states: list[State] = [
        {"a": torch.randn(4, 3, generator=generator), "b": torch.randn(5, generator=generator)} for _ in range(clients)
    ]
    counts = [7 + k % 3 for k in range(clients)]
    plain = reference("aggregate")
    mean = weighted_mean(zip(states, counts, strict=True))
    torch.testing.assert_close(plain.weighted_mean(states, counts), mean)
    own = adaptive_text_aggregation(states, counts, num_neighbors=3)
    torch.testing.assert_close(plain.adaptive_text_aggregation(states, counts, 3), own)


def test_listed_products_of_the_mixture_are_those_that_it_computes() -> None:
    """And no more: frozen adapters and features take no gradient."""
    for shape in (Shape(2, 5, 4, 8), Shape(1, 3, 6, 4, T=4)):
        sides = Sides(shape)
        assert flops(record_products(sides.ours)) == flops(products(shape))
