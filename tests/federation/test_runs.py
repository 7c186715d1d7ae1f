"""Whole runs: they train, they repeat byte for byte, they go on after a kill, and their accounts add up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pilot.config.load import load_profile
from pilot.config.model import LearningRates
from pilot.errors import UserError
from pilot.evaluation.answers import answer_run
from pilot.evaluation.trained import run_spec
from pilot.federation.checkpoint import Progress, load_progress, save_progress
from pilot.federation.shards import Example, LazyExamples, load_examples, make_examples, read_part, records_of_part
from pilot.federation.spec import RunSpec, run_config, scenario_digests
from pilot.federation.store import ClientStore
from pilot.federation.training import client_models, train_run
from pilot.io.atomic import read_json, read_jsonl, write_json
from pilot.io.digest import digest_json, sha256_file
from pilot.io.lock import locked
from pilot.methods.base import group_of, select
from pilot.methods.catalogue import METHODS

from ..marks import DIFFERENT, few_of
from ..small import PROFILE, Small, contents, quiet

TRAINED = ["pilot", "fedavg", "fedprox", "fedmoe", "local", "central"]
ZOO = [name for name in METHODS if name not in (*TRAINED, "untuned", "majority")]
PRIVATE = {
    "pilot": {"client_adapter", "cross_task_adapter", "router"},
    "local": {"connector", "text_adapter"},
    "central": {"connector", "text_adapter"},
}
PHASES = {"pilot": ["stage1", "stage2", "stage2"], "fedmoe": ["search", "train"]}
# LoRA: rank 8 on four layers of width 128; q, k, v, o take (128 + 128) * 8 each, gate, up, down (128 + 256) * 8 each:
# 4 * (4 * 2048 + 3 * 3072) = 69,632 numbers. Connector: 2 * (128 * 128 + 128) = 33,024 numbers. Four bytes each.
LORA_BYTES, CONNECTOR_BYTES = 278_528, 132_096


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_trains(small: Small, method: str) -> None:
    run = small.run(method)
    rounds = read_jsonl(run / "rounds.jsonl")
    assert [row["phase"] for row in rounds] == PHASES.get(method, ["train", "train"])
    assert not any(row["skipped"] or row["excluded"] for row in rounds)
    clients = [0] if method == "central" else [0, 1, 2, 3, 4, 5]
    assert [[client["client"] for client in row["clients"]] for row in rounds] == [clients] * len(rounds)
    for client in (client for row in rounds for client in row["clients"]):
        assert len(client["losses"]["cross_entropy"]) == client["steps"]
        assert all(0 < loss < 20 for loss in client["losses"]["cross_entropy"])
    progress = load_progress(run / "checkpoint", None)
    assert progress is not None and progress.round_number == 2
    models = client_models(small.spec(method), small.backbone, run)
    for load in models.values():
        updates = [value for name, value in load().state().items() if name.endswith("lora_B")]
        assert len(updates) == 28 and all(bool(value.any()) for value in updates)  # zero before training
    kept = {client: ClientStore(run / "clients" / str(client)).load(v) for client, v in progress.versions.items()}
    assert sorted(kept) == (clients if method in PRIVATE else [])
    assert {group_of(name) for state in kept.values() for name in state} == PRIVATE.get(method, set())


@pytest.mark.slow
def test_a_whole_llm_is_trained_and_put_back(small: Small) -> None:
    """Every number of the LLM moves, LoRA does not; a model loaded afterwards has the checkpoint's LLM again."""
    shipped = small.backbone.initial_language_state()
    assert sum(value.numel() for value in shipped.values()) == small.backbone.num_language_parameters
    (load,) = client_models(small.spec("full"), small.backbone, small.run("full")).values()
    state = load().state()
    assert select(state, {"language"}).keys() == shipped.keys()
    assert all(bool((state[name] != value).any()) for name, value in shipped.items())
    assert not any(bool(value.any()) for name, value in state.items() if name.endswith("lora_B"))
    ledger = read_json(small.run("full") / "ledger.json")
    assert ledger["training_flops"] == ledger["training_tokens"] * 6 * ledger["trainable_parameters"]
    (load,) = client_models(small.spec("fedavg"), small.backbone, small.run("fedavg")).values()
    load()
    now = small.backbone.language_parameters()
    assert all(torch.equal(now[name], value) and not now[name].requires_grad for name, value in shipped.items())


