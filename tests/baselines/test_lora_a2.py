"""LoRA-A2 by hand, and in a real phase ranks that were not chosen stay as they were."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from baselines.lora_a2 import LoraA2
from pilot.federation.client import PhaseTask
from pilot.methods.base import ClientInfo, PhaseResult, State, Update, select
from pilot.methods.chosen_ranks import CHANGES, GROUP

from ..small import Small

MK, MQ = "selected.mask.k", "selected.mask.q"
C, KA, KB, QA, QB = "connector.a", *(f"text_adapter.{layer}.lora_{f}" for layer in "kq" for f in "AB")
CLIENTS = [ClientInfo(client=k, task="vqa", tasks=("vqa",), seed=0) for k in range(3)]
START = {
    KA: torch.tensor([[3.0, 4.0], [0.0, 1.0]]), KB: torch.zeros(2, 2), C: torch.zeros(1),
    QA: torch.tensor([[1.0], [2.0]]), QB: torch.zeros(1, 2),
}  # fmt: skip


def end(**changed: Any) -> State:
    names = {"ka": KA, "kb": KB, "qa": QA, "qb": QB, "c": C}
    return {**START, **{names[name]: torch.tensor(value) for name, value in changed.items()}}


def lists(state: State) -> dict[str, Any]:
    return {name: value.tolist() for name, value in state.items()}


def test_a_trial_chooses_and_chosen_changes_are_averaged() -> None:
    method = LoraA2()
    trial, train = method.phases(1)
    assert (trial.name, trial.trainable, trial.shared) == ("try_b", {"text_adapter:lora_B"}, frozenset())
    assert train.trainable == {"text_adapter:lora_B", "connector"} and train.shared == {"selected", "connector"}
    assert trial.share_of_steps + train.share_of_steps == 1 and 3 * trial.share_of_steps == 1
    initial = method.initial_phase()
    sent = method.split_result(initial, CLIENTS[0], PhaseResult(START, START, {}, {}, 1)).shared
    server = method.initial_server_state(sent, CLIENTS)
    assert method.payload(server, CLIENTS[0], trial) == {}, "all start from the seed's values"

    # dB of k has columns of length 1 and 2, its A rows of length 5 and 1: 5 and 2. q: 4 and 3 times 1 and 2: 4 and 6.
    tried = method.split_result(
        trial, CLIENTS[0], PhaseResult(START, end(kb=[[1.0, 0.0], [0.0, 2.0]], qb=[[4.0, -3.0]]), {}, {}, 1)
    )
    masks = select(tried.private, {GROUP})
    assert tried.shared == {} and lists(masks) == {MK: [1.0, 0.0], MQ: [0.0, 1.0]}
    assert lists({name: tried.private[name] for name in START}) == lists(START), "back to the received model"
    assert lists(method.gradient_masks(train, {**START, **masks})) == {KB: [[1.0, 0.0]], QB: [[0.0, 1.0]]}

    trained = end(kb=[[7.0, 0.0], [8.0, 0.0]], qb=[[0.0, 9.0]], c=[1.0])
    first = method.split_result(train, CLIENTS[0], PhaseResult(START, trained, tried.private, {}, 1))
    assert lists(first.shared) == {C: [1.0], **lists(masks), CHANGES: [[[7.0, 8.0]], [[9.0, 0.0]]]}
    assert lists(first.private) == {KA: START[KA].tolist(), QA: START[QA].tolist()}
    other = {C: torch.tensor([5.0]), MK: torch.zeros(2), MQ: torch.ones(2)}
    other[CHANGES] = torch.tensor([[[2.0, 0.0]], [[4.0, 0.0]]])
    updates = [Update(0, "vqa", 1, first.shared), Update(1, "vqa", 3, other)]
    assert all(method.rejection_reason(train, each) == "" for each in updates)
    server = method.aggregate(train, iter(updates), server)
    # k: (1 * 7, 1 * 8) / 4 in the first column; q: 3 * 2 / 4 and (1 * 9 + 3 * 4) / 4; connector (1 + 15) / 4.
    model = {KB: [[1.75, 0.0], [2.0, 0.0]], QB: [[1.5, 5.25]], C: [4.0]}
    second, final = method.phases(2)[0], method.final_phase(2)
    assert (
        lists(method.payload(server, CLIENTS[0], second)) == model == lists(method.payload(server, CLIENTS[2], final))
    )

    # Round 2: client 1 changes A; the server adds it to the A that all start from.
    changes = {
        CHANGES: torch.tensor([[[1.0, 1.0]], [[3.0, 0.0]]]),
        MK: torch.tensor([0.0, 1.0]),
        MQ: torch.tensor([1.0, 0.0]),
    }
    update = Update(1, "vqa", 3, {C: torch.zeros(1), **changes})
    server = method.aggregate(method.phases(2)[1], iter([update]), server)
    assert lists(method.payload(server, CLIENTS[1], trial)) == {
        KA: [[3.0, 4.0], [1.0, 2.0]], QA: [[4.0], [2.0]], C: [0.0],
    }  # fmt: skip
    absent = method.payload(server, CLIENTS[0], trial)
    assert absent.keys() == START.keys() and absent[KB].tolist() == model[KB]


def test_budgets_are_the_clients_own_and_equal_scores_have_an_order() -> None:
    method = LoraA2(budgets=(0.01, 1.0))
    zeros = torch.zeros(2, 4)
    assert method.mask(CLIENTS[0], zeros).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert method.mask(CLIENTS[1], zeros).tolist() == [[1] * 4] * 2
    for options in ({"budgets": ()}, {"budgets": (1.5,)}, {"trial": 0.0}, {"trial": 1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
            LoraA2(**options)


@pytest.mark.parametrize("mask", [[1.0, 1.0], [0.5, 1.0], [-1.0, 1.0], [0.0, 0.0]])
def test_masks_that_do_not_fit_are_rejected(mask: list[float]) -> None:
    update = Update(0, "vqa", 1, {MK: torch.tensor(mask), CHANGES: torch.ones(1, 1, 3)})
    assert LoraA2().rejection_reason(LoraA2().phases(1)[1], update) == "selected.mask: expected 1 ones, else zeros"


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_ranks_that_are_not_chosen_stay(small: Small, number: int) -> None:
    """B moves in the trial of round 1, A in that of round 2, which starts from a B that is not zero."""
    trainer, info, method = small.trainer("lora_a2"), small.spec("lora_a2").clients(LoraA2())[0], LoraA2()
    stored: State = {}
    if number == 2:
        task = PhaseTask(info, replace(method.phases(1)[0], name="other"), 1, 0, 2, {})
        stored = {name: value for name, value in trainer.train_phase(task, {})[0].model.state().items()}
    trial, train = method.phases(number)
    tried = trainer.run(PhaseTask(info, trial, number, 0, 2, {}), stored)
    masks = select(tried.private, {GROUP})
    mask_NR = torch.stack([masks[name] for name in sorted(masks)])
    assert 0 < mask_NR.sum() == mask_NR.numel() / 2 and tried.update.state == {}
    run, _ = trainer.train_phase(PhaseTask(info, train, number, 1, 3, {}), tried.private)
    factor = sorted(select(run.start, train.trainable - {"connector"}))
    moved = [run.model.state()[name] - run.start[name] for name in factor]
    rows = [change if name.endswith("A") else change.T for name, change in zip(factor, moved, strict=True)]
    assert torch.stack([change.abs().amax(dim=1) > 0 for change in rows]).tolist() == mask_NR.bool().tolist()
    split = run.split_result({})
    assert len(split.shared[CHANGES].flatten(end_dim=1)) == int(mask_NR.sum()) and not select(
        split.shared, {"text_adapter"}
    )
