"""What methods may ask besides averaging: auxiliary state, mean gradients, teachers, offsets, a beginning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from pilot.backbone.packed.packing import IGNORED
from pilot.federation.assemble import make_plan
from pilot.federation.client import PhaseTask, TrainingResult, build_client_model
from pilot.federation.driver import Driver
from pilot.federation.ledger import Ledger
from pilot.federation.participant import Participant
from pilot.federation.shards import collate
from pilot.federation.store import ClientStore
from pilot.federation.trainer import LocalTrainer
from pilot.federation.transport import LocalTransport
from pilot.methods.averaging import Averaging
from pilot.methods.base import (
    VALIDATION_LOSS,
    ClientInfo,
    Method,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    prefixed,
    select,
)

from ..small import Small

TASKS = ("scene-vqa", "scene-caption", "scene-ground")
INFO = ClientInfo(2, "scene-caption", TASKS, 0)


@dataclass(frozen=True, kw_only=True)
class Probe(Averaging):
    """Averaging with hooks that note what they were given."""

    name: ClassVar[str] = "fedavg"  # its learning rates
    offsets: ClassVar[bool] = True

    seen: dict[str, object] = field(default_factory=dict)
    phase: Phase = Phase("train", frozenset({"text_adapter", "connector"}), frozenset({"text_adapter", "connector"}))

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        self.seen["received"] = received
        return None

    def distillation(
        self, phase: Phase, logits_MV: Tensor, received: State, logits_of: Callable[[State], Tensor]
    ) -> Tensor:
        b = next(name for name in received if name.endswith("lora_B"))
        offset = "offset." + b.removeprefix("text_adapter.").replace("lora_B", "weight")
        self.seen["same"] = gap(logits_of({}), logits_MV)
        self.seen["other"] = gap(logits_of({b: received[b] + 1}), logits_MV)
        self.seen["offset"] = gap(logits_of({offset: received[offset] + 1}), logits_MV)
        self.seen["again"] = gap(logits_of({}), logits_MV)
        return logits_MV.sum() * 0

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        self.seen["initial"], self.seen["clients"] = initial, clients
        return ServerState(prefixed(initial, "start"))


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b.detach()).abs().max())


def trainer_of(small: Small, method: Probe) -> LocalTrainer:
    trainer = small.trainer("fedavg")
    trainer.method = method
    return trainer


def run(
    small: Small, method: Probe, payload: State | None = None, stored: State | None = None, steps: int = 1
) -> TrainingResult:
    task = PhaseTask(INFO, method.phase, 1, 0, steps, payload or {})
    return trainer_of(small, method).run(task, stored or {})


def loss_of(small: Small, method: Method, payload: State) -> float:
    model = build_client_model(small.backbone, method, method.phases(1)[0], INFO, {}, payload)
    batch = collate(small.examples[INFO.client][:4], small.features, small.backbone.eos_id)
    with torch.no_grad():
        tokens = model.connector(batch.features_BND).tokens_BNC
        return float(small.backbone.cross_entropy(tokens, batch.ids_BL, batch.labels_BL))


def pairs_of(small: Small) -> list[tuple[str, str, str]]:
    names = [name for name in small.backbone.text_adapter if name.endswith("lora_A")]
    paths = [name.removeprefix("text_adapter.").removesuffix(".lora_A") for name in names]
    return [(f"text_adapter.{p}.lora_A", f"text_adapter.{p}.lora_B", f"offset.{p}.weight") for p in paths]


def test_an_offset_is_worth_as_much_as_the_product_that_it_holds(small: Small) -> None:
    source, method = torch.Generator().manual_seed(1), Probe()
    lora, merged = {}, {}
    for a, b, offset in pairs_of(small):
        shape_a, shape_b = small.backbone.text_adapter[a].shape, small.backbone.text_adapter[b].shape
        lora[a], lora[b] = torch.randn(shape_a, generator=source), 0.02 * torch.randn(shape_b, generator=source)
        merged |= {offset: lora[b] @ lora[a], a: lora[a], b: torch.zeros(shape_b)}
    plain = loss_of(small, method, {})
    assert loss_of(small, method, merged) == pytest.approx(loss_of(small, method, lora), rel=1e-5)
    assert abs(loss_of(small, method, merged) - plain) > 0.01
    assert loss_of(small, method, {}) == plain, "another client's offsets are gone"
    assert abs(loss_of(small, method, merged) - plain) > 0.01
    assert loss_of(small, small.spec("fedavg").make_method(), {}) == plain, "also where the next method has none"


def test_without_the_attribute_a_payload_with_offsets_fits_nowhere(small: Small) -> None:
    method, name = small.spec("fedavg").make_method(), pairs_of(small)[0][2]
    with pytest.raises(ValueError, match="unknown parameters"):
        build_client_model(small.backbone, method, method.phases(1)[0], INFO, {}, {name: torch.zeros(1)})


def test_auxiliary_state_reaches_the_penalty_and_not_the_model(small: Small) -> None:
    control = {"control.x": torch.ones(2)}
    method = Probe(phase=replace(Probe().phase, auxiliary=frozenset({"control", "kept"})))
    trained = run(small, method, payload=control, stored={"kept.y": torch.zeros(3), "other.z": torch.zeros(1)})
    received = method.seen["received"]
    assert isinstance(received, dict)
    assert received.keys() - trained.update.state.keys() == {"control.x", "kept.y"}
    assert {"kept.y", "other.z"} <= trained.private.keys() and "control.x" not in trained.private
    with pytest.raises(ValueError, match=r"control\.x"):
        run(small, Probe(), payload=control)


def test_mean_gradients_are_those_before_clipping(small: Small) -> None:
    seen: dict[str, PhaseResult] = {}

    @dataclass(frozen=True, kw_only=True)
    class Keeps(Probe):
        def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
            if any(bool(value.any()) for value in result.gradients.values()):
                seen[str(result.steps)] = result
            return super().split_result(phase, client, result)

    method = Keeps(phase=replace(Probe().phase, mean_gradients=True))
    trainer = trainer_of(small, method)
    trainer.settings = replace(trainer.settings, batch_size=len(small.examples[INFO.client]), max_grad_norm=1e-3)
    trainer.run(PhaseTask(INFO, method.phase, 1, 0, 1, {}), {})
    model = build_client_model(small.backbone, method, method.phase, INFO, {}, {})
    for name, parameter in model.parameters.items():
        parameter.requires_grad_(not name.startswith("offset"))
        parameter.grad = None
    batch = collate(small.examples[INFO.client], small.features, small.backbone.eos_id)
    tokens = model.connector(batch.features_BND).tokens_BNC
    small.backbone.cross_entropy(tokens, batch.ids_BL, batch.labels_BL).backward()
    gradients = seen["1"].gradients
    assert gradients.keys() == select(model.parameters, method.phase.trainable).keys()
    for name, gradient in gradients.items():
        expected = model.parameters[name].grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_teacher_sees_other_values_and_leaves_none_behind(small: Small) -> None:
    plain = run(small, Probe(), steps=2)
    method = Probe(phase=replace(Probe().phase, distils=True))
    distilled = run(small, method, steps=2)
    assert method.seen["same"] == method.seen["again"] == 0.0
    assert method.seen["other"] > 1e-3 and method.seen["offset"] > 1e-3  # type: ignore[operator]
    for name, value in plain.update.state.items():
        assert torch.equal(value, distilled.update.state[name]), name
    assert "distillation" in distilled.report.losses and "distillation" not in plain.report.losses
    assert (
        distilled.report.num_forward_tokens == 4 * distilled.report.num_tokens and not plain.report.num_forward_tokens
    )


def test_a_phase_that_validates_sends_the_trained_models_loss(small: Small) -> None:
    """The cross-entropy of what it sends, on the client's validation part; its tokens went through once, untrained."""
    phase = replace(Probe().phase, validates=True, statistics={VALIDATION_LOSS: (1,)})
    plain, method = run(small, Probe(), steps=2), Probe(phase=phase)
    trained = run(small, method, steps=2)
    assert all(torch.equal(value, trained.update.state[name]) for name, value in plain.update.state.items())
    model = build_client_model(small.backbone, method, phase, INFO, {}, trained.update.state)
    batch = collate(small.validation[INFO.client], small.features, small.backbone.eos_id)
    with torch.no_grad():
        tokens = model.connector(batch.features_BND).tokens_BNC
        loss = float(small.backbone.cross_entropy(tokens, batch.ids_BL, batch.labels_BL))
    assert trained.update.statistics.keys() == {VALIDATION_LOSS}
    assert trained.update.statistics[VALIDATION_LOSS].item() == pytest.approx(loss, rel=1e-5)
    assert not plain.update.statistics and not plain.report.num_forward_tokens
    assert trained.report.num_forward_tokens == batch.ids_BL.numel() + tokens.shape[0] * tokens.shape[1]


