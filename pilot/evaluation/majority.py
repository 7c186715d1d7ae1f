"""Runs of `majority`, the blind reference: no training and no model, but the files of any other run."""

from pathlib import Path

from baselines.majority import majority_answer
from pilot.data.record import read_records
from pilot.evaluation.answers import check_same_data, run_spec, sample_rows
from pilot.federation.ledger import Ledger
from pilot.federation.shards import read_part
from pilot.federation.spec import RunSpec, run_config, scenario_digests, write_manifest
from pilot.folders import scenario_folder
from pilot.io.atomic import remove, write_json, write_jsonl
from pilot.io.lock import locked


def write_majority_run(spec: RunSpec, scenario_dir: Path, run_dir: Path) -> None:
    """Configuration, empty history and ledger, manifest."""
    with locked(run_dir):
        remove(run_dir / "manifest.json")
        config = run_config(spec, {}, scenario_digests(scenario_dir))
        write_json(run_dir / "config.json", config)
        write_jsonl(run_dir / "rounds.jsonl", [])
        write_json(run_dir / "ledger.json", Ledger(0).to_json())
        write_json(run_dir / "timing.json", dict.fromkeys(("wall_seconds", "train_seconds", "aggregate_seconds"), 0.0))
        write_manifest(run_dir, config)


def answer_majority(run_dir: Path) -> None:
    """`eval/samples.jsonl`: one answer per task, from the training parts of its clients."""
    spec, scenario_dir = run_spec(run_dir), scenario_folder(run_dir)
    check_same_data(run_dir, scenario_dir)
    rows = []
    for task in spec.scenario.tasks:
        train = read_part(spec.scenario, scenario_dir, task, "train")
        answer = majority_answer([record for client in sorted(train) for record in train[client]])
        records = read_records(scenario_dir / "data" / task.name / "records.parquet", images=False)
        test = [record for record in records if record.split == "test"]
        shards = read_part(spec.scenario, scenario_dir, task, "local_test")
        rows += sample_rows(task.name, test, shards, {record.id: answer for record in records})
    write_jsonl(run_dir / "eval" / "samples.jsonl", rows)
