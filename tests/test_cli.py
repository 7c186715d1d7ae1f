"""The command line: answers at once, refuses bad input in one message. A few commands run in real processes."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilot.backbone.random_model import write_random_model
from pilot.cli import main
from pilot.cli.doctor import _bytecode, diagnose
from pilot.config.load import load_profile
from pilot.data.record import COLUMNS
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run

from .command_line import VARIABLES, Done, call
from .report.synthetic import build_scenario
from .small import PROFILE, SCENARIO, Small, contents, quiet

COMMAND = [sys.executable, "-c", "from pilot.cli.main import main; main()"]
ENVIRONMENT = os.environ | VARIABLES


def start(*arguments: object) -> Done:
    """Run `pilot-bench` with these arguments in a process of its own."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


def refused(result: Done, *parts: str) -> None:
    """Exit code 2 and one message with these parts, no traceback, nothing on standard output."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1 and result.stderr.startswith("error: ")
    for part in parts:
        assert part in result.stderr, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a scenario and a profile file, and nothing else."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    (tmp_path / "tiny.yaml").write_text(PROFILE)
    return tmp_path


def where(files: Path, results: Path | None = None) -> list[str]:
    """The options that name scenario, profile and results."""
    target = results or files / "results"
    return ["-s", str(files / "small.yaml"), "-p", str(files / "tiny.yaml"), "--results", str(target)]


def change(files: Path, **fields: Any) -> None:
    """Rewrite the scenario with other fields; `task` holds changes of the first task."""
    values = yaml.safe_load(SCENARIO)
    values["tasks"][0] |= fields.pop("task", {})
    (files / "small.yaml").write_text(yaml.safe_dump(values | fields))


def test_help_answers_at_once() -> None:
    """At most three times the processor time of the libraries that print it: seconds depend on machine and load."""
    libraries = [sys.executable, "-c", "import typer, typer.rich_utils"]
    ours, theirs = [], []
    for _ in range(5):
        ours.append(processor_time([*COMMAND, "--help"]))
        theirs.append(processor_time(libraries))
    assert 0 < min(theirs) < min(ours) < 3 * min(theirs)


def processor_time(command: list[str]) -> float:
    """Seconds that a process and its children computed; it must succeed."""
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


@pytest.mark.parametrize(
    "what", ["scenarios", "profiles", "tasks", "faults", "variants", "studies", "metrics", "backbones"]
)
def test_listings_parse(what: str) -> None:
    entries = json.loads(call("list", what, "--json").stdout)
    expected = {
        "scenarios": "scenario2", "profiles": "embedded", "tasks": "scene-ground", "faults": "dropout-10",
        "variants": "no-ata", "studies": "zoo", "backbones": "tiny-llava", "metrics": "acc@0.5[original]",
    }  # fmt: skip
    assert expected[what] in entries and all(isinstance(text, str) and text for text in entries.values())


def test_doctor_knows_backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It downloads nothing: a checkpoint that is not here is said to be missing, one that is here is checked."""
    monkeypatch.setenv("PILOT_MODELS", str(tmp_path))
    found = {name: diagnose(name)["backbone"] for name in ("embedded", "smolvlm-random", "smolvlm-256m")}
    assert [finding["ok"] for finding in found.values()] == [True, True, False]
    assert "HuggingFaceTB/SmolVLM-256M-Instruct is downloaded" in found["smolvlm-256m"]["detail"]
    write_random_model(load_profile("smolvlm-random").architecture, tmp_path / "smolvlm-256m")
    assert "model_type smolvlm" in diagnose("smolvlm-256m")["backbone"]["detail"]
    (tmp_path / "smolvlm-256m" / "model.safetensors").write_bytes(b"torn")
    assert "damaged safetensors file" in diagnose("smolvlm-256m")["backbone"]["detail"]


