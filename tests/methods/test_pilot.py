"""Pilot: phases, what each client receives, and what the server makes of updates."""

from dataclasses import replace

import pytest
import torch

from pilot.connector.base import set_trainable
from pilot.connector.projector import Projector
from pilot.methods.base import ClientInfo, Phase, ServerState, State, Update, group_of, select
from pilot.methods.pilot import Pilot

TASKS = ("vqa", "caption", "ground")


def client(number: int, task: str) -> ClientInfo:
    return ClientInfo(client=number, task=task, tasks=TASKS, seed=0)


def update(number: int, task: str, count: int, visual: float, text: float) -> Update:
    state = {
        "task_adapter.linear_1.weight": torch.tensor([visual]),
        "text_adapter.q.lora_A": torch.tensor([[text]]),
    }
    return Update(number, task, count, state)


UPDATES = [update(0, "vqa", 1, 0.0, 0.0), update(1, "vqa", 3, 4.0, 1.0), update(2, "caption", 2, 7.0, 3.0)]


def values(state: State) -> dict[str, float]:
    return {name: value.item() for name, value in state.items()}


def test_round_one_has_two_stages_of_half_the_steps() -> None:
    stage1, stage2 = Pilot().phases(1)
    assert (stage1.name, stage1.share_of_steps, stage2.name, stage2.share_of_steps) == (
        "stage1",
        0.5,
        "stage2",
        0.5,
    )
    assert stage1.trainable == {"task_adapter", "client_adapter", "text_adapter"}
    assert stage2.trainable == {"task_adapter", "cross_task_adapter", "router", "text_adapter"}
    assert stage1.shared == stage2.shared == {"task_adapter", "text_adapter"}
    assert stage1.loss_weights == {"difference": 0.1}
    assert stage2.loss_weights == {"load_balance": 0.1, "router_z": 0.01}
    (later,) = Pilot().phases(2)
    assert (later.name, later.share_of_steps) == ("stage2", 1.0)


def test_who_missed_round_one_takes_stage_one_when_it_first_takes_part() -> None:
    assert Pilot().newcomer_phases(1) == Pilot().phases(1)
    stage1, stage2 = Pilot().newcomer_phases(4)
    assert stage1 == replace(Pilot().phases(1)[0], shared=frozenset(), discarded=Pilot().phases(1)[0].shared)
    assert stage2 == Pilot().phases(1)[1]
    for without in (Pilot(late_stage1=False), Pilot(stage1=False)):
        assert without.newcomer_phases(4) == without.phases(4)


def test_options_change_the_phases() -> None:
    assert [phase.name for phase in Pilot(stage1=False).phases(1)] == ["stage2"]
    assert Pilot(difference_loss=False).phases(1)[0].loss_weights == {"difference": 0.0}
    assert "cross_task_adapter" not in Pilot(cross_task_adapters=False).phases(2)[0].trainable
    for bad in ({"lambda0": -1.0}, {"num_neighbors": 0}, {"self_weight": 2.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Pilot(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"cross_task_adapters": False}, {"stage1": False}, {"adapter_init": "copy"}])
def test_gradients_reach_exactly_the_trainable_groups_and_terms_have_weights(
    options: dict[str, object],
) -> None:
    method = Pilot(**options)  # type: ignore[arg-type]
    for phase in method.phases(1):
        connector = method.make_connector(phase, client(3, "caption"), Projector(4, 6))
        set_trainable(connector, phase.trainable)
        output = connector(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)))
        assert output.terms.keys() == phase.loss_weights.keys()
        (output.tokens_BNC.square().sum() + sum(output.terms.values())).backward()
        reached = {group_of(name) for name, p in connector.named_parameters() if p.grad is not None}
        assert reached == phase.trainable - {"text_adapter"}


