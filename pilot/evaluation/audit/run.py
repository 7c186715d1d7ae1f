"""The audit of a finished run: prepare messages and candidates, run every attack, write what was found."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pilot.errors import UserError
from pilot.evaluation.audit.candidates import Candidates
from pilot.evaluation.audit.findings import OWN, Finding
from pilot.evaluation.audit.judge_inputs import judge_images, judge_words, word_inputs
from pilot.evaluation.audit.judge_messages import judge_answers, judge_clients, judge_tasks
from pilot.evaluation.audit.judge_models import judge_exposure, judge_membership
from pilot.evaluation.audit.one_step import STEPS
from pilot.evaluation.audit.sighting import Sighting, sightings_of
from pilot.evaluation.audit.truth import Truth
from pilot.evaluation.trained import check_same_data, load_backbone_of, run_spec
from pilot.federation.kept_messages import read_messages
from pilot.federation.spec import RunSpec
from pilot.io.atomic import write_json
from pilot.io.layout import AUDIT, scenario_folder
from pilot.io.lock import locked
from pilot.methods.blind import Blind

RANKS = (8, 32, 128)
WORD_BATCHES = (1, 4)


def audit_run(run_dir: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Attack the kept messages of a finished run; write `audit/findings.json`, then return it.

    Raises:
        UserError: the run is unfinished, has no kept messages, or its data are missing, altered or others.
    """
    with locked(run_dir):
        spec = run_spec(run_dir)
        began = time.perf_counter()
        findings = list(_findings(spec, run_dir, progress))
        seconds = round(time.perf_counter() - began, 1)
        write_json(run_dir / AUDIT / "timing.json", {"seconds": seconds})
        target = run_dir / AUDIT / "findings.json"
        write_json(target, {"findings": [asdict(finding) for finding in findings]})
    return target


def _findings(spec: RunSpec, run_dir: Path, progress: Callable[[int, int], None]) -> Iterator[Finding]:
    method = spec.make_method()
    if isinstance(method, Blind) or method.pooled or not any(phase.shared for phase in method.phases(1)):
        yield Finding("all", "all", OWN, "", status="not_applicable", reason="nothing leaves a client")
        return
    messages = read_messages(run_dir)
    if not messages:
        raise UserError(
            f"{run_dir}: no messages were kept. Train the run with a profile that keeps some, such as "
            f"{spec.profile.name.partition('+')[0]}+recorded, or with keep_messages in it and --no-resume."
        )
    check_same_data(run_dir, scenario_folder(run_dir))
    backbone = load_backbone_of(run_dir)
    truth = Truth.read(spec, run_dir, scenario_folder(run_dir), backbone)
    phases = _by_setting(sightings_of(spec, backbone, messages, truth.num_examples))
    steps = {(each.update.client, each.round_number, each.phase): each.steps for each in messages}
    make = Candidates(truth, steps)
    parts = _parts(make, phases)
    for done, part in enumerate(parts, start=1):
        yield from part()
        progress(done, len(parts))


def _by_setting(sightings: Sequence[Sighting]) -> dict[str, list[Sighting]]:
    found: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        found.setdefault(sighting.setting, []).append(sighting)
    return found


def _parts(make: Candidates, phases: Mapping[str, list[Sighting]]) -> list[Callable[[], Iterator[Finding]]]:
    """Return the parts of an audit, in the order in which findings are written."""
    (first, *_), (*_, last) = phases.values(), phases.values()
    pairs = list(zip(list(phases.values())[:-1], list(phases.values())[1:], strict=True))
    return [
        lambda: _images(make, phases, first),
        lambda: _words(make, first, last),
        lambda: _attribution(phases, pairs),
        lambda: _answers(make, first, last),
        lambda: judge_membership(last[0].setting, make.tried(last)),
        lambda: judge_exposure(last[0].setting, make.planted(last)),
    ]


def _images(make: Candidates, phases: Mapping[str, list[Sighting]], first: Sequence[Sighting]) -> Iterator[Finding]:
    for step in STEPS:
        yield from judge_images(step.setting, make.images_of_steps(first, step))
    for setting, sightings in phases.items():
        yield from judge_images(setting, make.images_of_round(sightings))


def _words(make: Candidates, first: Sequence[Sighting], last: Sequence[Sighting]) -> Iterator[Finding]:
    truth = make.truth
    for rank in RANKS:
        backbone = make.backbone_of_rank(rank)
        inputs = word_inputs(backbone)
        for batch in WORD_BATCHES:
            groups = make.words(backbone, first, batch)
            factors = backbone.initial_adapter(truth.spec.seed, truth.spec.make_method().starts_from_weights)
            yield from judge_words(f"one step, rank {rank}, batch {batch}", groups, inputs, factors)
    groups = make.words_after_training(last)
    rank = truth.spec.profile.lora.rank
    factors = truth.backbone.initial_adapter(truth.spec.seed, truth.spec.make_method().starts_from_weights)
    setting = f"one step after training, rank {rank}, batch 1"
    yield from judge_words(setting, groups, word_inputs(truth.backbone), factors)


def _attribution(
    phases: Mapping[str, list[Sighting]], pairs: Sequence[tuple[list[Sighting], list[Sighting]]]
) -> Iterator[Finding]:
    for sightings in phases.values():
        yield from judge_tasks(sightings)
    for earlier, later in pairs:
        yield from judge_clients(earlier, later)


def _answers(make: Candidates, first: Sequence[Sighting], last: Sequence[Sighting]) -> Iterator[Finding]:
    for step in STEPS[:2]:
        yield from judge_answers(step.setting, make.questions_of_steps(first, step))
    for sightings in (first, last):
        yield from judge_answers(sightings[0].setting, make.questions_of_round(sightings))
