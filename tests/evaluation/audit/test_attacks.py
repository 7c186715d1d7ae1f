"""Attacks on updates small enough to be checked by hand."""

import pytest
import torch

from pilot.evaluation.audit.attacks.answers import match, most_frequent
from pilot.evaluation.audit.attacks.attribution import guess_clients, guess_tasks
from pilot.evaluation.audit.attacks.losses import rank_answers, score_members
from pilot.evaluation.audit.attacks.span import (
    connector_basis,
    residuals,
    rounding_floor,
    row_space,
    score_images,
    score_tokens,
    verdicts,
)

WEIGHT = "connector.linear_1.weight"


def test_row_space_of_one_input() -> None:
    """y = W x with x = (3, 0, 4): the gradient is d x^T for any d, and its rows are multiples of x."""
    basis = row_space(torch.outer(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.0, 4.0])), 1e-6)
    assert basis.abs() == pytest.approx(torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64), abs=1e-6)
    inputs = torch.tensor([[6.0, 0.0, 8.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    # (1, 0, 0) has 0.6 inside, so that 0.8 is outside
    assert residuals(inputs, basis).tolist() == pytest.approx([0, 1, 0.8], abs=1e-6)


def test_an_update_of_full_rank_has_the_directions_of_most_energy() -> None:
    """Squares 25, 1, 0.01: two directions have 26 / 26.01 of the energy, more than 99 %; one has 96 %, less."""
    update = torch.diag(torch.tensor([5.0, 1.0, 0.1]))
    assert len(row_space(update, 1e-6)) == 2 and len(row_space(update, 1e-6, 1.0)) == 3
    assert len(row_space(update, 0.5)) == 2, "what rounding may be does not count"
    assert len(row_space(torch.zeros(2, 3), 1e-6)) == 0


def test_images_of_a_step_lie_in_its_span_until_there_are_as_many_tokens_as_widths() -> None:
    """Two tokens of width 4 are found; five tokens span everything, and then nobody is told from anybody."""
    source = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 2, 4, generator=source)  # three images of two tokens
    start = {WEIGHT: torch.randn(6, 4, generator=source)}

    def sent(images: int) -> dict[str, torch.Tensor]:
        inputs = tokens[:images].flatten(0, 1)
        return {WEIGHT: start[WEIGHT] - torch.randn(6, len(inputs), generator=source) @ inputs}

    basis = connector_basis(start, sent(1), 1.0)
    assert basis is not None and verdicts(score_images(tokens, basis)).tolist() == [1, 0, 0]
    whole = connector_basis(start, sent(2), 1.0)
    assert whole is not None and verdicts(score_images(tokens, whole)).tolist() == [1, 1, 1]
    assert connector_basis(start, start) is None and connector_basis({}, {"text_adapter.x": torch.ones(1)}) is None


def test_rounding_is_no_direction() -> None:
    """A change far below the weights' spacing leaves the update's rank; real directions are above the floor."""
    start = torch.randn(128, 128, generator=torch.Generator().manual_seed(1)) / 10
    step = torch.outer(torch.linspace(-1, 1, 128), torch.linspace(0, 1, 128)) / 100
    sent = (start.double() - step.double()).float()
    assert len(row_space(sent.double() - start.double(), rounding_floor(start, sent))) == 1


@pytest.mark.parametrize("factor", ["A", "B"])
def test_words_of_a_batch_by_either_factor(factor: str) -> None:
    """One word x: the update of A is u x^T, that of B is d (A x)^T. Word 0 is in it; A does not mix up the others."""
    words = torch.eye(3)
    known = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # A (2, 3) maps words 0 and 1 apart, word 2 to zero
    updates = {"A": torch.outer(torch.tensor([1.0, 2.0]), words[0]), "B": torch.outer(torch.ones(3), known @ words[0])}
    layers = [f"text_adapter.layers.0.self_attn.{layer}" for layer in ("q_proj", "k_proj", "v_proj")]
    start = {f"{layer}.lora_{factor}": torch.zeros_like(updates[factor]) for layer in layers}
    sent = {name: updates[factor] for name in start}
    found = score_tokens(start, sent, {f"{layer}.lora_A": known for layer in layers}, words)
    assert found is not None and found[0] == factor
    assert found[1][:2].tolist() == pytest.approx([0, -1], abs=1e-6)
    assert score_tokens(start, start, {}, words) is None


def test_nearest_updates() -> None:
    updates = [{"w": torch.tensor(values)} for values in ([1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0])]
    assert guess_tasks(updates, ["vqa", "vqa", "caption", "caption"]) == ["vqa", "vqa", "caption", "caption"]
    later = [{"w": torch.tensor(values), "more": torch.ones(1)} for values in ([0.0, 2.0], [3.0, 0.3])]
    assert guess_clients(later, updates, [7, 8, 9, 10]) == [9, 7]
    with pytest.raises(ValueError, match="no tensor in common"):
        guess_clients([{"a": torch.ones(1)}], [{"b": torch.ones(1)}], [0])


def test_the_answer_whose_step_is_nearest() -> None:
    """A step goes against its gradient: update (1, 0) fits gradient (-1, 0), not (1, 0) or (0, 1)."""
    gradients = [{"w": torch.tensor(values)} for values in ([1.0, 0.0], [-1.0, 0.0], [0.0, 1.0])]
    assert match({"w": torch.tensor([2.0, 0.0])}, gradients) == pytest.approx([-1, 1, 0])
    assert match({"w": torch.zeros(2)}, gradients) == [0, 0, 0]
    with pytest.raises(ValueError, match="no trained tensor"):
        match({"router": torch.ones(1)}, gradients)
    assert most_frequent(["no", "yes", "yes"], ["yes", "no"]) == 0


def test_members_are_those_whose_loss_fell_most() -> None:
    """From 3 to 1 is a fall of 2; an easy example of loss 0.5 that was 0.6 before fell by 0.1 only."""
    assert score_members([1.0, 0.5], [3.0, 0.6]) == pytest.approx([2, 0.1])
    with pytest.raises(ValueError, match="a loss is not finite"):
        score_members([1.0, float("nan")], [1.0, 1.0])


def test_ranks_of_answers() -> None:
    """The lowest loss is first; two equal ones share ranks 2 and 3."""
    assert rank_answers([0.5, 0.1, 0.5, 0.9]) == [2.5, 1, 2.5, 4]
