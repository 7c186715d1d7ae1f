"""What a backbone could do before, measured on tuned models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pilot.backbone.shared_features import shared_features
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.evaluation import forgetting
from pilot.evaluation.answers import answer_run
from pilot.evaluation.forgetting import (
    CAPTIONS,
    FACTS,
    FACTS_PER_SCENE,
    NUM_SCENES,
    check_forgetting,
    lm_eval_metrics,
    public_rows,
    public_statements,
)
from pilot.evaluation.scoring import score_runs
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run
from pilot.io.atomic import read_jsonl
from pilot.io.layout import run_folder
from pilot.report.numbers.forgetting import forgetting_rows
from pilot.report.numbers.load import load_runs
from pilot.report.numbers.summary import group_runs, image_of_example

from ..meteor import leave_out_meteor
from ..small import Small, quiet


def profile_of(small: Small, *names: str, **changes: Any) -> Profile:
    """The small profile with this list."""
    return Profile.model_validate(small.profile.model_dump() | {"forgetting": names} | changes)


def test_statements_are_of_the_held_out_corpus() -> None:
    asked = public_statements()
    facts = [each for each in asked if each.task == FACTS]
    assert NUM_SCENES < len(facts) <= FACTS_PER_SCENE * NUM_SCENES
    captions = [each for each in asked if each.task == CAPTIONS]
    assert {each.lead for each in captions} == {"Seen:"} and all(each.ending.startswith("a") for each in captions)
    assert len({(each.task, each.id) for each in asked}) == len(asked)
    assert [(each.id, each.lead) for each in public_statements()] == [(each.id, each.lead) for each in asked]
    scenes = image_of_example(Path("without data"), FACTS)
    by_scene = {(scenes[each.id], each.image.tobytes()) for each in facts}
    assert len(by_scene) == len({scenes[each.id] for each in facts}) == len({each.image.tobytes() for each in facts})


@pytest.mark.slow
def test_tuned_models_are_asked_beside_the_untuned_one(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone as shipped knows its corpus; models tuned for a few steps know it less, and the table says so."""
    monkeypatch.setattr(forgetting, "NUM_SCENES", 20)
    leave_out_meteor(monkeypatch)
    runs = []
    for method in ("untuned", "local"):
        runs.append(run_folder(small.folder, f"{method}-forgetting", 0))
        spec = RunSpec(small.scenario, profile_of(small, FACTS), method, 0)
        train_run(spec, small.folder, runs[-1], True, quiet)
        answer_run(runs[-1], quiet)
    score_runs(runs)
    rows = read_jsonl(runs[1] / "eval/forgetting/samples.jsonl")
    assert {tuple(row["clients"]) for row in rows} == {(client,) for client in range(6)}
    asked = {row["id"] for row in rows}
    assert asked == {each.id for each in public_statements() if each.task == FACTS} and len(rows) == 6 * len(asked)
    table = {(row.method, row.task): row for row in forgetting_rows(group_runs(load_runs(runs)))}
    before, after = table["untuned", FACTS], table["local", FACTS]
    assert before.metric == "exact_match" and before.mean is not None and before.mean > 0.6
    assert after.untuned == before.mean and after.mean is not None
    assert after.difference == pytest.approx(after.mean - before.mean) and before.difference == 0
    assert after.ci_low is not None and after.ci_low < after.mean < (after.ci_high or 0)
    spec = RunSpec(small.scenario, profile_of(small, CAPTIONS), "untuned", 0)
    captions = public_rows(spec, runs[0], quiet)
    assert {(row["task"], row["kind"]) for row in captions} == {(CAPTIONS, "caption")}
    assert sum(row["prediction"] in row["references"] for row in captions) > 0.3 * len(captions)


@pytest.mark.slow
def test_features_of_public_scenes_are_computed_once(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever needs them first; all runs of the folder read them, whatever the order of the scenes."""
    scenes = [each.image for each in public_statements()[:7]]
    first = shared_features(small.backbone, small.profile, scenes, tmp_path, "public")
    assert torch.allclose(first, small.backbone.image_features(scenes), atol=1e-5)
    (folder,) = tmp_path.iterdir()
    monkeypatch.setattr(type(small.backbone), "image_features", None)
    assert torch.equal(shared_features(small.backbone, small.profile, scenes, tmp_path, "public"), first)
    assert torch.equal(shared_features(small.backbone, small.profile, scenes[::-1], tmp_path, "public"), first.flip(0))
    (shard,) = folder.glob("*.npy")
    shard.write_bytes(b"")
    with pytest.raises(UserError, match=shard.name):
        shared_features(small.backbone, small.profile, scenes, tmp_path, "public")


def test_the_recipe_says_what_the_shipped_model_can(small: Small) -> None:
    """The list is no part of a run's identity: it changes no model."""
    from pilot.config.identity import identity_digest
    from pilot.federation.spec import run_config

    digests = {"data": "d", "partition": "p", "features": "f"}
    found = {
        identity_digest(run_config(RunSpec(small.scenario, profile, "fedavg", 0), {}, digests))
        for profile in (small.profile, profile_of(small, FACTS))
    }
    assert len(found) == 1


@pytest.mark.exhaustive
def test_lm_eval_knows_its_tasks() -> None:
    assert {"chartqa", "mmmu_val"} <= {*forgetting._tasks_of_lm_eval()}


def test_unknown_tasks_are_refused(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_tasks_of_lm_eval", lambda: ("chartqa", "mmmu_val"))
    check_forgetting(profile_of(small, FACTS))
    with pytest.raises(UserError, match=r"profile tiny: field forgetting: unknown .*public_facts"):
        check_forgetting(profile_of(small, "public_facts"))
    other = profile_of(small, FACTS).model_copy(update={"backbone": "some/model"})
    with pytest.raises(UserError, match="public-facts"):
        check_forgetting(other)


@dataclass
class Parrot:
    """Stands for a model: its answers are what lm-eval scores."""

    answer: str


@pytest.mark.slow
def test_tasks_of_lm_eval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The evaluator's values of every model become entries of its clients; text and spreads are left out."""
    import lm_eval.evaluator

    def evaluate(model: Parrot, tasks: list[str], **_: Any) -> dict[str, Any]:
        value = float(model.answer == "right")
        return {
            "results": {tasks[0]: {"alias": tasks[0], "exact_match,none": value, "exact_match_stderr,none": 0.1}},
            "n-samples": {tasks[0]: {"original": 9, "effective": 7}},
        }

    monkeypatch.setattr(lm_eval.evaluator, "simple_evaluate", evaluate)
    models = {(0, 1): lambda: Parrot("right"), (2,): lambda: Parrot("wrong")}
    found = lm_eval_metrics(models, ["chartqa"], quiet)
    assert [(each["client"], each["metric"], each["value"], each["num_examples"]) for each in found["entries"]] == [
        (0, "exact_match", 1.0, 7), (1, "exact_match", 1.0, 7), (2, "exact_match", 0.0, 7)
    ]  # fmt: skip