def test_the_server_begins_with_what_all_clients_start_from(small: Small) -> None:
    spec, method = small.spec("fedavg"), Probe()
    plan = replace(
        make_plan(spec, method, small.backbone, {k: len(v) for k, v in small.examples.items()}), method=method
    )
    driver = Driver(plan, LocalTransport(lambda client: pytest.fail("nobody is asked")), Ledger(1))
    server = driver._initial_state()
    start = build_client_model(small.backbone, method, method.phase, INFO, {}, {}).state()
    initial = method.seen["initial"]
    assert isinstance(initial, dict) and initial.keys() == select(start, method.phase.shared).keys()
    assert all(torch.equal(value, start[name]) for name, value in initial.items())
    assert server.shared.keys() == prefixed(initial, "start").keys() and method.seen["clients"] == plan.clients


def test_a_part_of_a_group_is_trained_and_sent_alone(small: Small) -> None:
    parts = frozenset({"text_adapter:lora_B", "connector"})
    trained = run(small, Probe(phase=Phase("train", parts, parts)))
    assert {name.rpartition(".")[2] for name in trained.update.state if name.startswith("text")} == {"lora_B"}
    start = build_client_model(small.backbone, Probe(), Probe().phase, INFO, {}, {}).state()
    kept = {name for name in start if name.endswith("lora_A")}
    assert kept and all(torch.equal(trained.private[name], start[name]) for name in kept)