def test_the_server_averages_within_tasks_and_mixes_text_between_near_clients() -> None:
    phase = Pilot().phases(1)[0]
    server = Pilot(num_neighbors=1, self_weight=0.5).aggregate(phase, UPDATES[::-1], ServerState())
    # Task adapters: vqa (1 * 0 + 3 * 4) / 4 = 3, caption 7.
    assert values(server.shared) == {
        "task_adapter.vqa.linear_1.weight": 3.0,
        "task_adapter.caption.linear_1.weight": 7.0,
    }
    # Texts 0, 1, 3, nearest others 1, 0, 1: 0.5, 0.5, 2.
    assert {k: state["text_adapter.q.lora_A"].item() for k, state in server.per_client.items()} == {
        0: 0.5,
        1: 0.5,
        2: 2,
    }
    assert server.record == {
        "clients": [0, 1, 2],
        "distances": [[0, 1, 3], [1, 0, 2], [3, 2, 0]],
        "neighbours": {"0": [1], "1": [0], "2": [1]},
        "weights": {"0": [1.0], "1": [1.0], "2": [1.0]},
        "self_weights": {"0": 0.5, "1": 0.5, "2": 0.5},
    }


def test_a_client_receives_its_own_text_and_in_stage_two_every_task_adapter_under_its_models_names() -> None:
    method = Pilot(num_neighbors=1, self_weight=0.5)
    stage1, stage2 = method.phases(1)
    assert method.payload(ServerState(), client(0, "vqa"), stage1) == {}
    server = method.aggregate(stage1, UPDATES, ServerState())
    assert values(method.payload(server, client(2, "caption"), stage2)) == {
        "text_adapter.q.lora_A": 2.0,
        "task_adapter.linear_1.weight": 7.0,
        "peer_task_adapter.0.linear_1.weight": 3.0,
    }
    assert "peer_task_adapter.1.linear_1.weight" in method.payload(server, client(0, "vqa"), stage2)


def test_experts_of_the_own_task_need_no_other_adapter() -> None:
    method, phase = Pilot(experts="own_task"), Pilot().phases(2)[0]
    server = method.aggregate(phase, UPDATES, ServerState({}, {}))
    received = method.payload(server, client(0, "vqa"), phase)
    assert {group_of(name) for name in received} == {"task_adapter", "text_adapter"}
    assert received.keys() < Pilot().payload(server, client(0, "vqa"), phase).keys()
    with pytest.raises(ValueError, match="experts: 'own_task' needs cross_task_adapters"):
        Pilot(experts="own_task", cross_task_adapters=False)


def test_payload_names_are_names_of_the_clients_model() -> None:
    method = Pilot()
    projector, infos = Projector(4, 6), [client(k, task) for k, task in enumerate(TASKS)]
    phases: list[Phase] = [*method.phases(1), *method.phases(2)]
    server = ServerState()
    for phase in phases:
        updates = []
        for info in infos:
            connector = method.make_connector(phase, info, projector)
            names = dict(connector.named_parameters())
            received = select(method.payload(server, info, phase), {group_of(name) for name in names})
            assert all(value.shape == names[name].shape for name, value in received.items())
            text = {"text_adapter.q.lora_A": torch.ones(1, 2) * info.client}
            state = select(connector.state_dict(), phase.shared) | text
            updates.append(Update(info.client, info.task, 1, state))
        server = method.aggregate(phase, updates, server)
    assert sum(name.startswith("peer_task_adapter.") for name in method.payload(server, infos[0], phases[-1])) == 8


def test_an_absent_task_or_client_keeps_what_it_had() -> None:
    method = Pilot(num_neighbors=1, self_weight=0.5)
    phase = method.phases(2)[0]
    before = method.aggregate(phase, UPDATES, ServerState())
    after = method.aggregate(phase, UPDATES[:2], before)
    assert after.shared["task_adapter.caption.linear_1.weight"].item() == 7.0
    assert after.per_client[2]["text_adapter.q.lora_A"].item() == 2.0
    assert before.per_client.keys() == {0, 1, 2}


def test_without_ata_text_is_averaged_over_all_clients() -> None:
    method = Pilot(adaptive_text_aggregation=False)
    phase = method.phases(2)[0]
    server = method.aggregate(phase, UPDATES, ServerState())
    # (1 * 0 + 3 * 1 + 2 * 3) / 6 = 1.5
    for number, task in enumerate(("vqa", "vqa", "caption")):
        assert method.payload(server, client(number, task), phase)["text_adapter.q.lora_A"].item() == 1.5
