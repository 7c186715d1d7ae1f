"""FediLoRA. Yang et al., "FediLoRA: Heterogeneous LoRA for Federated Multimodal Fine-tuning under Missing Modalities",
IJCAI 2026, arXiv 2509.06984.

Client k trains LoRA of rank r_k. Server, for row j of A and column j of B over the clients that hold it:

    A[j] = sum_(k: r_k > j) n_k A_k[j] / sum_(k: r_k > j) n_k,   B[:, j] likewise;   client k receives the first r_k.

From its second round on, a client edits one layer before it sends: of all layers the one whose A has the smallest
cosine c with the A that it received, if c < `limit`:   A <- (1 - c) A_received + c A.

Deviations: in the authors' code columns of B above the smallest participant's rank come from the first client alone,
and s = alpha / r_k differs by client while the server evaluates with one s; here columns are averaged like rows, as
described, and s is that of the profile's rank for all. A client's first round is the first in which it has received
trained factors. Ranks are fractions of the profile's rank by client id. Rows that no participant of a round holds
restart, A at its initial values and B at zero, if any client has their rank. The connector is averaged. AdamW, like
every method here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.nn import functional

from pilot.methods.averaging import mean_of_updates
from pilot.methods.base import (
    ClientInfo,
    Mean,
    Phase,
    PhaseResult,
    ServerState,
    SplitResult,
    State,
    Update,
    select,
    sort_by_client,
    unprefixed,
    weighted_mean,
)
from pilot.methods.lora_products import A, B, lora_rank, pad_rank, reset_dead_rows
from pilot.methods.ranks import OWN, START, HeterogeneousRanks

EDIT = "train_and_edit"


@dataclass(frozen=True, kw_only=True)
class FediLora(HeterogeneousRanks):
    """FediLoRA as described in the module's docstring.

    Attributes:
        limit: cosine from which on no layer is edited, in -1..1; -1 never edits.
    """

    name: ClassVar[str] = "fedilora"

    limit: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.limit <= 1:
            raise ValueError(f"limit: expected a number in -1..1, got {self.limit}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round, after round 1 named for the edit that ends it."""
        (phase,) = super().phases(round_number)
        return (phase if round_number == 1 else replace(phase, name=EDIT),)

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the connector, and LoRA at the client's rank with one layer edited."""
        split = super().split_result(phase, client, result)
        if phase.name != EDIT or not select(result.payload, {B}):
            return split
        return SplitResult({**split.shared, **edited(split.shared, result.payload, self.limit)}, split.private)

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average rows and columns over the clients that hold them."""
        updates = sort_by_client(updates)
        start = unprefixed(server.shared, START)
        texts = [select(update.state, {"text_adapter"}) for update in updates]
        ranks, lower, bands = [lora_rank(text) for text in texts], 0, []
        for upper in sorted(set(ranks)):
            holders = (k for k, rank in enumerate(ranks) if rank >= upper)
            bands.append(mean((_band(texts[k], lower, upper), updates[k].num_examples) for k in holders))
            lower = upper
        text = {
            name: torch.cat([band[name] for band in bands], dim=0 if name.endswith("A") else 1) for name in bands[0]
        }
        most = max(int(state[OWN]) for state in server.per_client.values())
        text = reset_dead_rows(pad_rank(text, lora_rank(start)), start, most)
        shared = {**select(server.shared, {START}), **text, **mean_of_updates(updates, {"connector"}, mean)}
        return ServerState(shared, server.per_client)


def edited(state: State, received: State, limit: float) -> State:
    """Return the A that is least like the received one, moved towards it; nothing if all are at least `limit` alike."""
    pairs = {name: (value.double(), received[name].double()) for name, value in sorted(select(state, {A}).items())}
    cosines = {
        name: float(functional.cosine_similarity(own.flatten(), a.flatten(), 0)) for name, (own, a) in pairs.items()
    }
    name = min(cosines, key=lambda each: cosines[each])
    share = cosines[name]
    if share >= limit:
        return {}
    own_RI, received_RI = pairs[name]
    return {name: ((1 - share) * received_RI + share * own_RI).to(state[name].dtype)}


def _band(text: State, lower: int, upper: int) -> State:
    """Return the rows of every A and the columns of every B from `lower` up to `upper`."""
    return {name: value[lower:upper] if name.endswith("A") else value[:, lower:upper] for name, value in text.items()}
