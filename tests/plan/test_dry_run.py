"""What methods are asked, beside what their runs kept and values worked out by hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from baselines.fedavg import FedAvg
from pilot.errors import UserError
from pilot.methods.base import ClientInfo, Mean, Phase, ServerState, State, Update, belongs, weighted_mean
from pilot.methods.catalogue import METHODS
from pilot.plan.architecture import Architecture, architecture_of
from pilot.plan.dry_run import dry_run_method
from pilot.plan.miniature import Miniature
from pilot.plan.plan import plan_run

from ..marks import DIFFERENT, few_of
from ..small import Small
from .asked import TASKS, planned

# C = 4, F = 6, K = 2, D = 3. Rank 2, two layers: A has 120 numbers, B 112, all linear layers 240; a connector has 36.
SMALL = Architecture(
    text_layers=2, text_hidden=4, text_intermediate=6, text_heads=2, text_kv_heads=1, vision_hidden=3
)  # fmt: skip
LORA_A, LORA, MLP = 120, 232, 36
PLAIN = LORA + MLP


def asked(name: str, **options: Any) -> Any:
    """The plan of a method on the small architecture with six clients."""
    return planned(name, SMALL, 2, options, 6)


PASSING = {"feddpa": {"received"}, "lora_a2": {"connector", "selected"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", few_of(DIFFERENT, METHODS))
def test_what_stays(small: Small, name: str) -> None:
    """Every tensor that a client stored belongs to a group that is named, and every group has one.

    What `PASSING` lists is stored between the two phases of a round only.
    """
    stays = set(plan_run(small.spec(name), architecture_of(small.profile)).stays)
    assert stays >= (passing := PASSING.get(name, set()))
    stays -= passing
    stored = set()
    for path in small.run(name).glob("clients/*/*.safetensors"):
        with safe_open(path, "pt") as file:
            stored |= set(file.keys())
    assert all(belongs(tensor, stays) for tensor in stored)
    assert all(any(belongs(tensor, {group}) for tensor in stored) for group in stays)


def test_options_change_what_is_kept() -> None:
    assert asked("pilot", stage1=False, experts="own_task").stays == ("cross_task_adapter", "router")
    assert asked("pilot", cross_task_adapters=False).stays == ("client_adapter", "router")
    # A text adapter per client, or one of all.
    assert asked("pilot").server == 6 * LORA + 3 * MLP
    assert asked("pilot_fedavg_text").server == LORA + 3 * MLP
    assert asked("taskavg").server == 3 * PLAIN
    assert asked("fedmosaic").server == 7 * PLAIN
    # The initial A, the mean, and a rank for each client.
    assert asked("flexlora").server == LORA_A + PLAIN + 6


def test_parts_of_groups() -> None:
    plan = asked("ffa_lora")
    assert (plan.leaves, plan.stays) == (("text_adapter:lora_B", "connector"), ("text_adapter:lora_A",))
    assert [phase.up for phase in plan.phases(1)] == [PLAIN - LORA_A]


def test_rounds_differ() -> None:
    """Nothing is sent down first; SCAFFOLD's controls are, afterwards, and stay until the last round."""
    first, second = (asked("scaffold").phases(number)[0] for number in (1, 2))
    assert (first.down, first.up, second.down, second.up) == (0, 2 * PLAIN, 2 * PLAIN, 2 * PLAIN)
    assert [[phase.name for phase in asked("pilot").phases(number)] for number in (1, 2)] == [
        ["stage1", "stage2"], ["stage2"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("fedavg", 0),
        ("fedprox", PLAIN),  # the difference
        ("pfedme", PLAIN),
        ("scaffold", 4 * PLAIN),  # both controls, their difference in one vector, the sum of gradients
        ("feddyn", 3 * PLAIN),  # h_k as kept and in one vector, the difference
        ("hetlora", 2 * LORA),  # in float64
        ("flora", 0),
    ],
)
def test_copies_of_objectives(name: str, held: int) -> None:
    assert asked(name).phases(2)[0].extra_copies == held


def test_copies_of_personal_models() -> None:
    """Ditto's anchor and the difference to it; a single copy of no model in its global phase."""
    assert [phase.extra_copies for phase in asked("ditto").phases(2)] == [0, 2 * PLAIN]


def test_experts() -> None:
    """All six experts at first, then the five that equal activations need for 0.8 of their mass; a loss, six shares."""
    first, second = (asked("fedmoe", num_experts=6).phases(number)[0] for number in (1, 2))
    assert (first.num_experts, first.trained, first.up) == (6, LORA + 6 * (MLP + 3), LORA + 6 * (MLP + 3) + 7)
    assert (second.num_experts, second.down) == (5, LORA + 5 * (MLP + 3))
    assert asked("fedmoe").upper_bound


def test_equal_ranks_are_exact() -> None:
    """Unless HetLoRA prunes."""
    assert asked("flexlora").upper_bound
    assert not asked("flexlora", ranks=(1.0,)).upper_bound
    assert asked("hetlora", ranks=(1.0,)).upper_bound
    assert not asked("hetlora", ranks=(1.0,), gamma=1.0).upper_bound


@dataclass(frozen=True, kw_only=True)
class Flat(FedAvg):
    """A server that keeps everything as one vector, whose full size a miniature does not tell."""

    name: ClassVar[str] = "flat"

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Join all tensors."""
        return ServerState({"flat": torch.cat([value.flatten() for value in next(iter(updates)).state.values()])})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Send nothing."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Valued(FedAvg):
    """A penalty that looks at values, which a plan cannot compute at full size."""

    name: ClassVar[str] = "valued"

    def penalty(self, trainable: State, received: State) -> Tensor | None:
        """Decide by a value."""
        return None if next(iter(trainable.values())).sum().item() > 0 else torch.zeros(())


def test_sizes_that_are_not_known_are_refused() -> None:
    clients = [ClientInfo(0, "one", TASKS, 0)]
    with pytest.raises(UserError, match=r"flat: cannot be planned: size \d+ of its shape"):
        dry_run_method(Flat(), Miniature(SMALL, 2, 1), clients, 3)


def test_penalties_that_need_values() -> None:
    """They are assumed to keep a copy of what is trained."""
    clients = [ClientInfo(0, "one", TASKS, 0)]
    assert dry_run_method(Valued(), Miniature(SMALL, 2, 1), clients, 3).phases(2)[0].extra_copies == PLAIN