def test_doctor_names_imports_that_are_compiled_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch.py"))
    for dont_write, word in ((False, "will be kept"), (True, "PYTHONDONTWRITEBYTECODE is set")):
        monkeypatch.setattr(sys, "dont_write_bytecode", dont_write)
        found = _bytecode()
        assert found["ok"] and word in found["detail"]


def test_doctor_parses() -> None:
    result = call("doctor", "--json")
    findings = json.loads(result.stdout)
    assert set(findings) == {
        "python",
        "packages",
        "bytecode",
        "java",
        "backbone",
        "disk",
        "memory",
        "processors",
        "speed",
    }
    assert findings["speed"]["gflops"] > 1 and len(findings["speed"]["minutes"]) == 2
    assert result.returncode == (0 if all(finding["ok"] for finding in findings.values()) else 1)


def test_wrong_field(files: Path) -> None:
    change(files, task={"num_trian": 40})
    refused(
        call("data", "build", *where(files)),
        "small.yaml: field tasks.0.num_trian: unknown name 'num_trian'. Did you mean 'num_train'?",
        "Rename or remove it.",
    )
    change(files, task={"num_train": 0})
    refused(call("partition", *where(files)), "small.yaml: field tasks.0.num_train: ", "got 0. Correct this field.")
    assert sorted(path.name for path in files.iterdir()) == ["small.yaml", "tiny.yaml"]


def test_unknown_names(files: Path) -> None:
    refused(
        call("train", "-m", "fedagv", *where(files)),
        "field --method: unknown name 'fedagv'. Did you mean 'fedavg'? Expected one of: central, ",
    )
    refused(
        call("train", "-m", "fedavg", "-s", "scenario4"),
        "scenario: unknown name 'scenario4'. Did you mean 'scenario",
        "Expected one of: llava-scenario1, llava-scenario2, llava-scenario3, scenario1, scenario2, scenario3, smoke",
    )
    refused(
        call("train", "-m", "fedavg", "-s", "smoke", "-p", "lava"),
        "profile: unknown name 'lava'.",
        "embedded, internvl-random, internvl3-1b, llava, ",
    )
    refused(call("data", "build", "-s", str(files / "none.yaml")), "none.yaml: cannot be read", "Give an existing")
    change(files, methods=["pilot", "fedsgd"])
    refused(call("train", "-m", "fedavg", *where(files)), "small.yaml: field methods: unknown name 'fedsgd'")
    change(files, task={"lm_eval_task": "scene_vqa"})
    refused(call("train", "-m", "fedavg", *where(files)), "field tasks.0.lm_eval_task: unknown name 'scene_v")
    rates = "learning_rates: {pilto: {text_adapter: 1, connector: 1}, "
    (files / "tiny.yaml").write_text(PROFILE.replace("learning_rates: {", rates))
    change(files)
    refused(call("train", "-m", "fedavg", *where(files)), "tiny.yaml: field learning_rates: unknown name 'pilto'")
    assert sorted(path.name for path in files.iterdir()) == ["small.yaml", "tiny.yaml"]


def test_missing_data(files: Path) -> None:
    missing = "results/tiny/small/data/manifest.json: missing. Run `pilot-bench data build --scenario small --profile"
    refused(start("partition", *where(files)), missing)
    refused(
        call("train", "-m", "fedavg", *where(files)),
        "results/tiny/small/data/manifest.json: missing. Run `pilot-bench data build",
    )
    assert not (files / "results").exists()


@pytest.fixture
def built(small: Small, files: Path) -> Path:
    """The scenario's data in the results of `files`."""
    shutil.copytree(small.folder / "data", files / "results/tiny/small/data")
    return files


