"""FedDAT. Chen et al., "FedDAT: An Approach for Foundation Model Finetuning in Multi-Modal Heterogeneous Federated
Learning", AAAI 2024, arXiv 2308.12305.

A client has a shared adapter, a private one, and a frozen copy (^) of the shared one as received. Here an adapter is
LoRA B A and a connector psi. The gated model (dual-adapter teacher) averages the frozen copy and the private adapter:

    W + s (B^ A^ + B_p A_p) / 2,   x = (psi^(H) + psi_p(H)) / 2.

Phase `shared` trains (B A, psi) on   L_ce + T^2 KL(gated || shared);
phase `private` trains (B_p A_p, psi_p) inside the gated model on   L_ce + T^2 KL(shared || gated),
KL between softmaxes of logits / T over the labelled tokens, its first argument without gradient. The shared adapter
leaves the client and is averaged: sum_k (n_k / n) theta_k. The gated model with the newest shared adapter is evaluated.

Deviations:

- The paper takes both steps on every batch. Here the phases follow each other with half of the round's steps each, so
  that a client does not train longer than with other methods. The gated teacher of `shared` is therefore the one at
  the round's start, the shared teacher of `private` the locally trained one; both are fixed.
- LoRA replaces the bottleneck adapters; the connector is part of the adapter.
- L_ce + KL, not half of it: the factor has almost no effect with AdamW and gradient clipping.
- B_p / 2 is trained and stored, so that the gated LoRA is an offset plus the model's own LoRA: with AdamW, twice the
  paper's step on B_p. The private adapter starts like the shared one (same A, B zero).
- If an update of `shared` was lost and a client lacks its teacher, `private` uses the last one, or no KL term.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pilot.connector.base import Connector
from pilot.connector.dual import DualConnector
from pilot.connector.projector import Projector
from pilot.methods.averaging import PLAIN_GROUPS, mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Method,
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
from pilot.methods.lora_products import B, layers_of, pair_of

GATED, ALONE = (0.5, 0.5), (1.0, 0.0)
PRIVATE, RECEIVED, TRAINED = "private_adapter", "received", "trained"  # kept by a client besides its connector
KEPT = frozenset({PRIVATE, RECEIVED, TRAINED})


@dataclass(frozen=True, kw_only=True)
class FedDat(Method):
    """FedDAT as described in the module's docstring.

    Attributes:
        temperature: T, above 0.
    """

    name: ClassVar[str] = "feddat"
    single_model: ClassVar[bool] = False
    offsets: ClassVar[bool] = True

    temperature: float = 3.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return `shared`, then `private`, with half of the steps each."""
        own = frozenset({"text_adapter", "private_connector"})
        return (
            Phase("shared", PLAIN_GROUPS, PLAIN_GROUPS, auxiliary=KEPT, share_of_steps=0.5, distils=True),
            Phase("private", own, frozenset(), auxiliary=KEPT, share_of_steps=0.5, distils=True),
        )

    def final_phase(self, rounds: int) -> Phase:
        """Return `gated`, which trains nothing: the model of `private` on the newest shared adapter."""
        return Phase("gated", frozenset(), frozenset(), auxiliary=KEPT)

    def make_connector(
        self, phase: Phase, client: ClientInfo, projector: Projector, received: State | None = None
    ) -> Connector:
        """Build both connectors; only the shared one is active in phase `shared`."""
        return DualConnector(projector, ALONE if phase.name == "shared" else GATED)

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the shared adapter; nothing in phase `private`, for which clients have kept it."""
        return {} if phase.name == "private" else dict(server.shared)

    def initial_state(self, phase: Phase, client: ClientInfo, stored: State, payload: State) -> State:
        """Load the shared adapter as the model's own in `shared`, else as half an offset under the private one."""
        own = select(stored, {"private_connector"})
        if phase.name == "shared":
            return {**own, **payload}
        copy = payload or unprefixed(stored, RECEIVED)
        return {**own, **unprefixed(stored, PRIVATE), **select(copy, {"connector"}), **half_products(copy)}

    def distillation(
        self, phase: Phase, logits_MV: Tensor, received: State, logits_of: Callable[[State], Tensor]
    ) -> Tensor:
        """Compute T^2 KL(teacher || model in training), the mean over tokens."""
        gate = received["gate.weight"]
        if phase.name == "shared":
            start = select(received, PLAIN_GROUPS)
            untrained = {name: torch.zeros_like(value) for name, value in select(start, {B}).items()}
            private = unprefixed(received, PRIVATE) or untrained
            teacher = {**start, **half_products(start), **private, "gate.weight": gate.new_tensor(GATED)}
        else:
            shared = unprefixed(received, TRAINED)
            if not shared:
                return logits_MV.new_zeros(())
            blank = {name: torch.zeros_like(value) for name, value in select(received, {"offset"}).items()}
            teacher = {**blank, **shared, "gate.weight": gate.new_tensor(ALONE)}
        scaled = (logits.float() / self.temperature for logits in (logits_MV, logits_of(teacher)))
        model_MV, teacher_MV = (logits.log_softmax(dim=-1) for logits in scaled)
        divergence = functional.kl_div(model_MV, teacher_MV, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the shared adapter after `shared`; keep it as received and as trained for `private`."""
        if phase.name == "shared":
            before, after = select(result.start, PLAIN_GROUPS), select(result.end, PLAIN_GROUPS)
            return SplitResult(after, {**result.stored, **prefixed(before, RECEIVED), **prefixed(after, TRAINED)})
        own = prefixed(select(result.end, {"text_adapter"}), PRIVATE) | select(result.end, {"private_connector"})
        return SplitResult({}, {**result.stored, **own})

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average the shared adapters after `shared`; keep the state after `private`."""
        if phase.name == "private":
            return ServerState(server.shared, server.per_client)
        return ServerState(mean_of_updates(updates, phase.shared, mean))


def half_products(state: State) -> State:
    """Compute B A / 2 of every LoRA pair as an offset in float32, with one layer in float64 at a time."""
    pairs = ((layer, *pair_of(state, layer)) for layer in layers_of(state))
    return {f"offset.{layer}.weight": (b_OR @ a_RI / 2).float() for layer, a_RI, b_OR in pairs}