def test_a_whole_llm_is_not_trained_in_rounded_weights(small: Small) -> None:
    spec = small.spec("full")
    rounded = replace(spec, profile=spec.profile.model_copy(update={"precision": "bfloat16"}))
    with pytest.raises(UserError, match="field precision: method full trains the whole LLM, .* got bfloat16"):
        rounded.make_method()


@pytest.mark.parametrize("method", TRAINED)
def test_budgets_are_equal(small: Small, method: str) -> None:
    """Six clients, two rounds, three steps each; the pooled client of `central` takes them all."""
    run = small.run(method)
    assert read_json(run / "ledger.json")["optimiser_steps"] == 36
    assert read_json(run / "config.json")["budget"] == {
        "rounds": 2, "local_steps": 3, "batch_size": 2, "num_clients": 6, "total_steps": 36
    }  # fmt: skip
    per_client = [client["steps"] for row in read_jsonl(run / "rounds.jsonl") for client in row["clients"]]
    expected = {"central": [18, 18], "pilot": [1] * 6 + [2] * 6 + [3] * 6}
    assert per_client == expected.get(method, [3] * 12)


def test_manifest_names_every_file(small: Small) -> None:
    run = small.run("fedavg")
    manifest = read_json(run / "manifest.json")
    files = {name for name in contents(run) if name != "manifest.json"}
    assert set(manifest["files"]) == files
    assert manifest["files"]["rounds.jsonl"] == sha256_file(run / "rounds.jsonl")
    assert manifest["config_digest"] == digest_json(read_json(run / "config.json"))
    assert {name.split("/")[1] for name in files if name.startswith("checkpoint/")} == {"round-1", "round-2"}


def test_untuned_trains_nothing(small: Small) -> None:
    run = small.run("untuned")
    assert (run / "rounds.jsonl").read_text() == ""
    ledger = read_json(run / "ledger.json")
    assert ledger["optimiser_steps"] == 0 and ledger["messages"] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["pilot"], TRAINED))
def test_same_seed_same_bytes(small: Small, tmp_path: Path, method: str) -> None:
    assert small.train(tmp_path / "again", method) == contents(small.run(method))


def test_another_seed_differs(small: Small) -> None:
    other, first = contents(small.run("fedavg", seed=1)), contents(small.run("fedavg"))
    assert other.keys() == first.keys()
    differing = {name for name in first if other[name] != first[name]}
    assert {"manifest.json", "rounds.jsonl", "config.json", "checkpoint/round-2/server.safetensors"} <= differing
    messages = [json.loads(files["ledger.json"])["messages"] for files in (other, first)]
    assert messages[0] == messages[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of(["pilot"], TRAINED))
def test_killed_after_round_one_goes_on(small: Small, tmp_path: Path, method: str) -> None:
    def kill(done: int, total: int) -> None:
        if done > total / 2:
            raise Killed

    with pytest.raises(Killed):
        small.train(tmp_path, method, progress=kill)
    assert not (tmp_path / "manifest.json").exists()
    assert read_json(tmp_path / "checkpoint/round-1/complete.json")["round"] == 1
    spent = read_json(tmp_path / "timing.json")["train_seconds"]
    for name in ("checkpoint/round-1/.complete.json.abc.part", ".rounds.jsonl.abc.part"):
        (tmp_path / name).write_text("torn by a kill")
    reported: list[tuple[int, int]] = []
    assert small.train(tmp_path, method, progress=lambda *now: reported.append(now)) == contents(small.run(method))
    assert reported[0][0] > 18 and reported[-1] == (36, 36)
    assert read_json(tmp_path / "timing.json")["train_seconds"] > spent > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", few_of([name for name in ZOO if name in DIFFERENT], ZOO))