def listing(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_missing_column(built: Path) -> None:
    import pyarrow.parquet as parquet

    path = built / "results/tiny/small/data/scene-caption/records.parquet"
    parquet.write_table(parquet.read_table(path, columns=[c for c in COLUMNS if c != "attributes"]), path)
    before = listing(built)
    refused(call("partition", *where(built)), "scene-caption/records.parquet: damaged or unexpected content")
    refused(
        call("data", "validate", path), "records.parquet: column 'attributes' is missing (found: id, ",
        "Add it, or remove the file and build the data again",
    )  # fmt: skip
    assert listing(built) == before


def test_more_clients_than_examples(built: Path) -> None:
    before = listing(built)
    change(built, task={"num_clients": 41})
    refused(
        call("partition", *where(built)),
        "task scene-vqa, field num_clients: 41 clients are more than the 40 training examples. Lower num_clients",
    )
    assert listing(built) == before


@pytest.mark.slow
def test_empty_shard(built: Path) -> None:
    before = listing(built)
    change(built, task={"num_clients": 20}, min_client_examples=1, validation_fraction=0.3, local_test_fraction=0.3)
    refused(
        call("partition", *where(built)), "client 0: 2 images leave an empty training shard", "Raise num_train or lower"
    )
    assert listing(built) == before


def test_unwritable_results(small: Small, files: Path) -> None:
    """A file stands where a folder would have to be (root may write anywhere else)."""
    (files / "file").write_text("")
    expected = "file/results/tiny/small/data/manifest.json: cannot be removed (Not a directory). Choose another folder."
    refused(call("data", "build", *where(files, files / "file/results")), expected)
    folder = files / "results/tiny/small"
    shutil.copytree(small.folder / "data", folder / "data")
    (folder / "partition").write_text("")
    refused(call("partition", *where(files)), "partition/heterogeneity.json: cannot be removed (Not a directory)")
    assert listing(files) == sorted(
        ["file", "small.yaml", "tiny.yaml", "results/tiny/small/partition"]
        + [f"results/tiny/small/data/{name}" for name in listing(small.folder / "data")]
    )


def test_compare_of_nothing(tmp_path: Path) -> None:
    refused(call("compare", tmp_path), "no runs here (looked for runs/<method>/seed<k>). Train some first")
    refused(call("compare", tmp_path / "none"), "none: no such folder. Expected a scenario folder such as")


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A scenario folder with data and a run that nobody trained."""
    return build_scenario(tmp_path, ("fedavg",), (0,))


def test_import_of_wrong_files(made_up: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    arguments = ["--format", "vlmevalkit", "--as", "llava-next", "--into", made_up]
    refused(call("import", tmp_path / "none.tsv", *arguments), "none.tsv: cannot be read", ".xlsx, .tsv or .json")
    (tmp_path / "m_d.tsv").write_text("index\tanswer\nscene-vqa-000\tyes\n")
    refused(
        call("import", tmp_path / "m_d.tsv", *arguments), "m_d.tsv, row 1: field 'prediction' is missing (found: answer"
    )
    (tmp_path / "m_d.tsv").write_text("index\tprediction\nscene-vqa-000\tyes\nscene-vqa-x\tno\n")
    refused(
        call("import", tmp_path / "m_d.tsv", *arguments),
        "1 of its ids are unknown, first: 'scene-vqa-x'; 39 ids have no answer, first: 'scene-vqa-001', ",
    )
    assert listing(tmp_path) == sorted([*before, "m_d.tsv"])
    assert call("compare", made_up, "--allow-different", "weather").returncode == 2


@pytest.mark.slow
def test_import_and_compare(made_up: Path, tmp_path: Path) -> None:
    lines = [{"task": "scene-vqa", "id": f"scene-vqa-{n:03d}", "prediction": "yes"} for n in range(40)]
    (tmp_path / "theirs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = call("import", tmp_path / "theirs.jsonl", "--format", "jsonl", "--as", "llava-next", "--into", made_up)
    assert result.returncode == 0, result.stderr
    assert "llava-next/seed0: scene-vqa (40 answers); without scene-caption, scene-ground" in result.stderr
    (grid,) = json.loads(call("compare", made_up, "--json").stdout)["scenarios"]
    # The answers of the made-up test set are yes, no, three, violin in turn.
    assert [row["mean"] for row in grid["rows"] if row["imported"]] == [0.25, None, None]
    refused(call("evaluate", made_up / "runs/llava-next/seed0"), "this run was imported and has no model")


@pytest.mark.slow
def test_evaluate_of_no_run(tmp_path: Path) -> None:
    refused(call("evaluate", tmp_path), f"{tmp_path}: not a finished run (manifest.json is missing). Train it first.")
    refused(call("evaluate", "--no-answers", tmp_path), "eval/samples.jsonl: no such file. Evaluate the run first")
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_unwritable_run_folder(small: Small, files: Path) -> None:
    folder = files / "results/tiny/small"
    for name in ("data", "partition", "features"):
        shutil.copytree(small.folder / name, folder / name)
    (folder / "runs").write_text("")
    before = listing(files)
    refused(call("train", "-m", "fedavg", *where(files)), "runs/fedavg/seed0", "Choose another folder.")
    assert listing(files) == before


@pytest.mark.parametrize(("number", "code", "says"), [(signal.SIGTERM, 143, "terminat"), (signal.SIGHUP, 129, "hung")])
def test_signals_of_batch_systems_leave_through_every_finally(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int, says: str
) -> None:
    left: list[str] = []

    def command(**options: str) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(30)
        finally:
            left.append("finally")

    before = signal.signal(number, signal.SIG_DFL)
    monkeypatch.setattr(main, "app", command)
    try:
        with pytest.raises(SystemExit) as stopped:
            main.main()
    finally:
        signal.signal(number, before)
    assert (stopped.value.code, left) == (code, ["finally"])
    assert capsys.readouterr().err.startswith(says)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_ctrl_c_and_again(small: Small, files: Path) -> None:
    folder = files / "results/tiny/small"
    for name in ("data", "partition", "features"):
        shutil.copytree(small.folder / name, folder / name)
    (files / "tiny.yaml").write_text(PROFILE.replace("rounds: 2", "rounds: 8"))
    command = [*COMMAND, "train", "-m", "fedavg", *where(files)]
    # Who starts the tests in a shell's background has them ignore SIGINT, and children inherit that.
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    run = folder / "runs/fedavg/seed0"
    while process.poll() is None and not (run / "checkpoint/round-1/complete.json").is_file():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate()
    assert process.returncode == 130 and "Traceback" not in message
    assert "interrupted; finished work is kept" in message
    assert not (run / "manifest.json").exists() and not list(run.rglob("*.part"))
    finished = max(int(p.parent.name[6:]) for p in run.glob("checkpoint/round-*/complete.json"))
    assert 1 <= finished < 8
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0 and f"{6 * 3 * 8}/{6 * 3 * 8}" in again.stderr
    spec = RunSpec(small.scenario, load_profile(files / "tiny.yaml"), "fedavg", 0)
    train_run(spec, folder, files / "uninterrupted", False, quiet)
    assert contents(run) == contents(files / "uninterrupted")


def test_discarding_and_keeping_do_not_go_together(files: Path) -> None:
    both = call("train", "-m", "fedavg", *where(files), "--no-resume", "--replace-changed")
    refused(both, "--replace-changed, --no-resume: the first keeps an old run, the second discards it")


def test_version() -> None:
    """As a bug report names it, without importing what commands need."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    expected = next(line.split('"')[1] for line in text.splitlines() if line.startswith("version = "))
    done = start("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pilot-bench {expected}\n", "")


@pytest.mark.parametrize(
    "command",
    ["bench evaluation", "bench train-step", "bench round", "bench rivals", "tables", "figures", "report", "faults",
     "tuning", "compare", "privacy"],
)  # fmt: skip
def test_a_scenario_folder_that_is_not_there(command: str, tmp_path: Path) -> None:
    done = call(*command.split(), tmp_path / "none")
    refused(done, "none: no such folder. Expected a scenario folder such as results/embedded/scenario2")
