"""FedDPA-T. Yang et al., "Dual-Personalizing Adapter for Federated Foundation Models", NeurIPS 2024, arXiv 2403.19211.

Client k has a local LoRA (A_k, B_k) beside the global one (A, B). Per round, from the second on:

    local    half of the steps on A_k, B_k:    y = W x + s (1/2 B_k A_k x + 1/2 B A x), with the global one frozen
    global   the other half on A, B alone, and on the connector; FedAvg with the numbers of examples

In the first round all steps are global. While no round has been aggregated, the global phase starts from the seed's
model. At test, for a question of feature f and the client's S training questions,

    y = W x + s (a B_k A_k x + (1 - a) B A x),    a = weight mean_i cos(f, f_i)

The local LoRA never leaves the client.

Deviations: f is the mean of the frozen embeddings of a question's tokens; the authors' is the last token's last hidden
state with the local LoRA. The mean is over all questions of the last local steps instead of five that are drawn anew
for each test question. The authors' code gives a to the global LoRA and 1 - a to the local one (`reverse`), although
the paper motivates the opposite; at the default weight both are near 1/2. Both phases share the round's steps. The
connector, which text-only LLMs lack, belongs to the global phase. The authors average with equal weights. AdamW.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
    unprefixed,
    weighted_mean,
)
from pilot.methods.mixed_lora import OTHERS, OWN, QUESTION, Mixture, as_other

LOCAL, GLOBAL, ANSWER = "local", "global", "answer"
PERSONAL, RECEIVED = "personal", "received"


@dataclass(frozen=True, kw_only=True)
class FedDpa(Averaging):
    """Averaging, and a local LoRA per client that answers together with the global one.

    Attributes:
        weight: largest weight of the LoRA that the similarity favours, in 0..1.
        reverse: whether that is the global LoRA, as in the authors' code.
    """

    name: ClassVar[str] = "feddpa"
    single_model: ClassVar[bool] = False
    mixes_answers: ClassVar[bool] = True

    weight: float = 0.5
    reverse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight: expected a number in 0..1, got {self.weight}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the global phase alone in round 1, later the local one and the global one with half of the steps."""
        last = Phase(name=GLOBAL, trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS)
        if round_number == 1:
            return (last,)
        first = Phase(name=LOCAL, trainable=frozenset({OWN}), shared=frozenset(), share_of_steps=0.5, questions=True)
        return first, replace(last, share_of_steps=0.5, starts_from="earlier payloads")

    def final_phase(self, rounds: int) -> Phase:
        """Return the phase in which both LoRAs answer."""
        return Phase(name=ANSWER, trainable=frozenset(), shared=frozenset())

    def mixture(self, phase: Phase, received: State) -> Mixture | None:
        """Return both LoRAs with equal weights in local training, by the question in answers."""
        if phase.name == GLOBAL:
            return None
        if phase.name == LOCAL:
            return Mixture((0, 1), weigh=equal_weights)
        return Mixture((0, 1), weigh=partial(weights, self.weight, self.reverse), references=("own",))

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load the global model to train it, the local LoRA otherwise; it begins with the seed's values."""
        if phase.name == GLOBAL:
            return payload or unprefixed(stored, RECEIVED)
        kept = select(stored, {QUESTION}) if phase.name == ANSWER else {}
        return {**unprefixed(stored, PERSONAL), **kept, **payload}

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the global model; keep the local LoRA, its questions' feature and, until sent, the received model."""
        if phase.name == GLOBAL:
            return SplitResult(select(result.end, phase.shared), select(result.stored, {PERSONAL, QUESTION}))
        others = select(result.payload, {OTHERS})
        model = {name.replace(f"{OTHERS}.1", OWN, 1): value for name, value in others.items()}
        model |= select(result.payload, {"connector"})
        own = prefixed(select(result.end, {OWN}), PERSONAL)
        return SplitResult({}, {**own, **select(result.end, {QUESTION}), **prefixed(model, RECEIVED)})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model before the local phase and for answers; the global phase uses the same again."""
        if phase.name == GLOBAL:
            return {}
        return {**select(server.shared, {"connector"}), **as_other(select(server.shared, {OWN}), 1)}

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average as FedAvg after the global phase; keep the model after the local one."""
        return ServerState(server.shared) if phase.name == LOCAL else super().aggregate(phase, updates, server, mean)


def equal_weights(features_BD: Tensor, references: Mapping[str, Tensor]) -> Tensor:
    """Return 1/2 and 1/2 for each of B questions."""
    return torch.full((len(features_BD), 2), 0.5, device=features_BD.device)


def weights(weight: float, reverse: bool, features_BD: Tensor, references: Mapping[str, Tensor]) -> Tensor:
    """Return the weights (B, 2) of the local and the global LoRA; without questions of one's own, 0 and 1."""
    own_D = references["own"]
    favoured = weight * (features_BD @ own_D)
    local = 1 - favoured if reverse and own_D.any() else favoured
    return torch.stack([local, 1 - local], dim=1)