def test_logits_and_targets_belong_together(small: Small) -> None:
    model = build_client_model(small.backbone, Probe(), Probe().phase, INFO, {}, {})
    batch = collate(small.examples[INFO.client][:3], small.features, small.backbone.eos_id)
    with torch.no_grad():
        tokens = model.connector(batch.features_BND).tokens_BNC
        logits_MV, targets_M = small.backbone.logits(tokens, batch.ids_BL, batch.labels_BL)
        loss = small.backbone.cross_entropy(tokens, batch.ids_BL, batch.labels_BL)
    assert sorted(targets_M.tolist()) == sorted(batch.labels_BL[batch.labels_BL != IGNORED].tolist())
    chosen_M = logits_MV.log_softmax(dim=-1)[torch.arange(len(targets_M)), targets_M]
    assert float(-chosen_M.mean()) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("name", ["fedalt", "feddpa"])
def test_a_step_without_labelled_tokens_reaches_every_trained_tensor(small: Small, name: str) -> None:
    """With zeros: routers of a mixture, too, which a first step would otherwise be said to have missed."""
    method = small.spec(name).make_method()
    phase = method.phases(2)[0]
    run = small.trainer(name).begin(PhaseTask(INFO, phase, 2, 0, 1, {}), {})
    batch = collate(small.examples[INFO.client][:2], small.features, small.backbone.eos_id)
    run.compute_gradients([replace(batch, labels_BL=torch.full_like(batch.labels_BL, IGNORED))])
    run.require_gradients()
    assert {name.partition(".")[0] for name in run.trainable} == {group.partition(":")[0] for group in phase.trainable}
    assert not any(bool(parameter.grad.any()) for parameter in run.trainable.values() if parameter.grad is not None)
    small.backbone.mix(None)


def test_a_client_counts_messages_and_no_empty_ones(small: Small, tmp_path: Path) -> None:
    """Each has fresh noise; a phase that sends nothing has none."""
    trained = run(small, Probe())
    client = Participant(lambda task, stored: trained, ClientStore(tmp_path), fresh_noise=True)
    empty = replace(trained, update=replace(trained.update, state={}))
    quiet = replace(client, train=lambda task, stored: empty)
    task = PhaseTask(INFO, Probe().phase, 1, 0, 1, {})
    assert [each.run(task).releases for each in (client, quiet, client, quiet)] == [1, 0, 2, 0]
