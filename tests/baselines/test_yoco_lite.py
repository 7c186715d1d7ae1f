"""YOCO by hand: where LoRA starts, what the objective adds, and the only communication."""

import math
from typing import Any

import pytest
import torch

from baselines.yoco_lite import ROUNDS_DONE, YocoLite
from pilot.config.load import load_profile
from pilot.errors import UserError
from pilot.federation.client import PhaseTask
from pilot.federation.spec import configured_method
from pilot.io.atomic import read_json
from pilot.methods.base import ClientInfo, PhaseResult, ServerState, State, Update, select
from pilot.registry import make_method

from ..small import Small

A, B, C = "text_adapter.q.lora_A", "text_adapter.q.lora_B", "connector.a"
INFO = ClientInfo(client=0, task="vqa", tasks=("vqa",), seed=0)


def model(a: Any, b: Any, connector: float = 0.0) -> State:
    return {A: torch.tensor(a), B: torch.tensor(b), C: torch.tensor([connector])}


def test_one_message_after_the_last_round() -> None:
    method = YocoLite().for_rounds(3)
    phases = [method.phases(number)[0] for number in (1, 2, 3, 4)]
    assert [phase.shared for phase in phases] == [set(), set(), {"text_adapter", "connector"}, set()]
    start, end = model([[1.0]], [[-2.0]]), model([[5.0]], [[6.0]], 7.0)
    first = method.split_result(phases[0], INFO, PhaseResult(start, end, {}, {}, 1))
    signs = {f"signs.{B}": [[-1.0]], ROUNDS_DONE: [1.0]}
    assert first.shared == {} and {name: value.tolist() for name, value in first.private.items()} == {
        A: [[5.0]], B: [[6.0]], C: [7.0], **signs,
    }  # fmt: skip
    last = method.split_result(phases[2], INFO, PhaseResult(end, end, first.private, {}, 1))
    assert last.shared.keys() == end.keys() and last.private.keys() == signs.keys()
    assert last.private[f"signs.{B}"].item() == -1 and last.private[ROUNDS_DONE].item() == 2
    updates = [Update(k, "vqa", count, model([[a]], [[a]], a)) for k, count, a in ((0, 1, 4.0), (1, 3, 8.0))]
    server = method.aggregate(phases[2], iter(updates), ServerState())
    assert {value.item() for value in server.shared.values()} == {7.0}
    assert method.payload(server, INFO, phases[3]).keys() == end.keys()
    silent = method.aggregate(phases[0], iter([Update(0, "vqa", 1, {})]), ServerState())
    assert silent.shared == {}, "nothing arrives before"
    assert YocoLite(send_after=9).for_rounds(3).send_after == YocoLite(send_after=3).for_rounds(3).send_after == 3
    profile = load_profile("smoke")
    with pytest.raises(UserError, match=rf"option send_after: expected 0 or at least {profile.rounds}, .* got 1"):
        configured_method(profile, "yoco_lite", {"send_after": 1})


def test_the_objective() -> None:
    """Signs (1, -1), gamma 25 / 2 + 1 / 2 = 13 in the middle, B = (0, atanh(-0.6) / 13): (1, 0.4) / sqrt(2)."""
    method = YocoLite(sparsity=0.5).for_rounds(4)
    trainable = model([[1.0, -2.0]], [[0.0], [math.atanh(-0.6) / 13]])
    received = {**trainable, f"signs.{B}": torch.tensor([[1.0], [-1.0]]), ROUNDS_DONE: torch.tensor([2.0])}
    expected = (1 + 0.4**2) ** 0.5 / 2**0.5 + 0.5 * 3
    assert method.penalty(trainable, received).item() == pytest.approx(expected, rel=1e-5)
    # In the first round the signs are those of the start, and gamma is 1: tanh(1) for B = 1.
    begun = model([[0.0, 0.0]], [[1.0], [-1.0]])
    assert method.penalty(begun, begun).item() == pytest.approx(1 - math.tanh(1), rel=1e-5)
    assert [method.gamma_at(share) for share in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1, 13, 25, 25])
    for options in ({"gamma": 0.5}, {"sparsity": -1.0}, {"send_after": -1}):
        with pytest.raises(UserError, match=f"{next(iter(options))}: expected"):
            make_method("yoco_lite", options)


@pytest.mark.slow
def test_training_starts_from_the_weights_themselves(small: Small) -> None:
    """B_0 A_0 is the best approximation of W of LoRA's rank; with the offset every layer computes W x."""
    backbone, trainer = small.backbone, small.trainer("yoco_lite")
    start = backbone.initial_adapter(0, from_weights=True)
    name = next(name for name in start if name.endswith("q_proj.lora_B"))
    a_RI, b_OR = start[name.replace("lora_B", "lora_A")], start[name]
    offset = name.replace("text_adapter", "offset").replace("lora_B", "weight")
    backbone.reset_weights()
    backbone.apply_weights()
    layer = backbone.language_model.get_submodule(name.removeprefix("text_adapter.").removesuffix(".lora_B"))
    values = torch.linalg.svdvals(layer.weight.detach())
    rest = torch.linalg.svdvals(layer.weight.detach() - b_OR @ a_RI)
    assert rest[0].item() == pytest.approx(values[len(a_RI)].item(), rel=1e-4)
    assert start[offset].equal(-(b_OR @ a_RI))

    spec = small.spec("yoco_lite")
    method, info = spec.make_method(), spec.clients(spec.make_method())[0]
    assert vars(method)["send_after"] == spec.profile.rounds
    run, _ = trainer.train_phase(PhaseTask(info, method.phases(1)[0], 1, 0, 0, {}), {})
    weights = layer.merged_weight()
    begun = select(run.model.state(), {"text_adapter"})
    assert begun[name].equal(b_OR)
    backbone.reset_weights()
    backbone.apply_weights()
    assert (weights - layer.weight).abs().max().item() < 1e-6


@pytest.mark.slow
def test_a_run_sends_once(small: Small) -> None:
    folder = small.run("yoco_lite")
    messages = read_json(folder / "ledger.json")["messages"]
    assert [(each["round"], each["direction"]) for each in messages] == [(2, "up")] * 6
    assert read_json(folder / "config.json")["hyperparameters"]["options"]["send_after"] == 2