def test_methods_of_the_zoo(small: Small, method: str) -> None:
    """They train all clients by the same budget and send nothing private; `test_wire.py` kills and resumes them."""
    run = small.run(method)
    rounds = read_jsonl(run / "rounds.jsonl")
    assert not any(row["skipped"] or row["excluded"] for row in rounds)
    for number in (1, 2):
        steps: dict[int, int] = {}
        for client in (client for row in rounds if row["round"] == number for client in row["clients"]):
            steps[client["client"]] = steps.get(client["client"], 0) + client["steps"]
        assert steps == dict.fromkeys(range(6), 3)
    allowed = {
        group.partition(":")[0] for phase in small.spec(method).make_method().phases(2) for group in phase.shared
    }
    messages = read_json(run / "ledger.json")["messages"]
    assert {group for message in messages if message["direction"] == "up" for group in message["groups"]} <= allowed


def test_finished_run_is_left_as_it_is(small: Small, tmp_path: Path) -> None:
    before = small.train(tmp_path, "fedavg")
    spent = read_json(tmp_path / "timing.json")["train_seconds"]

    def fail(done: int, total: int) -> None:
        raise AssertionError("a finished round was trained again")

    assert small.train(tmp_path, "fedavg", progress=fail) == before
    assert read_json(tmp_path / "timing.json")["train_seconds"] == spent


def test_another_run_is_kept_until_no_resume_discards_it(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.run("fedavg", seed=1), tmp_path / "run")
    (tmp_path / "run/eval").mkdir()
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match=r"run: contains a run with different settings.* seed 1 -> 0\. .*--no-resume"):
        small.train(tmp_path / "run", "fedavg")
    assert contents(tmp_path / "run") == before and (tmp_path / "run/eval").is_dir()
    train_run(small.spec("fedavg"), small.folder, tmp_path / "run", False, quiet)
    assert contents(tmp_path / "run") == contents(small.run("fedavg"))
    assert not (tmp_path / "run/eval").exists()


