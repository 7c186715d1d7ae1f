"""LoRA-A2. Koo, Jang and Ok, "Towards Robust and Efficient Federated Low-Rank Adaptation with Heterogeneous Clients",
ACL 2025, arXiv 2410.22815.

Odd rounds train B with A frozen, even rounds A with B frozen. Each round, client k first trains the factor on trial and
scores every rank i of every of N layers by how much it changed the layer:

    B:  ||dB[:, i]|| ||A[i, :]||,      A:  ||B[:, i]|| ||dA[i, :]||

It takes the N r_k ranks of the highest scores, wherever they are (M_k is 1 for them, 0 for others), returns to the
received model, trains these ranks alone, and sends their changes:

    B <- B + sum_k (n_k / n) M_k dB_k,   A likewise.

Deviations: the paper's sum over clients was read in notes only; a rank that a client has not chosen counts as unchanged
by it. The trial takes the share `trial` of the round's steps, not an epoch beside them. The connector, which text-only
LLMs lack, is not part of the trial, and trained and averaged in every round. Budgets r_k are shares of r. Messages have
one size whatever was chosen, so every change is padded to the longest of all layers. The paper gives B five times the
rate of A; rates by phase are the profile's. Weight decay, if a profile has any, also acts on ranks that were not
chosen; they are not sent. AdamW.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods import chosen_ranks
from pilot.methods.alternating import Alternating, letter
from pilot.methods.averaging import PLAIN_GROUPS
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
    without,
)
from pilot.methods.chosen_ranks import GROUP
from pilot.methods.lora_products import A, B

INITIAL, START = "initial", "start"
FACTORS = frozenset({A, B})


@dataclass(frozen=True, kw_only=True)
class LoraA2(Alternating):
    """LoRA-A2 as described in the module's docstring.

    Attributes:
        budgets: r_k / r, cycled over client ids; at least one rank per layer on average.
        trial: share of a round's steps on trial, above 0 and below 1.
    """

    name: ClassVar[str] = "lora_a2"

    budgets: tuple[float, ...] = (0.5,)
    trial: float = 1 / 3

    def __post_init__(self) -> None:
        if not self.budgets or not all(0 < budget <= 1 for budget in self.budgets):
            raise ValueError(f"budgets: expected numbers above 0 and at most 1, got {self.budgets}")
        if not 0 < self.trial < 1:
            raise ValueError(f"trial: expected a number above 0 and below 1, got {self.trial}")

    def initial_phase(self) -> Phase:
        """Return a phase that would send the whole model."""
        return Phase(name=INITIAL, trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS)

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return the trial on B (odd rounds) or A, which sends nothing, and the training of what it chose."""
        (whole,) = super().phases(round_number)
        factor, chosen = whole.trainable & FACTORS, frozenset({GROUP})
        trial = Phase(f"try_{letter(*factor)}", factor, frozenset(), share_of_steps=self.trial)
        sent = chosen | {"connector"}
        rest = replace(whole, shared=sent, share_of_steps=1 - self.trial, starts_from="earlier payloads")
        return trial, replace(rest, auxiliary=chosen, choices=chosen)

    def final_phase(self, rounds: int) -> Phase:
        """Return the training phase of the last round without training, which gets the model."""
        return Phase(name=self.phases(rounds)[-1].name, trainable=frozenset(), shared=frozenset())

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the model for the trial and for answers; the training starts from what the trial has stored."""
        if phase.choices:
            return {}
        return super().payload(replace(server, shared=without(server.shared, {START})), client, phase)

    def initial_server_state(self, initial: State, clients: Sequence[ClientInfo]) -> ServerState:
        """Store the LoRA that all start from, to which the first changes are added."""
        return ServerState(prefixed(select(initial, FACTORS), START))

    def gradient_masks(self, phase: Phase, received: State) -> State:
        """Return 1 for the chosen rows of A or columns of B, once they are chosen."""
        names = select(received, phase.trainable & FACTORS) if select(received, {GROUP}) else {}
        return {name: chosen_ranks.as_rows(name, received[chosen_ranks.mask_name(name)][:, None]) for name in names}

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """After the trial, keep model and choice; then send connector and changes, and keep the other factor."""
        if phase.name == INITIAL:
            return SplitResult(select(result.end, phase.shared), {})
        start, end = (select(state, phase.trainable & FACTORS) for state in (result.start, result.end))
        changes, frozen = chosen_ranks.changed_rows(start, end), select(result.end, FACTORS - phase.trainable)
        if not phase.choices:
            mask_NR = self.mask(client, chosen_ranks.scores(changes, frozen))
            return SplitResult({}, {**select(result.start, PLAIN_GROUPS), **chosen_ranks.name_masks(mask_NR, end)})
        masks = select(result.stored, {GROUP})
        if not masks:  # without a trial nothing was chosen
            changes = [torch.zeros_like(rows_RX) for rows_RX in changes]
            masks = chosen_ranks.name_masks(self.mask(client, torch.zeros(len(changes), len(changes[0]))), end)
        return SplitResult({**select(result.end, {"connector"}), **chosen_ranks.pack(masks, changes)}, frozen)

    def mask(self, client: ClientInfo, scores_NR: Tensor) -> Tensor:
        """Return M_k (N, r) of a client."""
        return chosen_ranks.choose(
            scores_NR, max(1, round(self.budgets[client.client % len(self.budgets)] * scores_NR.shape[1]))
        )

    def rejection_reason(self, phase: Phase, update: Update) -> str:
        """Reject masks that do not fit the changes."""
        return chosen_ranks.problem_of(update.state) if phase.choices else ""

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Average what clients have after their changes; nothing after the trial."""
        if not phase.choices:
            return ServerState(server.shared, server.per_client)
        shared, start = without(server.shared, {START}), unprefixed(server.shared, START)
        factor = select({**start, **shared}, phase.trainable & FACTORS)
        whole = (
            replace(update, state={**select(update.state, {"connector"}), **chosen_ranks.unpack(update.state, factor)})
            for update in updates
        )
        after = super().aggregate(phase, whole, replace(server, shared=shared), mean)
        left = {name: value for name, value in start.items() if name not in after.shared}
        return replace(after, shared={**after.shared, **prefixed(left, START)})
