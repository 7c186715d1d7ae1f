"""Adaptive text aggregation and task-aware aggregation, by hand."""

import pytest
import torch

from pilot.methods.base import State
from pilot.methods.pilot import adaptive_text_aggregation, task_aware_aggregation
from pilot.methods.text_aggregation import inverse_distance_weights, neighbourhoods_from_distances, pairwise_distances


def scalars(*values: float) -> list[State]:
    return [{"text_adapter.a": torch.tensor([float(value)])} for value in values]


def mixed(states: list[State], counts: list[int], **options: object) -> list[float]:
    result = adaptive_text_aggregation(states, counts, **options)  # type: ignore[arg-type]
    return [state["text_adapter.a"].item() for state in result]


def test_by_hand_with_a_fixed_self_weight() -> None:
    # Clients at 0, 1, 3; M = 2, a = 0.5.
    # 0: d = 1, 3: w = 3/4, 1/4: 0.5 * 0 + 0.5 * (3/4 * 1 + 1/4 * 3) = 0.75
    # 1: d = 1, 2: w = 2/3, 1/3: 0.5 * 1 + 0.5 * (0 + 1/3 * 3) = 1
    # 2: d = 2 (to 1), 3 (to 0): w = 3/5, 2/5: 1.5 + 0.5 * 0.6 = 1.8
    assert mixed(scalars(0, 1, 3), [1, 1, 1], num_neighbors=2, self_weight=0.5) == pytest.approx([0.75, 1.0, 1.8])


def test_by_hand_with_numbers_of_examples() -> None:
    # M = 1. Client 0 (n = 1) beside client 1 (n = 3): a = 1/4: 0.75 * 1. Client 1: a = 3/4: 0.75.
    # Client 2 (n = 2, at 3) has neighbour 1: a = 2/5: 0.4 * 3 + 0.6 * 1 = 1.8.
    states = scalars(0, 1, 3)
    assert mixed(states, [1, 3, 2], num_neighbors=1, self_weight="samples") == pytest.approx([0.75, 0.75, 1.8])


def test_distance_zero_takes_all_the_weight_in_equal_parts() -> None:
    assert inverse_distance_weights([0.0, 0.0, 5.0]) == (0.5, 0.5, 0.0)
    assert inverse_distance_weights([1e-320, 1e-320]) == (0.5, 0.5)
    assert inverse_distance_weights([1.0, 3.0]) == pytest.approx((0.75, 0.25))
    # Clients 0 and 1 are equal: they mix with each other only, client 2 with both.
    assert mixed(scalars(1, 1, 4), [1, 1, 1], num_neighbors=2, self_weight=0.5) == pytest.approx([1, 1, 2.5])
    assert mixed(scalars(2, 2, 2), [1, 2, 3], num_neighbors=2) == [2.0, 2.0, 2.0]


def test_ties_go_to_the_lower_client() -> None:
    hoods = neighbourhoods_from_distances(pairwise_distances(scalars(0, 1, -1, 1)), [1, 1, 1, 1], 2, 0.5)
    assert hoods[0].neighbours == (1, 2)
    assert hoods[1].neighbours == (3, 0)


def test_alone_or_with_fewer_others_than_asked_for() -> None:
    assert mixed(scalars(5), [1], num_neighbors=3) == [5.0]
    assert mixed(scalars(0, 2), [1, 1], num_neighbors=3) == [1.0, 1.0]
    assert mixed(scalars(0, 2), [1, 1], num_neighbors=1, self_weight=1.0) == [0.0, 2.0]
    assert mixed(scalars(0, 2), [1, 1], num_neighbors=1, self_weight=0.0) == [2.0, 0.0]


def test_the_order_of_clients_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [{"text_adapter.a": torch.randn(5, generator=generator)} for _ in range(5)]
    counts, order = [3, 1, 4, 1, 5], [2, 0, 4, 1, 3]
    direct = adaptive_text_aggregation(states, counts, num_neighbors=2)
    shuffled = adaptive_text_aggregation([states[k] for k in order], [counts[k] for k in order], num_neighbors=2)
    for position, k in enumerate(order):
        assert torch.equal(shuffled[position]["text_adapter.a"], direct[k]["text_adapter.a"])