def test_another_run_is_set_aside(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the workflow asks for it: an edit of the source repeats a run, and what it was is still there."""
    shutil.copytree(small.run("fedavg", seed=1), tmp_path / "seed0")
    (tmp_path / "replaced-seed0-1").mkdir()
    train_run(small.spec("fedavg"), small.folder, tmp_path / "seed0", True, quiet, replace=True)
    assert contents(tmp_path / "seed0") == contents(small.run("fedavg"))
    assert contents(tmp_path / "replaced-seed0-2") == contents(small.run("fedavg", seed=1))
    assert "differences: seed 1 -> 0. Old run renamed to replaced-seed0-2." in capsys.readouterr().err


@pytest.mark.parametrize("method", ["fedavg", "majority"])
@pytest.mark.parametrize("kept", ["manifest.json", "eval/metrics.json"])
def test_finished_run_of_other_settings_without_checkpoints_is_kept(
    small: Small, tmp_path: Path, method: str, kept: str
) -> None:
    """As `pilot-bench unpack` writes it; Snakemake removes the manifest before a job."""
    run = tmp_path / "run"
    write_json(run / "config.json", run_config(small.spec(method, seed=1), {}, scenario_digests(small.folder)))
    write_json(run / kept, {})
    before = {path: path.read_bytes() for path in run.rglob("*.json")}
    with pytest.raises(UserError, match=r"run: contains a run with different settings.* seed 1 -> 0\. .*--no-resume"):
        small.train(run, method)
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == before


def test_finished_run_without_checkpoints_is_kept(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Removed to save space: what was measured stays until it is discarded or renamed on request."""
    run = tmp_path / "seed0"
    shutil.copytree(small.run("fedavg"), run)
    write_json(run / "eval/metrics.json", {"entries": []})
    shutil.rmtree(run / "checkpoint")
    before = contents(run)
    with pytest.raises(
        UserError, match=r"seed0: contains a run whose checkpoints .* are missing.*Restore .*--no-resume"
    ):
        small.train(run, "fedavg")
    assert contents(run) == before and (run / "eval/metrics.json").is_file()
    train_run(small.spec("fedavg"), small.folder, run, True, quiet, replace=True)
    assert contents(run) == contents(small.run("fedavg"))
    assert contents(tmp_path / "replaced-seed0-1") == before
    assert "Old run renamed to replaced-seed0-1." in capsys.readouterr().err


def test_checkpoints_of_another_version_are_kept(small: Small, tmp_path: Path) -> None:
    """The settings are the same, but what a version counts as settings is not: its digests differ."""
    spec = small.spec("fedavg")
    write_json(tmp_path / "config.json", run_config(spec, vars(spec.make_method()), scenario_digests(small.folder)))
    save_progress(tmp_path / "checkpoint", Progress(1), "of another version")
    with pytest.raises(UserError, match="checkpoints .* are missing or of another version"):
        small.train(tmp_path, "fedavg")
    assert (tmp_path / "checkpoint/round-1/complete.json").is_file()


def test_run_of_another_version_is_one_message(small: Small, tmp_path: Path) -> None:
    """A field that this version does not have, or one that it needs."""
    run = tmp_path / "seed0"
    shutil.copytree(small.run("fedavg"), run)
    config, manifest = read_json(run / "config.json"), read_json(run / "manifest.json")
    for changed, said in (
        ({"profile_config": config["profile_config"] | {"from_tomorrow": 1}}, r"profile_config\.from_tomorrow: Extra"),
        ({"scenario_config": {}}, r"scenario_config\.name: Field required"),
        ({"scenario_config": None}, r"scenario_config: Input should be"),
    ):
        write_json(run / "config.json", config | changed)
        files = manifest["files"] | {"config.json": sha256_file(run / "config.json")}
        write_json(run / "manifest.json", manifest | {"files": files, "versions": {"pilot-bench": "9.8"}})
        with pytest.raises(
            UserError, match=rf"seed0/config\.json \(of pilot-bench 9\.8\): field {said}.* use that ver"
        ):
            run_spec(run)


def test_one_process_in_a_runs_folder(small: Small, tmp_path: Path) -> None:
    """Trainers and answers alike; what the first one has is not touched."""
    run = tmp_path / "small/runs/pilot/seed0"
    shutil.copytree(small.run("pilot"), run)
    before = contents(run)
    seconds: list[Callable[[], object]] = [
        lambda: small.train(run, "pilot"),
        lambda: train_run(small.spec("pilot"), small.folder, run, False, quiet),
        lambda: train_run(small.spec("majority"), small.folder, run, True, quiet),
        lambda: answer_run(run, quiet),
    ]
    with locked(run):
        for second in seconds:
            with pytest.raises(UserError, match=rf"pilot/seed0: in use by process {os.getpid()} on "):
                second()
    assert contents(run) == before


@pytest.mark.slow
@pytest.mark.exhaustive
def test_sigkill_and_resume(small: Small, tmp_path: Path) -> None:
    profile = tmp_path / "tiny.yaml"
    profile.write_text(PROFILE.replace("rounds: 2", "rounds: 8"))
    command = [
        sys.executable,
        "-c",
        "from pilot.cli.main import main; main()",
        "train",
        "--method",
        "pilot",
        "--seed",
        "9",
    ]
    command += ["--scenario", str(small.scenario_file), "--profile", str(profile), "--results", str(small.results)]
    run = small.folder / "runs/pilot/seed9"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    pointer = run / "checkpoint/round-1/complete.json"
    while process.poll() is None and not pointer.is_file():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (run / "manifest.json").exists() and read_json(pointer)["round"] < 8
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert not list(run.rglob(".*.part"))
    spec = RunSpec(small.scenario, load_profile(profile), "pilot", 9)
    train_run(spec, small.folder, tmp_path / "uninterrupted", False, quiet)
    assert contents(run) == contents(tmp_path / "uninterrupted")


NEWEST = ("checkpoint/round-2/server.safetensors", "checkpoint/round-2/history.json", "clients/4/r2p0.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["bit", "cut", "gone"])
@pytest.mark.parametrize("name", [*NEWEST, "checkpoint/round-2/complete.json"])
def test_damage_is_named_and_the_round_before_is_used(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    """Only the last round is trained again, to the same bytes. Without `complete.json` a round does not count."""
    run = tmp_path / "run"
    shutil.copytree(small.run("pilot"), run)
    harmed = run / name
    data = bytearray(harmed.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "gone":
        harmed.unlink()
    else:
        harmed.write_bytes(data if harm == "bit" else data[: len(data) // 2])
    steps: list[int] = []
    assert small.train(run, "pilot", progress=lambda done, total: steps.append(done)) == contents(small.run("pilot"))
    assert steps[0] > 18, "round 1 was not trained again"
    named = capsys.readouterr().err
    assert "Using the previous round" in named or (harm == "gone" and name.endswith("complete.json"))
    if not (harm == "gone" and name.endswith("complete.json")):
        assert str(harmed) in named


def test_damage_to_both_rounds_starts_anew(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.run("fedavg"), tmp_path / "run")
    for path in (tmp_path / "run").glob("checkpoint/round-*/server.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    steps: list[int] = []
    after = small.train(tmp_path / "run", "fedavg", progress=lambda done, total: steps.append(done))
    assert after == contents(small.run("fedavg")) and steps[0] == 3


def test_damaged_run_is_not_evaluated(small: Small, tmp_path: Path) -> None:
    """Evaluation does not fall back silently on another round."""
    shutil.copytree(small.run("pilot"), tmp_path / "run")
    private = tmp_path / "run/clients/4/r2p0.safetensors"
    private.write_bytes(private.read_bytes()[:-1])
    models = client_models(small.spec("pilot"), small.backbone, tmp_path / "run")
    models[(3,)]()
    with pytest.raises(UserError, match=r"clients/4/r2p0\.safetensors: checkpoint is damaged"):
        models[(4,)]()
    server = tmp_path / "run/checkpoint/round-2/server.safetensors"
    server.write_bytes(server.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"round-2/server\.safetensors: checkpoint is damaged"):
        client_models(small.spec("pilot"), small.backbone, tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "up", "down"),
    [
        ("pilot", {"task_adapter", "text_adapter"}, {"task_adapter", "text_adapter", "peer_task_adapter"}),
        ("fedavg", {"connector", "text_adapter"}, {"connector", "text_adapter"}),
        ("fedprox", {"connector", "text_adapter"}, {"connector", "text_adapter"}),
        ("fedmoe", {"experts", "router", "text_adapter", "statistics"}, {"experts", "router", "text_adapter"}),
        ("local", set(), set()),
        ("central", set(), set()),
    ],
)
def test_only_declared_groups_leave(small: Small, method: str, up: set[str], down: set[str]) -> None:
    messages = read_json(small.run(method) / "ledger.json")["messages"]
    for direction, groups in (("up", up), ("down", down)):
        assert {name for m in messages if m["direction"] == direction for name in m["groups"]} == groups


def test_bytes_equal_a_hand_count(small: Small) -> None:
    """FedAvg sends LoRA and connector twice and gets them once. Pilot sends after three phases; it gets its own and
    two other task adapters before each of the two stage-2 phases, and nothing before stage 1."""
    one = LORA_BYTES + CONNECTOR_BYTES
    totals = {name: read_json(small.run(name) / "ledger.json")["totals"] for name in ("fedavg", "pilot", "local")}
    assert totals["fedavg"] == {"bytes_up": 2 * 6 * one, "bytes_down": 6 * one}
    assert totals["pilot"] == {"bytes_up": 3 * 6 * one, "bytes_down": 2 * 6 * (one + 2 * CONNECTOR_BYTES)}
    assert totals["local"] == {"bytes_up": 0, "bytes_down": 0}
    first = read_json(small.run("fedavg") / "ledger.json")["messages"][0]
    assert first == {
        "round": 1, "phase": "train", "client": 0, "direction": "up",
        "groups": {"text_adapter": LORA_BYTES, "connector": CONNECTOR_BYTES},
    }  # fmt: skip


def test_diverging_run_says_so_and_ends(small: Small, tmp_path: Path) -> None:
    """Numbers that are not finite are null in the history, and no such update is aggregated."""
    spec = RunSpec(small.scenario, small.profile, "fedavg", 0, LearningRates(text_adapter=1e30, connector=1e30))
    train_run(spec, small.folder, tmp_path, False, quiet)
    rows = read_jsonl(tmp_path / "rounds.jsonl")
    assert [row["skipped"] for row in rows] == [True, True]
    excluded = rows[-1]["excluded"]
    assert [one["client"] for one in excluded] == [0, 1, 2, 3, 4, 5]
    assert all(one["reason"].endswith(": not finite") for one in excluded)
    assert rows[-1]["clients"][0]["losses"]["total"][-1] is None


def _stale(small: Small, folder: Path, rows: list[dict[str, Any]]) -> None:
    from pilot.data.partition import _write_assignment

    shutil.copytree(small.folder / "data", folder / "data")
    _write_assignment(folder / "partition/assignment.parquet", rows)


def test_partition_of_other_data_is_refused(small: Small, tmp_path: Path) -> None:
    _stale(small, tmp_path, [{"task": "scene-vqa", "id": "gone", "client": 0, "part": "train"}])
    with pytest.raises(
        UserError, match=r"partition: assigns record 'gone' of task scene-vqa to client 0.*pilot-bench partition"
    ):
        read_part(small.scenario, tmp_path, small.scenario.tasks[0], "train", frame="original")


def test_client_without_examples_is_refused(small: Small, tmp_path: Path) -> None:
    _stale(small, tmp_path, [{"task": "scene-vqa", "id": "x", "client": 0, "part": "validation"}])
    with pytest.raises(UserError, match=r"client 0 of task scene-vqa has no train examples\. Use fewer clients"):
        load_examples(small.scenario, tmp_path, small.backbone, small.features, "train", frame="original")


def test_a_clients_examples_are_tokenised_when_first_read(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, tokenised = small.examples[1], list[int]()

    def counted(*arguments: Any) -> list[Example]:
        tokenised.append(len(arguments[2]))
        return make_examples(*arguments)

    monkeypatch.setattr("pilot.federation.shards.make_examples", counted)
    records = records_of_part(small.scenario, small.folder, "train", frame="original")[1]
    examples = LazyExamples(small.backbone, small.features, records)
    assert len(examples) == len(records) and tokenised == []
    assert list(examples) == expected and tokenised == [len(records)]
    without = replace(records[0], known_sha256="none")
    with pytest.raises(UserError, match="features: no features for the image of record"):
        LazyExamples(small.backbone, small.features, [*records[1:], without])


def test_checkpoint_of_another_configuration_does_not_count(tmp_path: Path) -> None:
    save_progress(tmp_path, Progress(1), "a")
    assert load_progress(tmp_path, "b") is None
    found = load_progress(tmp_path, "a")
    assert found is not None and found.round_number == 1
