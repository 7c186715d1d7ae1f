"""`pilot-bench`: argument parsing and calls only; the code that does the work is imported when a command needs it."""

# ruff: noqa: E402

import io
import json
import os
import signal
import sys
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

if any(action == "error" for action, *_ in warnings.filters):
    warnings.resetwarnings()  # with PYTHONWARNINGS=error other packages cannot be imported; show their warnings

import typer

from pilot.cli.audit import COMMANDS as AUDIT_COMMANDS
from pilot.cli.backbone import backbone_app
from pilot.cli.bench import bench_app
from pilot.cli.data import data_app
from pilot.cli.deploy import deploy_app
from pilot.cli.entries import COMMANDS as ENTRY_COMMANDS
from pilot.cli.export import export
from pilot.cli.options import (
    BoxFrame,
    Engine,
    FaultOption,
    ImportFormat,
    JsonOption,
    Listing,
    ProfileOption,
    ResultsOption,
    ResumeOption,
    ScenarioOption,
)
from pilot.cli.plan import plan
from pilot.cli.progress import progress
from pilot.cli.report import COMMANDS
from pilot.cli.run import run
from pilot.errors import UserError

SIGNALS = {130: "interrupted", 143: "terminated", 129: "hung up"}
"""Exit codes: Ctrl-C, which Typer turns into 130; SIGTERM, which batch systems send; a closed terminal (SIGHUP)."""

app = typer.Typer(
    name="pilot-bench",
    help="Benchmark suite for federated multimodal instruction tuning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_app, name="data")
app.add_typer(backbone_app, name="backbone")
app.add_typer(bench_app, name="bench")
app.add_typer(deploy_app, name="deploy")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pilot-bench {version('pilot-bench')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, then exit.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_(what: Listing, as_json: JsonOption = False) -> None:
    """List methods, scenarios, profiles, tasks, faults, variants, studies, backbones or metrics."""
    from pilot.cli.listing import catalogue, print_methods

    entries = catalogue(what)
    if as_json:
        typer.echo(json.dumps(entries, indent=2, sort_keys=True))
        return
    if what == "methods":
        print_methods(entries)
        return
    width = max(len(name) for name in entries)
    for name, summary in entries.items():
        typer.echo(f"{name:<{width}}  {summary}")


@app.command()
def partition(
    scenario: ScenarioOption, profile: ProfileOption = "embedded", results: ResultsOption = Path("results")
) -> None:
    """Split a scenario's training data over its clients and report how different they are."""
    from pilot.config.load import load_setting
    from pilot.data.partition import partition_data

    loaded, _, folder = load_setting(scenario, profile, results)
    partition_data(loaded, folder)


@app.command()
def train(
    scenario: ScenarioOption,
    method: Annotated[str, typer.Option("--method", "-m", help="See `pilot-bench list methods`.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial values and batches.")] = 0,
    profile: ProfileOption = "embedded",
    results: ResultsOption = Path("results"),
    resume: ResumeOption = True,
    engine: Annotated[Engine, typer.Option(help="This process, or Flower's simulation (Ray).")] = "local",
    fault: FaultOption = None,
    client_cpus: Annotated[float, typer.Option(min=0.1, help="Cores of a client, with --engine flower.")] = 1.0,
    client_gpus: Annotated[float, typer.Option(min=0, help="GPUs of a client, with --engine flower.")] = 0.0,
    replace_changed: Annotated[
        bool,
        typer.Option("--replace-changed", help="Rename an existing run with other settings or source, and start over."),
    ] = False,
) -> None:
    """Train one method with one seed; write runs/<method>/seed<k> of the scenario, or of its faults/<fault>."""
    from pilot.report.tracking import track
    from pilot.runs.train import train_method

    with progress(f"{method}, seed {seed}") as advance:
        run_dir = train_method(
            scenario, profile, method, seed, results, resume, advance, engine, fault, client_cpus, client_gpus,
            replace_changed, track,
        )  # fmt: skip
    typer.echo(str(run_dir), err=True)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of one scenario.")],
    answers: Annotated[bool, typer.Option(help="Generate answers, or only score existing ones.")] = True,
    score: Annotated[bool, typer.Option(help="Score answers; faster for many runs at once.")] = True,
    summary: Annotated[Path | None, typer.Option(help="Also write digests of all scores to this file.")] = None,
    frame: Annotated[
        list[BoxFrame] | None, typer.Option(help="Also score boxes as if relative to this frame; repeat the option.")
    ] = None,
) -> None:
    """Answer test sets with trained runs, and score the answers (VQA, captioning, grounding)."""
    if answers:
        from pilot.evaluation.imported.run import refuse_imported

        refuse_imported(runs)
        from pilot.evaluation.answers import answer_run

        for run_dir in runs:
            with progress(f"answering with {run_dir}") as advance:
                answer_run(run_dir, advance)
    if score:
        from pilot.evaluation.scoring import score_runs

        score_runs(runs, [each.value for each in frame or ()])
        from pilot.report.tracking import track_scores

        track_scores(runs)
        if summary:
            from pilot.io.atomic import write_json
            from pilot.io.digest import sha256_file
            from pilot.io.layout import METRICS, evaluation_folder, evaluations

            scored = {run: [evaluation_folder(run, name) for name in evaluations(run, METRICS)] for run in runs}
            digests = {str(run): {f.name: sha256_file(f / METRICS) for f in folders} for run, folders in scored.items()}
            write_json(summary, digests)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Per-sample file of another evaluation tool.")],
    format: Annotated[ImportFormat, typer.Option("--format", "-f", help="Tool that wrote the file.")],
    name: Annotated[str, typer.Option("--as", help="Name of the imported run in tables.")],
    into: Annotated[Path, typer.Option(help="Scenario folder: results/<profile>/<scenario>.")],
    task: Annotated[str | None, typer.Option(help="Task that was answered; by default found from the ids.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run, if there are several of one name.")] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace answers that were imported before.")] = False,
    frame: Annotated[BoxFrame | None, typer.Option(help="Frame of the boxes; the profile's by default.")] = None,
) -> None:
    """Import another tool's answers as a run that `compare` reads: check the test sets, and score the answers.

    Repeat the command for every task. Boxes are read in the frame of the profile unless `--frame` names another.
    """
    from pilot.evaluation.imported.run import import_answers

    imported = import_answers(file, format, name, into, task, seed, replace, frame.value if frame else None)
    typer.echo(str(imported), err=True)


