"""What an attack found: one row of `audit.json` and of `tables/privacy.csv`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pilot.evaluation.audit.scores import Estimate

OWN = "own"
"""The attacked client's message; every other observation is a control."""


@dataclass(frozen=True)
class Finding:
    """A measurement of an attack.

    Attributes:
        attack: name of the attack.
        setting: the messages that it saw: of one step, or of a round of the run.
        observation: `own`, or the control that was put in the place of the attacked client's message.
        metric: what was measured.
        value: None unless `completed`.
        low, high: ends of the 95 % bootstrap interval.
        count: number of samples.
        chance: what guessing reaches; None where a control has to say it.
        status: `completed`, `failed` (the attack could not be computed) or `not_applicable` (there is nothing to
            attack in these messages).
        reason: why it was not completed.
    """

    attack: str
    setting: str
    observation: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int = 0
    chance: float | None = None
    status: str = "completed"
    reason: str = ""


class NotApplicableError(Exception):
    """The messages hold nothing that the attack works on; the text says what."""


@dataclass(frozen=True)
class Measured:
    """An estimate of a metric with an observation."""

    observation: str
    metric: str
    estimate: Estimate
    chance: float | None = None


def findings_of(attack: str, setting: str, measure: Callable[[], Iterator[Measured]]) -> Iterator[Finding]:
    """Yield an attack's findings in a setting, or the one that says why there are none."""
    try:
        found = list(measure())
    except NotApplicableError as error:
        yield Finding(attack, setting, OWN, "", status="not_applicable", reason=str(error))
        return
    except (ValueError, torch.linalg.LinAlgError) as error:
        yield Finding(attack, setting, OWN, "", status="failed", reason=str(error))
        return
    for each in found:
        end = each.estimate
        if end.value is None:
            reason = "too few samples"
            yield Finding(attack, setting, each.observation, each.metric, status="failed", reason=reason)
        else:
            yield Finding(
                attack, setting, each.observation, each.metric, end.value, end.low, end.high, end.count, each.chance
            )
