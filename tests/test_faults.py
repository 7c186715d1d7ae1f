"""Fault files, and runs with a fault from the command line to scores."""

import shutil
from pathlib import Path

import pytest

from pilot.config.fault import load_fault
from pilot.config.files import known_names
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.evaluation.answers import answer_run
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.layout import run_folder
from pilot.provenance import fault_digest
from pilot.runs.train import train_method

from .small import Small, quiet


def test_shipped_faults() -> None:
    """Those of the issue, each with the settings that its name says, and two that a defence meets."""
    settings = {name: load_fault(name).federation for name in known_names("faults")}
    assert {name: each.participation.dropout for name, each in settings.items() if name.startswith("dropout")} == {
        "dropout-10": 0.1, "dropout-30": 0.3, "dropout-50": 0.5
    }  # fmt: skip
    attacks = {name: [(a.kind, a.clients) for a in each.attacks] for name, each in settings.items() if each.attacks}
    flip, scale = [("sign_flip", (1,))], [("scale", (1,))]
    assert attacks == {
        "nan-client": [("nan", (1,))], "free-rider": [("free_rider", (1,))], "sign-flip": flip,
        "sign-flip-median": flip, "scaled": scale, "scaled-median": scale,
    }  # fmt: skip
    defended = {name for name, each in settings.items() if each.defence.aggregation == "median"}
    assert defended == {"sign-flip-median", "scaled-median"}
    assert all(load_fault(name).name == name for name in known_names("faults"))
    assert load_profile("embedded").federation not in settings.values()
    assert load_scenario("scenario2").clients_of("scene-vqa") == (0, 1, 2)  # client 1 is the middle of the first task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ntitle: x\n", r"field federation: missing. Add it"),
        ("name: x\ntitle: x\nfederation: {atacks: []}\n", r"unknown name 'atacks'. Did you mean 'attacks'\?"),
        (
            "name: x\ntitle: x\nfederation: {attacks: [{kind: sign, clients: [1]}]}\n",
            r"field federation.attacks.0.kind: .*'nan', 'sign_flip', 'scale' or 'free_rider'",
        ),
        (
            "name: x\ntitle: x\nfederation: {attacks: [{kind: nan, clients: [1]}, {kind: scale, clients: [1]}]}\n",
            r"field federation: attacks: expected at most one fault per client, got clients \[1, 1\]",
        ),
        ("- name: x\n", "expected a mapping of fields, got list"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"mine.yaml: .*{message}"):
        load_fault(file)


def test_unknown_fault() -> None:
    with pytest.raises(UserError, match=r"fault: unknown name 'signflip'. Did you mean 'sign-flip'\?"):
        load_fault("signflip")


def test_digest_follows_what_happens_and_not_the_title(tmp_path: Path) -> None:
    def digest(name: str, **changes: str) -> str:
        text = "name: x\ntitle: One\nfederation:\n  participation: {dropout: 0.25}\n"
        for old, new in changes.items():
            text = text.replace(old, new)
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        return fault_digest(str(file))

    assert digest("a") == digest("b", One="Two") != digest("c", dropout="stragglers")


@pytest.fixture
def copy(small: Small, tmp_path: Path) -> Path:
    """The results folder of the small scenario without runs."""
    ignored = shutil.ignore_patterns("runs")
    shutil.copytree(small.folder, tmp_path / "results/tiny/small", ignore=ignored)
    return tmp_path / "results"


def train(small: Small, results: Path, method: str, fault: str | None) -> Path:
    """Train a method of the small scenario with a fault."""
    files = str(small.scenario_file), str(small.profile_file)
    return train_method(*files, method, 0, results, True, quiet, fault=fault)


@pytest.mark.slow
def test_run_with_a_nan_client(small: Small, copy: Path) -> None:
    run = train(small, copy, "fedavg", "nan-client")
    assert run == run_folder(copy / "tiny/small", "fedavg", 0, "nan-client")
    rows = read_jsonl(run / "rounds.jsonl")
    assert [[each["client"] for each in row["excluded"]] for row in rows] == [[1], [1]]
    assert all(each["reason"].endswith(": not finite") for row in rows for each in row["excluded"])
    assert not any(row["skipped"] for row in rows)
    assert read_json(run / "config.json")["profile_config"]["federation"]["attacks"][0]["kind"] == "nan"
    answer_run(run, quiet)  # finds the data two levels further up
    asked = read_jsonl(run / "eval" / "samples.jsonl")
    assert {client for row in asked for client in row["clients"]} == {0, 1, 2, 3, 4, 5}


def test_free_rider_is_aggregated_and_changes_the_result(small: Small, copy: Path) -> None:
    """What it sends is valid, so nothing is excluded, and the model differs from that of honest clients."""
    run = train(small, copy, "fedavg", "free-rider")
    assert not any(row["excluded"] for row in read_jsonl(run / "rounds.jsonl"))
    server = "checkpoint/round-1/server.safetensors"
    assert (run / server).read_bytes() != (small.run("fedavg") / server).read_bytes()


def test_faults_that_do_not_fit_are_refused(small: Small, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--fault nan-client: majority trains no clients that could fail"):
        train(small, copy, "majority", "nan-client")
    file = tmp_path / "far.yaml"
    file.write_text("name: far\ntitle: x\nfederation: {attacks: [{kind: nan, clients: [0, 6]}]}\n")
    expected = r"fault far: field federation.attacks.0.clients: scenario small has no client 6, .* 0..5"
    with pytest.raises(UserError, match=expected):
        train(small, copy, "fedavg", str(file))
    assert not (copy / "tiny/small/runs").exists() and not (copy / "tiny/small/faults").exists()