for command in (*COMMANDS, *AUDIT_COMMANDS, *ENTRY_COMMANDS, export, plan, run):
    app.command()(command)


@app.command()
def tune(
    scenario: ScenarioOption,
    method: Annotated[str, typer.Option("--method", "-m", help="See `pilot-bench list methods`.")],
    profile: ProfileOption = "embedded",
    results: ResultsOption = Path("results"),
) -> None:
    """Try the profile's grid of learning rates on validation data; write tuning/<method>.json."""
    from pilot.runs.tune import tune_method

    with progress(f"tuning {method}") as advance:
        path = tune_method(scenario, profile, method, results, advance)
    typer.echo(path.read_text(), nl=False)


@app.command()
def doctor(as_json: JsonOption = False, profile: ProfileOption = "embedded") -> None:
    """Check that this machine has what the suite and a profile's backbone need; exit code 1 if not."""
    from pilot.cli.doctor import diagnose

    findings = diagnose(profile)
    if as_json:
        typer.echo(json.dumps(findings, indent=2, sort_keys=True))
    else:
        for name, finding in findings.items():
            typer.echo(f"{'ok  ' if finding['ok'] else 'FAIL'}  {name}: {finding['detail']}")
    if not all(finding["ok"] for finding in findings.values()):
        raise typer.Exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit through every `finally`, so that started processes end, with the shell's exit code for the signal."""
    raise SystemExit(128 + number)


def main() -> Any:
    """Run the command line; exit with one message and code 2 on a user error, with 130, 143 or 129 on a signal."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # in any locale: tables contain ±, † and arrows
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # under nohup, SIGHUP stays ignored
                signal.signal(number, _stop)
    try:
        if sys.flags.optimize:
            raise UserError(
                "Python runs without assertions (PYTHONOPTIMIZE or -O), but they check results here. Unset "
                "PYTHONOPTIMIZE, or run Python without -O."
            )
        return app(prog_name="pilot-bench")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code in SIGNALS:
            rest = "finished work is kept; run the same command again to resume"
            print(f"{SIGNALS[stop.code]}; {rest}", file=sys.stderr)
        raise
