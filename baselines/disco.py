"""DISCO. Guo et al., "Federated Continual Instruction Tuning", arXiv 2503.12897: dynamic knowledge organisation and
subspace selective activation.

Client k sends LoRA, connector and f_k, the mean feature of its questions. Server: clients whose f have a cosine of at
least `threshold` with a group's join it, others open one; in group j

    A_j = sum_k (n_k / n_j) A_k,   B_j likewise,   mu_j = the mean of all f that were sent, weighted by examples

The connector is averaged over all clients. A client trains its group's LoRA alone; f tells the server its task. For a
test question of feature f:

    y = W x + s sum_j a_j B_j A_j x,    a = softmax_j(cos(f, mu_j) / temperature)

Deviations: the paper's f is CLIP's text feature; the backbones here have no text encoder, so f is the mean of the
frozen embeddings of a question's tokens. These have a large part in common (cosines of 0.96 between tasks, where
CLIP's threshold is 0.9), so cosines are between differences to the plain mean of the first f that clients sent. That
mean is not taken again: if all clients of the first round have one task, their differences are noise, and the task
falls apart into several groups: the first round needs clients of several tasks. There is one period of training,
without new tasks; clients stay in their groups. The authors also merge tiny clients of groups of one. All of LoRA's
projections take part, theirs are those of the feed-forward layers. AdamW.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

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
from pilot.methods.mixed_lora import OWN, OWN_QUESTIONS, QUESTION, Mixture, as_other

CONNECTOR = frozenset({"connector"})
GROUP, COUNT, CENTRE = "group", "count.examples", f"{QUESTION}.centre"
ANSWER = "answer"


@dataclass(frozen=True, kw_only=True)
class Disco(Method):
    """A LoRA for each group of clients with similar questions; answers mix all groups' by the question.

    Attributes:
        threshold: least cosine to a group's feature of a client that joins it, in -1..1.
        temperature: of the softmax over groups, above 0.
    """

    name: ClassVar[str] = "disco"
    single_model: ClassVar[bool] = True
    mixes_answers: ClassVar[bool] = True

    threshold: float = 0.9
    temperature: float = 0.05

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a number in -1..1, got {self.threshold}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round."""
        return (Phase(name="train", trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS | {QUESTION}, questions=True),)

    def final_phase(self, rounds: int) -> Phase:
        """Return the phase in which all groups' LoRAs are mixed."""
        return Phase(name=ANSWER, trainable=frozenset(), shared=frozenset())

    def mixture(self, phase: Phase, received: State) -> Mixture | None:
        """Return all groups' LoRAs, weighted by the question."""
        names = sorted(int(name.split(".")[1]) for name in select(received, {QUESTION}) if name != CENTRE)
        if phase.name != ANSWER or not names:
            return None
        references = ("centre", *map(str, names))
        return Mixture(tuple(names), weigh=partial(group_weights, self.temperature), references=references)

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send LoRA, connector and the questions' mean feature; keep nothing."""
        return SplitResult(select(result.end, phase.shared), {})

    def payload(self, server: ServerState, client: ClientInfo, phase: Phase) -> State:
        """Return the connector and the LoRA of the client's group; for answers, all groups', and their features."""
        received, groups = select(server.shared, CONNECTOR), _groups(server)
        own = [int(server.per_client[client.client][GROUP])] if client.client in server.per_client else []
        if phase.name == ANSWER and groups:
            received[CENTRE] = server.shared[CENTRE]
            for place, j in enumerate(dict.fromkeys([*own, *groups])):
                adapter = select(groups[j], {OWN})
                received |= as_other(adapter, place) if place else adapter
                received[f"{QUESTION}.{place}"] = groups[j][OWN_QUESTIONS]
        elif own:
            received |= select(groups[own[0]], {OWN})
        return received

    def aggregate(
        self, phase: Phase, updates: Iterable[Update], server: ServerState, mean: Mean = weighted_mean
    ) -> ServerState:
        """Assign new clients to groups; average inside groups, and connectors over all clients."""
        sent, features = list(updates), lambda update: update.state[OWN_QUESTIONS]
        centre = server.shared.get(CENTRE, torch.stack([features(update) for update in sent]).mean(dim=0))
        groups, member = _groups(server), {k: int(state[GROUP]) for k, state in server.per_client.items()}
        known = {j: group[OWN_QUESTIONS] for j, group in groups.items()}
        for update in (each for each in sent if each.client not in member):
            own = features(update) - centre
            near = {j: float(functional.cosine_similarity(own, g - centre, dim=0)) for j, g in known.items()}
            best = max(near, key=near.__getitem__, default=0)
            member[update.client] = best if near and near[best] >= self.threshold else len(known)
            known.setdefault(member[update.client], features(update))
        shared = {**server.shared, **mean_of_updates(sent, CONNECTOR, mean), CENTRE: centre}
        for j in sorted({member[update.client] for update in sent}):
            here = [update for update in sent if member[update.client] == j]
            count = float(sum(update.num_examples for update in here))
            before, total = groups.get(j, {}), torch.tensor([count])
            feature = weighted_mean(({OWN_QUESTIONS: features(u)}, u.num_examples) for u in here)
            if before:
                total = before[COUNT] + count
                feature = weighted_mean([(feature, count), (select(before, {QUESTION}), float(before[COUNT]))])
            shared |= prefixed({**mean_of_updates(here, {OWN}, mean), **feature, COUNT: total}, f"{GROUP}.{j}")
        clients = {k: {GROUP: torch.tensor(float(j))} for k, j in sorted(member.items())}
        return ServerState(shared, clients, {"groups": {str(k): j for k, j in sorted(member.items())}})


def group_weights(temperature: float, features_BD: Tensor, references: Mapping[str, Tensor]) -> Tensor:
    """Return softmax(cos / temperature) (B, J) of questions and groups, both relative to the centre."""
    centre = references["centre"]
    groups_JD = torch.stack([value for name, value in references.items() if name != "centre"]) - centre
    return (functional.normalize(features_BD - centre) @ functional.normalize(groups_JD).T / temperature).softmax(-1)


def _groups(server: ServerState) -> dict[int, State]:
    """Return each group's tensors, by its number, ascending."""
    count = len({int(state[GROUP]) for state in server.per_client.values()})
    return {j: unprefixed(server.shared, f"{GROUP}.{j}") for j in range(count)}
