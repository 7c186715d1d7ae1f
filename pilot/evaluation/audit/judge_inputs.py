"""Judge of attacks (a) and (b): which images and words went into an update."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.evaluation.audit.attacks.span import connector_basis, score_images, score_tokens, verdicts
from pilot.evaluation.audit.findings import OWN, Finding, Measured, NotApplicableError, findings_of
from pilot.evaluation.audit.scores import Scored, area, hits_at_few_false
from pilot.evaluation.audit.sighting import Sighting
from pilot.io.seeding import seed_for

OTHER, RANDOM = "another client", "random"


@dataclass(frozen=True)
class Images:
    """A message, and images of which some were trained on."""

    sighting: Sighting
    features_SND: Tensor
    members: np.ndarray
    names: np.ndarray


@dataclass(frozen=True)
class Words:
    """A message, words that are in its batch alone, and words that are in another batch of the client alone."""

    sighting: Sighting
    inside: Sequence[int]
    outside: Sequence[int]
    image: str


def judge_images(setting: str, groups: Sequence[Images]) -> Iterator[Finding]:
    """Yield the findings of the connector's span residual, with the controls."""

    def measure() -> Iterator[Measured]:
        if not any(name.endswith("linear_1.weight") for name in groups[0].sighting.sent):
            raise NotApplicableError("no connector is sent")
        seen = [group.sighting for group in groups]
        own = [basis for each in seen if (basis := connector_basis(each.start, each.sent)) is not None]
        if len(own) < len(groups):
            raise NotApplicableError("the connector that is sent has not moved")
        others = own_of_others(seen)
        bases = {
            OWN: own,
            OTHER: [own[place] for place in others],
            RANDOM: [_random_like(*each) for each in enumerate(own)],
        }
        for name, chosen in bases.items():
            yield from _measures(name, [_scored(*each) for each in zip(groups, chosen, strict=True)])

    def exact() -> Iterator[Measured]:
        whole = [connector_basis(group.sighting.start, group.sighting.sent, 1.0) for group in groups]
        pairs = [(group, basis) for group, basis in zip(groups, whole, strict=True) if basis is not None]
        if len(pairs) < len(groups):
            raise NotApplicableError("no connector that has moved is sent")
        parts = [_scored(group, basis) for group, basis in pairs]
        judged = [replace(each, scores=verdicts(torch.from_numpy(each.scores)).numpy()) for each in parts]
        yield Measured(OWN, "AUC", area(Scored.joined(judged)), 0.5)

    yield from findings_of("image span", setting, measure)
    yield from findings_of("image span, exact", setting, exact)


def judge_words(
    setting: str, groups: Sequence[Words], inputs_VC: Tensor, factors: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """Yield the findings of the span residual of the words' inputs; `factors` are initial values of A."""

    def measure() -> Iterator[Measured]:
        if not any(".lora_" in name for name in groups[0].sighting.sent):
            raise NotApplicableError("no LoRA is sent")
        scores = [
            score_tokens(each.start, each.sent, {**factors, **each.payload}, inputs_VC)
            for each in (group.sighting for group in groups)
        ]
        known = [each for each in scores if each is not None]
        if len(known) < len(scores):
            raise NotApplicableError("the LoRA that is sent has not moved: A has no gradient while B is zero")
        yield from _measures(OWN, [_words(group, found) for group, (_, found) in zip(groups, known, strict=True)])
        others = own_of_others([group.sighting for group in groups])
        yield from _measures(
            OTHER, [_words(group, known[place][1]) for group, place in zip(groups, others, strict=True)]
        )

    yield from findings_of("word span", setting, measure)


def word_inputs(backbone: Backbone) -> Tensor:
    """Return the direction (V, C) that each word has as an input to the first layer's queries, keys and values.

    Lengths do not matter to residuals, so that the norm's division is left out.
    """
    scale = backbone.language_model.get_submodule("layers.0.input_layernorm").weight
    table = next(backbone.embed.parameters())
    return (table.detach().float() * scale.detach().float()).cpu()


def own_of_others(sightings: Sequence[Sighting]) -> list[int]:
    """Return for each sighting the place of one of another client, of the same task if there is one."""
    places = range(len(sightings))

    def best(own: int) -> int:
        info = sightings[own].info
        order = [(own + step) % len(sightings) for step in places]
        others = [place for place in order if sightings[place].info.client != info.client]
        same = [place for place in others if sightings[place].info.task == info.task]
        if not others:
            raise NotApplicableError("there is no other client, so no control")
        return (same or others)[0]

    return [best(own) for own in places]


def _scored(group: Images, basis_KD: Tensor) -> Scored:
    return Scored(score_images(group.features_SND, basis_KD).numpy(), group.members, group.names)


def _words(group: Words, scores_V: Tensor) -> Scored:
    places = [*group.inside, *group.outside]
    members = np.arange(len(places)) < len(group.inside)
    return Scored(scores_V[places].numpy(), members, np.array([group.image] * len(places)))


def _measures(observation: str, parts: Sequence[Scored]) -> Iterator[Measured]:
    scored = Scored.joined(parts)
    yield Measured(observation, "AUC", area(scored), 0.5)
    yield Measured(observation, "TPR at 1 % FPR", hits_at_few_false(scored), 0.01)


def _random_like(place: int, basis_KD: Tensor) -> Tensor:
    """Return a basis of as many random directions, others for each place: one for all would have one common error."""
    source = torch.Generator().manual_seed(seed_for("audit", "random span", place))
    directions = torch.randn(basis_KD.shape[::-1], generator=source, dtype=torch.float64)
    return torch.linalg.qr(directions).Q.T