def test_parameter_distance_spans_all_tensors() -> None:
    # Differences (3) and (0, 4): sqrt(9 + 16) = 5.
    a = {"x": torch.tensor([3.0]), "y": torch.tensor([1.0, 4.0])}
    b = {"x": torch.tensor([0.0]), "y": torch.tensor([1.0, 0.0])}
    assert pairwise_distances([a, b]) == [[0.0, 5.0], [5.0, 0.0]]


def lora(seed: int, out_width: int = 6, in_width: int = 5, rank: int = 2) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        "text_adapter.q.lora_A": torch.randn(rank, in_width, generator=generator, dtype=torch.float64),
        "text_adapter.q.lora_B": torch.randn(out_width, rank, generator=generator, dtype=torch.float64),
    }


@pytest.mark.parametrize("shapes", [[(32, 128), (344, 32), (7,), ()], [(1, 1)], [(250, 333), (0, 3)]])
def test_distances_over_all_pairs_are_those_of_single_pairs(shapes: list[tuple[int, ...]]) -> None:
    """Bit for bit on one thread, as runs have: with more of them PyTorch sums a large tensor in parts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(1)
    states = [{f"t{i}": torch.randn(shape, generator=source) for i, shape in enumerate(shapes)} for _ in range(9)]
    found = pairwise_distances(states)
    for k, one in enumerate(states):
        for j, other in enumerate(states):
            squares = [float((one[name].double() - other[name].double()).square().sum()) for name in sorted(one)]
            assert found[k][j] == sum(squares) ** 0.5
    torch.set_num_threads(threads)


def test_product_distance_is_that_of_the_products() -> None:
    for shape in ((6, 5, 2), (3, 3, 2), (2, 7, 4)):
        a, b = lora(1, *shape), lora(2, *shape)
        products = [s["text_adapter.q.lora_B"] @ s["text_adapter.q.lora_A"] for s in (a, b)]
        expected = (products[0] - products[1]).norm().item()
        assert pairwise_distances([a, b], "product")[0][1] == pytest.approx(expected, rel=1e-12)


def test_product_distance_does_not_change_under_b_r_and_r_inverse_a() -> None:
    a, b = lora(1), lora(2)
    r = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
    turned = {
        "text_adapter.q.lora_A": torch.linalg.inv(r) @ a["text_adapter.q.lora_A"],
        "text_adapter.q.lora_B": a["text_adapter.q.lora_B"] @ r,
    }
    distances = pairwise_distances([a, b, turned], "product")
    assert distances[0][1] == pytest.approx(distances[1][2], rel=1e-10)
    assert distances[0][2] == pytest.approx(0, abs=1e-12)
    assert pairwise_distances([a, turned], "parameters")[0][1] > 0.1
    assert pairwise_distances([a, dict(a)], "product")[0][1] == 0.0


def test_refusals() -> None:
    states = scalars(0, 1)
    for options in (
        {"num_neighbors": 0},
        {"self_weight": 1.5},
        {"self_weight": "mean"},
        {"distance": "cosine"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            mixed(states, [1, 1], **options)
    with pytest.raises(ValueError, match="numbers of examples"):
        mixed(states, [1])
    with pytest.raises(ValueError, match="positive counts"):
        mixed(states, [1, 0])
    with pytest.raises(ValueError, match="state 1"):
        mixed([*scalars(0), {"text_adapter.a": torch.ones(2)}], [1, 1])
    with pytest.raises(ValueError, match="lora_B"):
        mixed([{"q.lora_A": torch.ones(1, 1)}] * 2, [1, 1], distance="product")


def test_task_aware_aggregation_by_hand() -> None:
    # vqa: (1 * 0 + 3 * 4) / 4 = 3; caption: 7 alone.
    means = task_aware_aggregation(scalars(0, 7, 4), [1, 2, 3], ["vqa", "caption", "vqa"])
    assert list(means) == ["vqa", "caption"]
    assert {task: state["text_adapter.a"].item() for task, state in means.items()} == {
        "vqa": 3.0,
        "caption": 7.0,
    }
    with pytest.raises(ValueError):
        task_aware_aggregation(scalars(0, 7), [1, 2], ["vqa"])
