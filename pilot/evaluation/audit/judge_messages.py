"""Judge of attacks (c) and (d): whose update it is, and which closed answers it was trained on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.evaluation.audit.attacks.answers import match, most_frequent
from pilot.evaluation.audit.attacks.attribution import guess_clients, guess_tasks
from pilot.evaluation.audit.findings import OWN, Finding, Measured, NotApplicableError, findings_of
from pilot.evaluation.audit.judge_inputs import OTHER, own_of_others
from pilot.evaluation.audit.replica import Candidate, Replica
from pilot.evaluation.audit.scores import Estimate, mean
from pilot.evaluation.audit.sighting import Sighting
from pilot.io.seeding import generator

SHUFFLED = "shuffled labels"
PRIOR, RECEIVED = "prior", "received model"
PERMUTATIONS = 400


@dataclass(frozen=True)
class Question:
    """A question whose answer is to be found.

    Attributes:
        sighting: the message of the client that has it.
        candidates: the example with each answer that it may have.
        answers: their texts.
        public: public answers to questions of its kind.
        truth: place of the true answer among them.
    """

    sighting: Sighting
    candidates: Sequence[Candidate]
    answers: Sequence[str]
    public: Sequence[str]
    truth: int


def judge_tasks(sightings: Sequence[Sighting]) -> Iterator[Finding]:
    """Yield how many messages of a phase have the task of the nearest other one."""
    tasks = [sighting.info.task for sighting in sightings]

    def measure() -> Iterator[Measured]:
        if len(set(tasks)) < 2:
            raise NotApplicableError("there is only one task")
        guessed = guess_tasks([sighting.update for sighting in sightings], tasks)
        yield from _accuracies("task accuracy", guessed, tasks)

    yield from findings_of("task attribution", sightings[0].setting, measure)


def judge_clients(earlier: Sequence[Sighting], later: Sequence[Sighting]) -> Iterator[Finding]:
    """Yield how many messages of a later phase are nearest to the same client's in an earlier one."""

    def measure() -> Iterator[Measured]:
        names = [sighting.info.client for sighting in earlier]
        try:
            guessed = guess_clients([each.update for each in later], [each.update for each in earlier], names)
        except ValueError as error:
            raise NotApplicableError(f"the two messages have nothing in common: {error}") from error
        yield from _accuracies("client accuracy", guessed, [each.info.client for each in later])

    yield from findings_of("client attribution", f"{earlier[0].setting} to {later[0].setting}", measure)


def judge_answers(setting: str, replicas: Iterator[tuple[Replica, Sequence[Question]]]) -> Iterator[Finding]:
    """Yield how many closed answers are recovered; a replica is the model that a client started from."""

    def measure() -> Iterator[Measured]:
        asked: list[Question] = []
        gradients, guesses = [], {PRIOR: [], RECEIVED: []}  # type: ignore[var-annotated]
        for replica, questions in replicas:
            for question in questions:
                names = question.sighting.sent
                gradients.append([replica.gradient(each, names) for each in question.candidates])
                guesses[RECEIVED].append(int(np.argmin(replica.losses(question.candidates))))
                guesses[PRIOR].append(most_frequent(list(question.public), question.answers))
                asked.append(question)
        if not asked:
            raise NotApplicableError("no client has questions with closed answers")
        seen = [question.sighting for question in asked]
        judged: dict[str, Sequence[int]] = {OWN: range(len(asked))}
        if len({each.info.client for each in seen}) > 1:
            judged[OTHER] = own_of_others(seen)
        for name, places in judged.items():
            guesses[name] = [
                int(np.argmax(match(asked[place].sighting.update, tried)))
                for place, tried in zip(places, gradients, strict=True)
            ]
        units = [question.candidates[0].image for question in asked]
        for name in (OWN, PRIOR, RECEIVED, *judged.keys() - {OWN}):
            right = [float(guess == each.truth) for guess, each in zip(guesses[name], asked, strict=True)]
            yield Measured(name, "answer accuracy", mean(right, units))

    yield from findings_of("closed answers", setting, measure)


def _accuracies(metric: str, guessed: Sequence[object], truth: Sequence[object]) -> Iterator[Measured]:
    """Yield the accuracy, and that of the same guesses about shuffled messages."""
    right = [float(guess == name) for guess, name in zip(guessed, truth, strict=True)]
    chance = sum(count * Counter(truth)[name] for name, count in Counter(guessed).items()) / len(right) ** 2
    yield Measured(OWN, metric, mean(right, [str(place) for place in range(len(right))]), chance)
    source = generator("audit", "permutations")
    shuffled = [
        float(
            np.mean(
                [guess == truth[place] for guess, place in zip(guessed, source.permutation(len(right)), strict=True)]
            )
        )
        for _ in range(PERMUTATIONS)
    ]
    low, high = np.quantile(shuffled, [0.025, 0.975])
    yield Measured(SHUFFLED, metric, Estimate(float(np.mean(shuffled)), float(low), float(high), len(right)), chance)
