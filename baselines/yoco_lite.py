"""YOCO with a plain mean. Xu et al., "You Only Communicate Once: One-shot Federated Low-Rank Adaptation of MLLM",
NeurIPS 2025.

Every client trains alone for the whole run and sends its model once, in the last round. LoRA starts from the largest
singular values of each weight, W_r = U S V^T:

    B_0 = U S^1/2,  A_0 = S^1/2 V^T,   client: L_ce + mean_layers R(B) + lambda mean_layers ||A||_1
    R(B) = ||tanh(gamma B) - sign(B_0)|| / ||sign(B_0)||,   gamma from 1 to `gamma` along a cosine

Server: FedAvg over the clients that take part in the last round; what others have trained is lost. Until then every
client answers with its own model.

Deviations: the paper averages A with weights from principal components, whose formula could not be read and is not in
its code (hence "lite"); its rule for B differs by setting, and FedAvg is one of them. The authors adapt one layer; here
both terms are means over layers. They leave W as it is, so that their start is W + W_r; here an offset takes B_0 A_0
away again, and training starts from W. Their code decays ||A^T A - I||^2 where the paper has the L1 norm. gamma changes
by round, not by step. AdamW starts anew in every round. The connector is trained and averaged as well.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    prefixed,
    select,
    weighted_mean,
)
from pilot.methods.lora_products import A, B

SIGNS, PROGRESS = "signs", "progress"
ROUNDS_DONE = f"{PROGRESS}.rounds"
EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class YocoLite(Averaging):
    """YOCO as described in the module's docstring.

    Attributes:
        gamma: the last one, at least 1.
        sparsity: lambda, at least 0.
        send_after: round in which clients send their models; 0, or a later one than the run's last: the last. An
            earlier one is refused: after it, nothing that clients train would count.
    """

    name: ClassVar[str] = "yoco_lite"
    single_model: ClassVar[bool] = False
    offsets: ClassVar[bool] = True
    starts_from_weights: ClassVar[bool] = True

    gamma: float = 25.0
    sparsity: float = 1e-4
    send_after: int = 0

    def __post_init__(self) -> None:
        if not self.gamma >= 1:
            raise ValueError(f"gamma: expected a number of at least 1, got {self.gamma}")
        for name in ("sparsity", "send_after"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")

    def for_rounds(self, rounds: int) -> "YocoLite":
        """Return the method with the round in which clients send, the last one."""
        if 0 < self.send_after < rounds:
            raise ValueError(
                f"send_after: expected 0 or at least {rounds}, the number of rounds, got {self.send_after}: what later "
                "rounds train would not be sent. Leave it out, or lower the number of rounds"
            )
        return replace(self, send_after=min(self.send_after or rounds, rounds))

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase on LoRA and connector, which are sent once."""
        shared = PLAIN_GROUPS if round_number == self.send_after else frozenset()
        auxiliary = frozenset({SIGNS, PROGRESS})
        phase = Phase(name="train", trainable=PLAIN_GROUPS, shared=shared, auxiliary=auxiliary)
        return (phase if round_number == 1 else replace(phase, starts_from="own training"),)

    def penalty(self, trainable: State, received: State) -> Tensor:
        """Return the mean over layers of R(B) and lambda ||A||_1."""
        done = float(received[ROUNDS_DONE]) if ROUNDS_DONE in received else 0.0
        gamma = self.gamma_at(done / max(1, self.send_after))
        signs = select(received, {SIGNS}) or signs_of(received)
        apart = [
            (torch.tanh(gamma * value) - signs[f"{SIGNS}.{name}"]).norm() / (signs[f"{SIGNS}.{name}"].norm() + EPSILON)
            for name, value in select(trainable, {B}).items()
        ]
        sizes = [value.abs().sum() for value in select(trainable, {A}).values()]
        return torch.stack(apart).mean() + self.sparsity * torch.stack(sizes).mean()

    def gamma_at(self, share: float) -> float:
        """Compute gamma after a share of the training, in 0..1."""
        return self.gamma - 0.5 * (self.gamma - 1) * (1 + math.cos(math.pi * min(1.0, share)))

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Keep the model, or send it once; keep the first signs and count the rounds."""
        kept = select(result.stored, {SIGNS}) or signs_of(result.start)
        kept[ROUNDS_DONE] = result.stored.get(ROUNDS_DONE, torch.zeros(1)) + 1
        model = select(result.end, PLAIN_GROUPS)
        return SplitResult(model, kept) if phase.shared else SplitResult({}, {**model, **kept})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average as FedAvg what was sent."""
        return super().aggregate(phase, updates, server, mean) if phase.shared else ServerState(server.shared)


def signs_of(state: State) -> State:
    """Return the signs of B."""
    return prefixed({name: value.sign() for name, value in select(state, {B}).items()}, SIGNS)
