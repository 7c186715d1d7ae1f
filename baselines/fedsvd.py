"""FedSVD. Lee et al., "FedSVD: Adaptive Orthogonalization for Private Federated Learning with LoRA", 2025,
arXiv 2505.12805.

Clients train and send B under a common A. Server, for every layer, with B = sum_k (n_k / n) B_k:

    B A = U S V^T;   A <- V^T (r, I),   B <- U S (O, r).

B A has rank r at most, so that nothing is lost: the average is exact, and A's rows become orthonormal directions of
the update. B travels up, A and B down.

Deviations: the first A is the profile's LoRA initialisation, which clients send in round 1 along with B, although the
server could draw it from the seed; it is not orthonormal before the first aggregation. Signs of the SVD are fixed (the
entry of largest magnitude in every column of B is positive). Where B A has a lower rank than r, the remaining rows of A
keep their values before the round and their columns of B are zero. The connector, which the paper's models lack, is
averaged. The paper adds noise to clipped gradients of every example; here privacy is the profile's (`federation`).
AdamW instead of SGD, like every method here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pilot.methods.averaging import PLAIN_GROUPS, Averaging, mean_of_updates
from pilot.methods.base import ClientInfo, Mean, Phase, ServerState, State, Update, select, weighted_mean
from pilot.methods.lora_products import A, B, complete_pair, layers_of, pair_of, product_svd

TRAINED = frozenset({B, "connector"})


@dataclass(frozen=True, kw_only=True)
class FedSvd(Averaging):
    """Averaging of B and the connector; the server turns A into orthonormal directions."""

    name: ClassVar[str] = "fedsvd"
    mean_product: ClassVar[bool] = True

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, in which A is frozen; in round 1 it is sent as well."""
        return (Phase(name="train", trainable=TRAINED, shared=PLAIN_GROUPS if round_number == 1 else TRAINED),)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the first A, which the server needs if round 1 is skipped."""
        return ServerState(select(initial, {A}))

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the global model; nothing before the first aggregation."""
        return dict(server.shared) if select(server.shared, {B}) else {}

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average, then factorise every layer's product anew."""
        shared = {**server.shared, **mean_of_updates(updates, phase.shared, mean)}
        for layer in layers_of(shared):
            a_RI, b_OR = pair_of(shared, layer)
            u_OK, s_K, v_KI = product_svd(b_OR, a_RI)
            shared |= complete_pair(layer, v_KI, u_OK * s_K, shared[f"text_adapter.{layer}.lora_A"])
        return ServerState(shared)
