"""Publications of the smoke publishable, each opened by a reader of its format."""

import json
import os
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from pydantic import ValidationError
from pydantic_codemeta import CodeMetaV3
from rocrate.rocrate import ROCrate

from pilot.data.record import read_records
from pilot.io.atomic import read_json, read_jsonl
from pilot.io.digest import sha256_file
from pilot.report.publish.write import publish

from ..command_line import call
from ..docs.pages import ROOT, commands_of
from ..small import contents
from .conftest import PUBLISH_PAGE as PAGE

pytestmark = pytest.mark.slow

FORMATS = ("croissant", "ro-crate", "eee", "hf-eval-results")
REQUIRED = (
    *("rai:dataLimitations", "rai:dataBiases", "rai:personalSensitiveInformation", "rai:dataUseCases"),
    *("rai:dataSocialImpact", "rai:hasSyntheticData", "prov:wasDerivedFrom", "prov:wasGeneratedBy"),
)
"""Fields that the NeurIPS 2026 track on evaluations and data sets requires of every data set."""


@pytest.fixture(scope="module")
def published(publishable: Path, statements: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of docs/publish.md write, each format in a folder of its name."""
    folder = tmp_path_factory.mktemp("published")
    places = {"results/embedded/scenario2": publishable, "published": folder, "about.yaml": statements}
    places["exported/fedavg/.eval_results"] = folder / "hf-eval-results"
    for command in commands_of("publish.md", PAGE):
        text = command.text
        for name, place in places.items():
            text = text.replace(f" {name}", f" {place}")
        done = call(*text.split()[1:])
        assert done.returncode == 0 and "not stated" not in done.stderr, done.stderr
    return folder


def test_the_pages_commands(published: Path) -> None:
    """One for each format; the page states everything."""
    assert {path.name for path in published.iterdir()} == {*FORMATS}
    assert sorted(path.name for path in (published / "croissant").iterdir()) == [
        *("partition", "scene-caption", "scene-ground", "scene-vqa")
    ]


def test_croissant_reads_every_record(publishable: Path, published: Path) -> None:
    for task in ("scene-vqa", "scene-caption", "scene-ground"):
        dataset = mlcroissant.Dataset(published / "croissant" / task / "croissant.json")
        assert not dataset.metadata.ctx.issues.errors and not dataset.metadata.ctx.issues.warnings
        expected = read_records(publishable / "data" / task / "records.parquet")
        found = list(dataset.records("records"))
        assert [row["records/id"].decode() for row in found] == [record.id for record in expected]
        assert [row["records/answer"].decode() for row in found] == [record.answer for record in expected]
        assert found[0]["records/image"].size == (80, 80)
        boxes = [None if row["records/box"] is None else tuple(row["records/box"]) for row in found]
        assert boxes == [record.box for record in expected]
        assert dataset.metadata.data_biases and dataset.metadata.date_published.date().isoformat() == "2026-11-30"
    partition = mlcroissant.Dataset(published / "croissant/partition/croissant.json")
    assert not partition.metadata.ctx.issues.warnings
    rows = list(partition.records("assignment"))
    # 120 training examples of three tasks, of which each of two clients gets a share.
    assert len(rows) == 120 and {row["assignment/client"] for row in rows} == {*range(6)}


def test_croissant_states_what_is_required(publishable: Path, published: Path, tmp_path: Path) -> None:
    for file in (published / "croissant").glob("*/croissant.json"):
        metadata = read_json(file)
        assert not [name for name in REQUIRED if name not in metadata], file
        for described in metadata["distribution"]:
            assert sha256_file(file.parent / described["contentUrl"]) == described["sha256"]
    own = Path(shutil.copytree(publishable, tmp_path / "smoke"))
    card = read_json(own / "data/scene-vqa/card.json") | {"intake": {"licence": "not known"}}
    (own / "data/scene-vqa/card.json").write_text(json.dumps(card))
    notes = publish(own, "croissant", tmp_path / "out")
    note = next(note for note in notes if note.startswith("scene-vqa: not stated"))
    assert all(name in note for name in ("url", "license", "creator", *REQUIRED[:6]))
    assert not [name for name in REQUIRED[:6] if name in read_json(tmp_path / "out/scene-vqa/croissant.json")]


def test_crate_is_read_and_complete(published: Path) -> None:
    crate = ROCrate(published / "ro-crate")
    assert crate.mainEntity.id == "workflow/Snakefile"
    actions = {action.id: action for action in crate.get_by_type("CreateAction")}
    assert {*actions} == {"#runs-pilot-seed0", "#runs-fedavg-seed0", "#tables"}
    run = actions["#runs-pilot-seed0"]
    values = {each["name"]: each["value"] for each in run["object"] if each.type == "PropertyValue"}
    assert (values["method"], values["seed"], values["scenario"], values["profile"]) == ("pilot", "0", "smoke", "smoke")
    config = read_json(published / "ro-crate/runs/pilot/seed0/config.json")
    assert values["sha256 of data"] == config["digests"]["data"] and "data/manifest.json" in {
        e.id for e in run["object"]
    }
    assert run["agent"]["name"] == "Example Lab" and run["instrument"] is crate.mainEntity
    assert "runs/pilot/seed0/eval/samples.jsonl" in {each.id for each in run["result"]}
    graph = read_json(published / "ro-crate/ro-crate-metadata.json")["@graph"]
    files = {
        path.relative_to(published / "ro-crate").as_posix()
        for path in (published / "ro-crate").rglob("*")
        if path.is_file()
    }
    assert {entity["@id"] for entity in graph if "File" in entity["@type"]} == files - {"ro-crate-metadata.json"}
    known = {entity["@id"] for entity in graph}
    assert [link for link in links(graph) if link not in known and not link.startswith("http")] == []


def links(value: Any) -> list[str]:
    """All references to entities below a value."""
    if isinstance(value, list):
        return [link for each in value for link in links(each)]
    if not isinstance(value, dict):
        return []
    return [value["@id"]] if {*value} == {"@id"} else [link for each in value.values() for link in links(each)]


def test_crate_names_nobody_unless_stated(publishable: Path, tmp_path: Path) -> None:
    notes = publish(publishable, "ro-crate", tmp_path / "crate")
    assert notes == ["not stated, add to the file of --about: author, licence"]
    crate = ROCrate(tmp_path / "crate")
    assert not [action for action in crate.get_by_type("CreateAction") if "agent" in action]
    assert not crate.get_by_type("Person") and not crate.get_by_type("Organization")
    assert crate.root_dataset["license"]["name"] == "Licence not stated"


def test_records_hold_every_score_and_answer(publishable: Path, published: Path) -> None:
    files = sorted((published / "eee").rglob("*.json"))
    records = {read_json(file)["model_info"]["additional_details"]["method"]: read_json(file) for file in files}
    assert {*records} == {"pilot", "fedavg"}
    for method, record in records.items():
        folder = publishable / "runs" / method / "seed0/eval"
        available = [entry for entry in read_json(folder / "metrics.json")["entries"] if entry["value"] is not None]
        scores = {each["evaluation_result_id"]: each["score_details"]["score"] for each in record["evaluation_results"]}
        assert len(scores) == len(available)
        for entry in available:
            name = f"{entry['task']}/{entry['protocol']}/client-{entry['client']}/{entry['metric']}"
            assert scores[name] == entry["value"]
        details = record["detailed_evaluation_results"]
        lines = read_jsonl(published / "eee" / details["file_path"])
        assert details["total_rows"] == len(lines) == len(read_jsonl(folder / "per_example.jsonl"))
        assert details["checksum"] == sha256_file(published / "eee" / details["file_path"])
        by_result: dict[str, list[float]] = defaultdict(list)
        for line in lines:
            by_result[line["evaluation_result_id"]].append(line["evaluation"]["score"])
            assert (
                line["evaluation"]["is_correct"] == (line["evaluation"]["score"] == 1)
                or "exact" not in line["evaluation_result_id"]
            )
        exact = {name: values for name, values in by_result.items() if name.endswith("exact_match")}
        assert exact and all(sum(v) / len(v) == pytest.approx(scores[n], abs=1e-6) for n, v in exact.items())
        answers = {
            (row["id"], row["protocol"], k): row for row in read_jsonl(folder / "samples.jsonl") for k in row["clients"]
        }
        for line in lines:
            _, protocol, client, _ = line["evaluation_result_id"].split("/")
            answer = answers[line["sample_id"], protocol, int(client.removeprefix("client-"))]
            assert (
                line["output"]["raw"] == [answer["prediction"]] and line["input"]["reference"] == answer["references"]
            )
    questions = {
        record.id: record.instruction for record in read_records(publishable / "data/scene-vqa/records.parquet")
    }
    vqa = [line for line in lines if line["evaluation_name"].startswith("scene-vqa")]
    assert vqa and all(line["input"]["raw"] == questions[line["sample_id"]] for line in vqa)


def test_records_of_one_clients_model(publishable: Path, statements: Path, tmp_path: Path) -> None:
    publish(publishable / "runs/pilot/seed0", "eee", tmp_path / "eee", statements, client=3)
    (file,) = (tmp_path / "eee").rglob("*.json")
    record = read_json(file)
    assert {each["score_details"]["details"]["client"] for each in record["evaluation_results"]} == {"3"}
    assert (
        record["model_info"]["id"] == "example-lab/pilot-smoke-smoke-seed-0-client-3"
        and file.parent.name in record["model_info"]["id"]
    )
    lines = read_jsonl(tmp_path / "eee" / record["detailed_evaluation_results"]["file_path"])
    assert {line["evaluation_result_id"].split("/")[2] for line in lines} == {"client-3"}


def test_hub_results_are_parsed(publishable: Path, published: Path, statements: Path, tmp_path: Path) -> None:
    publish(publishable, "hf-eval-results", tmp_path / "all", statements)
    assert len([*(tmp_path / "all").iterdir()]) == 2 * 6, "two runs of six clients"
    (one,) = (published / "hf-eval-results").iterdir()
    assert one.read_bytes() == (tmp_path / "all/smoke-fedavg-seed0-client0.yaml").read_bytes()
    file = tmp_path / "all/smoke-fedavg-seed0-client4.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.date) == ("example/pilot-scenes", "scene-ground", "2026-11-30")
    assert entry.source_url == "https://example.org/results"
    scored = read_json(publishable / "runs/fedavg/seed0/eval/metrics.json")["entries"]
    (value,) = [
        each["value"]
        for each in scored
        if (each["client"], each["metric"], each["protocol"]) == (4, "acc@0.5[original]", "personalised")
    ]
    assert entry.value == value and "acc@0.5[original]; fedavg, seed 0, client 4" in str(entry.notes)


def test_same_inputs_same_bytes(publishable: Path, published: Path, statements: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(publishable, tmp_path / "elsewhere/smoke/smoke"))
    for form in ("croissant", "ro-crate", "eee"):
        publish(moved, form, tmp_path / form, statements)
        assert contents(tmp_path / form) == contents(published / form), form


def test_codemeta_says_what_the_package_says() -> None:
    found = read_json(ROOT / "codemeta.json")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert CodeMetaV3.model_validate(found).version == project["version"]
    assert (found["name"], found["description"]) == (project["name"], project["description"])
    assert found["license"].removeprefix("https://spdx.org/licenses/") == citation["license"] == "Apache-2.0"
    assert project["classifiers"] == ["License :: OSI Approved :: Apache Software License"]
    assert found["runtimePlatform"] == f"Python {project['requires-python']}"
    assert (found["keywords"], [each["name"] for each in found["author"]]) == (
        citation["keywords"],
        [each["name"] for each in citation["authors"]],
    )
    assert found["referencePublication"]["@id"].endswith(citation["references"][0]["doi"])
    with pytest.raises(ValidationError):
        CodeMetaV3.model_validate(found | {"author": 3})


@pytest.mark.exhaustive
def test_the_crate_is_valid(published: Path, tmp_path: Path) -> None:
    """By roc-validator, in a separate environment; its cache, or ROCRATE_VALIDATOR_CACHE, has RO-Crate's context."""
    program = shutil.which("rocrate-validator")
    if program is None:
        pytest.skip("rocrate-validator is not in the PATH: install roc-validator in a separate environment")
    found = validate_crate(program, published / "ro-crate", tmp_path / "report.json")
    if any("Unable to retrieve the JSON-LD context" in issue["message"] for issue in found["issues"]):
        pytest.skip("rocrate-validator has no RO-Crate context in its cache: run `rocrate-validator cache warm`")
    assert found["passed"] and found["issues"] == []
    assert found["statistics"]["total_passed_checks"] >= 57, "of RO-Crate 1.1 and the three profiles"
    broken = Path(shutil.copytree(published / "ro-crate", tmp_path / "broken"))
    metadata = (broken / "ro-crate-metadata.json").read_text(encoding="utf-8")
    (broken / "ro-crate-metadata.json").write_text(metadata.replace('"instrument"', '"participant"'))
    assert not validate_crate(program, broken, tmp_path / "report.json")["passed"], "no action runs the workflow"


def validate_crate(program: str, crate: Path, report: Path) -> Any:
    """What the validator says of all required checks of the profiles that the crate names."""
    options = ("--offline", "--no-paging", "-l", "required", "-f", "json", "-o", str(report))
    cache = os.environ.get("ROCRATE_VALIDATOR_CACHE")
    subprocess.run([program, "-y", "validate", *options, *(["--cache-path", cache] if cache else []), str(crate)])
    return read_json(report)


@pytest.mark.exhaustive
def test_the_records_are_valid(published: Path, tmp_path: Path) -> None:
    """By the checks of the datastore, also of paths and lines; the package asks for Python 3.12 but runs here."""
    reason = "pip install --no-deps --ignore-requires-python every-eval-ever==0.3.0"
    validation = pytest.importorskip("every_eval_ever.validator.validation_core", reason=reason)
    top = Path(shutil.copytree(published / "eee", tmp_path / "eee"))
    files = {path.relative_to(top).as_posix(): path for path in top.rglob("*") if path.is_file()}

    def check(name: str) -> Any:
        read = {"available_files": frozenset(files), "read_repo_file": lambda other: files[other].read_text()}
        return validation.validate_file(files[name], repo_path=name, run_semantic_checks=True, **read)

    assert len(files) == 2 * 2
    assert [
        (name, found.errors, found.warnings) for name in files if (found := check(name)).errors or found.warnings
    ] == []
    lines = next(path for path in files.values() if path.suffix == ".jsonl")
    lines.write_text(lines.read_text(encoding="utf-8").replace('"is_correct":', '"correct":', 1), encoding="utf-8")
    assert not check(lines.relative_to(top).as_posix()).valid
