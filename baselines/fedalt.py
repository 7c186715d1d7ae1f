"""FedALT. Bian et al., "FedALT: Federated Fine-Tuning Through Adaptive Local Training with Rest-of-World LoRA", AAAI
2026, arXiv 2503.11880.

Each layer of client k's LLM has two LoRAs, its own and one of the others, weighted for each token:

    y = W x + s (g_1 B_k A_k x + g_2 B_R A_R x),    g = softmax(G_k x)

Client k trains A_k, B_k and G_k and sends A_k and B_k; it goes on from its own, never from a mean. Server, for each
client, over the other clients' last factors:

    A_R = mean_(j != k) A_j,   B_R = mean_(j != k) B_j

Deviations: the connector, which text-only LLMs lack, is averaged as FedAvg does. Before anybody has sent, A_R = B_R =
0. G begins with zeros (the authors' code: PyTorch's initial values), so that both weights begin with 1/2. All clients
begin with the seed's A, the authors' each with its own. A robust aggregation replaces the connector's mean only. AdamW,
like every method here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

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
    select,
    weighted_mean,
)
from pilot.methods.mixed_lora import OWN, ROUTER, Mixture, as_other

CONNECTOR = frozenset({"connector"})


@dataclass(frozen=True, kw_only=True)
class FedAlt(Method):
    """The client's own LoRA and the mean of the others', mixed by a router of each layer."""

    name: ClassVar[str] = "fedalt"
    single_model: ClassVar[bool] = False

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        phase = Phase(name="train", trainable=PLAIN_GROUPS | {ROUTER}, shared=PLAIN_GROUPS)
        return (phase if round_number == 1 else replace(phase, starts_from="own training"),)

    def mixture(self, phase: Phase, received: State) -> Mixture:
        """Return both LoRAs."""
        return Mixture(choices=(0, 1))

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send LoRA and connector; keep LoRA and the routers."""
        return SplitResult(select(result.end, phase.shared), select(result.end, {OWN, ROUTER}))

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the mean of the other clients' LoRA, and the connector."""
        others = [(state, 1.0) for number, state in sorted(server.per_client.items()) if number != client.client]
        return {**server.shared, **(as_other(weighted_mean(others), 1) if others else {})}

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average the connector; keep every client's last LoRA."""
        sent = list(updates)
        own = {update.client: select(update.state, {OWN}) for update in sent}
        return ServerState(mean_of_updates(sent, CONNECTOR, mean), {**server.per_client, **own})
