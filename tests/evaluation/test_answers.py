"""Answers of trained runs through lm-eval: who answers what, and the same scores from lm-eval's own API."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.errors import UserError
from pilot.evaluation import answers, tasks, vqa
from pilot.evaluation.answers import answer_rows, answer_run
from pilot.evaluation.scoring import score_runs
from pilot.evaluation.trained import run_spec
from pilot.federation.blind import write_blind_run
from pilot.federation.spec import scenario_digests
from pilot.io.atomic import read_json, read_jsonl, write_jsonl
from pilot.io.digest import sha256_file
from pilot.io.verified import write_noted

from ..small import Small, quiet

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = {"scene-vqa": [0, 1], "scene-caption": [2, 3], "scene-ground": [4, 5]}
# A tenth of every client's 20, 18 or 22 examples is held out.
LOCAL = 2


@pytest.fixture(scope="module")
def answered(small: Small) -> dict[str, Path]:
    """One method with one model, one with a model per client, and their answers."""
    runs = {method: small.run(method) for method in ("fedavg", "local")}
    for run in runs.values():
        answer_run(run, quiet)
    return runs


def rows_of(run: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The samples that have these values."""
    rows = read_jsonl(run / "eval/samples.jsonl")
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedavg", "local"])
def test_every_client_and_protocol_is_answered(answered: dict[str, Path], method: str) -> None:
    """One model: the test set once, for both clients of the task. A model each: the test set once per client."""
    rows = rows_of(answered[method])
    for task, clients in CLIENTS.items():
        groups = [clients] if method == "fedavg" else [[client] for client in clients]
        tests = {tuple(group): rows_of(answered[method], task=task, protocol="personalised", clients=group)
                 for group in groups}  # fmt: skip
        assert [len({row["id"] for row in found}) for found in tests.values()] == [8] * len(groups)
        assert all("-test-" in row["id"] for found in tests.values() for row in found)
        held_out = [rows_of(answered[method], task=task, protocol="local", clients=[client]) for client in clients]
        assert [len(found) for found in held_out] == [LOCAL, LOCAL]
        assert all("-train-" in row["id"] for found in held_out for row in found)
    assert len(rows) == 3 * 8 * (1 if method == "fedavg" else 2) + 6 * LOCAL
    assert {row["kind"] for row in rows if row["task"] == "scene-ground"} == {"ground"}
    assert all((row["box"] is None) is (row["kind"] != "ground") for row in rows)
    assert {len(row["references"]) for row in rows if row["kind"] == "caption"} == {5}


def test_relative_paths_work(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`evaluate seed0` from inside the method's folder."""
    folder = tmp_path / "results/tiny/small"
    for name in ("data", "partition", "features"):
        shutil.copytree(small.folder / name, folder / name)
    write_blind_run(small.spec("majority"), scenario_digests(folder), folder / "runs/majority/seed0")
    monkeypatch.chdir(folder / "runs/majority")
    answer_run(Path("seed0"), quiet)
    rows = read_jsonl(path := Path("seed0/eval/samples.jsonl"))
    assert path.with_name("samples.jsonl.sha256").read_text() == f"{sha256_file(path)}  samples.jsonl\n"
    assert len(rows) == 3 * 8 + 6 * LOCAL
    assert {len({row["prediction"] for row in rows if row["task"] == task}) for task in CLIENTS} == {1}


@pytest.mark.slow
def test_features_are_read_only_while_they_are_the_runs(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vision tower rests unless other features lie there than the run was trained on; the answers are the same."""
    calls: list[int] = []
    compute = Backbone.image_features

    def counted(backbone: Backbone, images: Sequence[Image.Image]) -> Tensor:
        calls.append(len(images))
        return compute(backbone, images)

    monkeypatch.setattr(Backbone, "image_features", counted)
    run = small.run("fedavg")
    read = answer_rows(run, quiet, limit=2)
    assert calls == []
    monkeypatch.setattr(answers, "open_features", lambda folder: replace(small.features, digest="another"))
    assert answer_rows(run, quiet, limit=2) == read
    assert sum(calls) == len({row["id"] for row in read}) == 3 * 2 + 6 * LOCAL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("scene-vqa", ("exact_match",)),
        ("scene-ground", ("acc@0.5[original]", "mean_iou[original]", "parse_failure_rate")),
    ],
)
def test_lm_eval_gives_the_same_scores(
    answered: dict[str, Path], small: Small, tmp_path: Path, task: str, metrics: tuple[str, ...]
) -> None:
    """`PilotLM(run=..., client=...)` in lm-eval's own evaluator against the suite's scores of the same answers."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from pilot.evaluation.lm import PilotLM

    client = CLIENTS[task][1]
    run = tmp_path / "run"
    shutil.copytree(answered["local"], run)
    rows = rows_of(run, task=task)
    write_noted(run / "eval/samples.jsonl", lambda path: write_jsonl(path, rows))
    score_runs([run])
    entries = read_json(run / "eval/metrics.json")["entries"]
    ours = {e["metric"]: e["value"] for e in entries if e["client"] == client and e["protocol"] == "personalised"}

    name = f"pilot_{task.replace('-', '_')}"
    metadata = {"data": str(small.folder / "data")}
    results = simple_evaluate(
        PilotLM(run=str(answered["local"]), client=client),
        tasks=[name],
        task_manager=TaskManager(include_path=str(tasks.FOLDER), include_defaults=False, metadata=metadata),
        metadata=metadata,
        bootstrap_iters=0,
        log_samples=True,
    )
    assert results is not None
    theirs = {key.split(",")[0]: value for key, value in results["results"][name].items()}
    for metric in metrics:
        assert theirs[metric] == pytest.approx(ours[metric], abs=1e-6)
    predictions = {row["id"]: row["prediction"] for row in rows_of(run, clients=[client], protocol="personalised")}
    samples = results["samples"][name]
    assert {sample["doc"]["id"]: sample["filtered_resps"][0] for sample in samples} == predictions


@pytest.mark.slow
@pytest.mark.exhaustive
def test_lm_eval_from_its_own_command_line(answered: dict[str, Path], small: Small, tmp_path: Path) -> None:
    """The installed `lm_eval` knows the model `pilot`, and scores a client as the suite does, without a network."""
    command = [
        str(Path(sys.executable).with_name("lm_eval")), "--model", "pilot",
        "--model_args", f"run={answered['fedavg']},client=1", "--tasks", "pilot_scene_vqa",
        "--include_path", str(tasks.FOLDER), "--metadata", json.dumps({"data": str(small.folder / "data")}),
        "--output_path", str(tmp_path / "out.json"),
    ]  # fmt: skip
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (written,) = tmp_path.rglob("*.json")
    theirs = read_json(written)["results"]["pilot_scene_vqa"]["exact_match,none"]
    samples = rows_of(answered["fedavg"], task="scene-vqa", protocol="personalised")
    matches = [vqa.exact_match(row["prediction"], row["references"]) for row in samples]
    assert theirs == pytest.approx(sum(matches) / len(matches), abs=1e-6)


@pytest.mark.slow
def test_model_refuses_what_it_is_not(answered: dict[str, Path], small: Small) -> None:
    from pilot.evaluation.lm import PilotLM

    with pytest.raises(UserError, match="no client 6 in this run"):
        PilotLM(run=str(answered["local"]), client=6)
    with pytest.raises(UserError, match=r"not a finished run \(manifest.json is missing\)\. Train it first"):
        run_spec(small.folder)
    with pytest.raises(NotImplementedError, match="generate_until tasks only"):
        PilotLM(run=str(answered["fedavg"])).loglikelihood([])
