"""Judge of attacks (e) and (f): whose examples a model was trained on, and what it has memorised."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.evaluation.audit.attacks.losses import rank_answers, score_members
from pilot.evaluation.audit.findings import OWN, Finding, Measured, NotApplicableError, findings_of
from pilot.evaluation.audit.judge_inputs import OTHER
from pilot.evaluation.audit.replica import Candidate
from pilot.evaluation.audit.scores import Scored, area, exposure, hits_at_few_false, mean

REFERENCE, NOT_PLANTED = "backbone alone", "not planted"


@dataclass(frozen=True)
class Tried:
    """Losses of candidates on three models; `members` says which were trained on."""

    candidates: Sequence[Candidate]
    members: Sequence[bool]
    own: Sequence[float]
    other: Sequence[float]
    reference: Sequence[float]


@dataclass(frozen=True)
class Planted:
    """Losses of all possible answers of a canary's record on three models.

    Attributes:
        image: digest of the record's image.
        answer: place of the planted answer among the possible ones.
        control: place of one that was not planted.
    """

    image: str
    answer: int
    control: int
    own: Sequence[float]
    other: Sequence[float]
    reference: Sequence[float]


def judge_membership(setting: str, clients: Sequence[Tried]) -> Iterator[Finding]:
    """Yield the findings of the loss-based membership inference, with the controls."""

    def measure() -> Iterator[Measured]:
        members = np.array([each for client in clients for each in client.members])
        images = np.array([each.image for client in clients for each in client.candidates])
        own, other, reference = (
            [loss for client in clients for loss in getattr(client, name)] for name in ("own", "other", "reference")
        )
        alone = [0.0] * len(reference)
        for name, model, base in ((OWN, own, reference), (OTHER, other, reference), (REFERENCE, reference, alone)):
            scored = Scored(np.array(score_members(model, base)), members, images)
            yield Measured(name, "AUC", area(scored), 0.5)
            yield Measured(name, "TPR at 1 % FPR", hits_at_few_false(scored), 0.01)

    yield from findings_of("membership", setting, measure)


def judge_exposure(setting: str, canaries: Sequence[Planted]) -> Iterator[Finding]:
    """Yield the mean exposure of the planted answers, and of the controls."""

    def measure() -> Iterator[Measured]:
        if not canaries:
            raise NotApplicableError("the scenario has no canaries (see the variant `canaries`)")
        units = [each.image for each in canaries]
        number = len(canaries[0].own)
        chance = float(np.mean([np.log2(number) - np.log2(rank) for rank in range(1, number + 1)]))
        judged = {
            OWN: [(each.own, each.answer) for each in canaries],
            NOT_PLANTED: [(each.own, each.control) for each in canaries],
            OTHER: [(each.other, each.answer) for each in canaries],
            REFERENCE: [(each.reference, each.answer) for each in canaries],
        }
        for name, pairs in judged.items():
            values = [exposure(rank_answers(losses)[place], number) for losses, place in pairs]
            yield Measured(name, "exposure", mean(values, units), chance)

    yield from findings_of("canaries", setting, measure)
