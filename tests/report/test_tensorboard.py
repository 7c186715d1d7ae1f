"""Event files, read back by TensorBoard's own reader."""

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from pilot.cli.main import app
from pilot.errors import UserError
from pilot.io.atomic import read_json, read_jsonl
from pilot.report.tensorboard import FILE, write_events

from .synthetic import build_run


def scalars(file: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a tag."""
    reader = EventAccumulator(str(file.parent), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


@pytest.fixture
def run(scenario_copy: Path) -> Path:
    """A run of Pilot: one round of two phases of four steps, then two of one phase of eight."""
    return scenario_copy / "runs" / "pilot" / "seed1"


def test_tensorboard_reads_what_the_run_recorded(run: Path, tmp_path: Path) -> None:
    (file,) = write_events([run], tmp_path / "events")
    assert file == tmp_path / "events" / "embedded" / "scenario2" / "pilot" / "seed1" / FILE
    rounds = list(read_jsonl(run / "rounds.jsonl"))
    clients = [[row["losses"]["cross_entropy"] for row in line["clients"]] for line in rounds]
    own = [loss for line in clients for loss in line[3]]
    found = scalars(file, "loss/cross_entropy/client-3")
    assert [step for step, _ in found] == list(range(1, 25))
    assert [value for _, value in found] == pytest.approx(own)
    mean = scalars(file, "loss/cross_entropy/mean")
    assert mean[4] == (5, pytest.approx(sum(losses[0] for losses in clients[1]) / 9)), "first step of the second phase"
    # Drift of seed 1 is 0.1 by round and 0.01 more; 0.5 more in stage 1.
    assert scalars(file, "drift/stage2") == [
        (1, pytest.approx(0.11)),
        (2, pytest.approx(0.21)),
        (3, pytest.approx(0.31)),
    ]
    assert scalars(file, "drift/stage1") == [(1, pytest.approx(0.61))]
    weights = rounds[-1]["clients"][4]["diagnostics"]["router_probabilities"]
    assert scalars(file, "router/client-4/scene-caption")[-1] == (3, pytest.approx(weights[1]))
    # Nine clients send 400,000 + 100,000 + 100,000 bytes; twice in round 1.
    assert scalars(file, "bytes/up") == [(1, 10_800_000.0), (2, 5_400_000.0), (3, 5_400_000.0)]
    assert scalars(file, "time/wall_seconds") == [(3, 61.5)]
    values = [
        entry["value"]
        for entry in read_json(run / "eval" / "metrics.json")["entries"]
        if (entry["metric"], entry["protocol"]) == ("acc@0.5[original]", "personalised")
    ]
    ((step, value),) = scalars(file, "eval/scene-ground/acc_0.5_original_/personalised/mean")
    assert (step, value) == (3, pytest.approx(sum(values) / 3)) and len(values) == 3


def test_the_same_bytes_every_time_and_none_of_the_run_changes(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (file,) = write_events([run])
    scenario = run.parents[2]
    assert file == scenario / "tensorboard" / "pilot" / "seed1" / FILE
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    first = file.read_bytes()
    assert write_events([run]) == [file] and file.read_bytes() == first
    assert [path.name for path in file.parent.iterdir()] == [FILE]


def test_a_run_that_is_training_has_the_rounds_it_finished(run: Path, tmp_path: Path) -> None:
    lines = (run / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run / "rounds.jsonl").write_text("".join(lines[:3]))
    for name in ("manifest.json", "ledger.json", "timing.json"):
        (run / name).unlink()
    shutil.rmtree(run / "eval")
    (file,) = write_events([run], tmp_path)
    assert [step for step, _ in scalars(file, "loss/total/mean")] == list(range(1, 17))
    reader = EventAccumulator(str(file.parent))
    reader.Reload()
    kinds = {tag.split("/")[0] for tag in reader.Tags()["scalars"]}
    assert kinds == {"loss", "drift", "excluded", "router"}
    (run / "rounds.jsonl").unlink()
    with pytest.raises(UserError, match="no run has finished a round"):
        write_events([run], tmp_path)


def test_a_loss_that_is_not_finite_is_left_out(run: Path, tmp_path: Path) -> None:
    text = (run / "rounds.jsonl").read_text()
    first = read_jsonl(run / "rounds.jsonl")[0]["clients"][0]["losses"]["total"][0]
    (run / "rounds.jsonl").write_text(text.replace(str(first), "null", 1))
    (file,) = write_events([run], tmp_path)
    assert [step for step, _ in scalars(file, "loss/total/client-0")] == list(range(2, 25))
    assert scalars(file, "loss/total/mean")[0][0] == 1


def test_runs_with_a_fault_have_folders_of_their_own(scenario_copy: Path, tmp_path: Path) -> None:
    faulty = build_run(scenario_copy / "faults" / "dropout-50" / "runs" / "fedavg" / "seed0", "fedavg", 0)
    written = write_events([scenario_copy / "runs" / "fedavg" / "seed0", faulty], tmp_path)
    folders = [file.parent.relative_to(tmp_path / "embedded" / "scenario2") for file in written]
    assert folders == [Path("fedavg/seed0"), Path("faults/dropout-50/fedavg/seed0")]


def test_command(scenario_copy: Path) -> None:
    result = CliRunner().invoke(app, ["tensorboard", str(scenario_copy / "runs" / "fedavg")])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        str(scenario_copy.resolve() / "tensorboard" / "fedavg" / f"seed{seed}" / FILE) for seed in (0, 1, 2)
    ]
