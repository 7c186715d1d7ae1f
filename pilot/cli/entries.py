"""Commands for entries of the leaderboard: `submit`, `verify`, `leaderboard`."""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilot.cli.progress import progress
from pilot.errors import UserError

if TYPE_CHECKING:
    from pilot.report.entries.verify import Verified

RERUN_TOLERANCE = 0.1
"""Largest share by which a headline metric may differ when a seed is trained again on another processor."""
EntryFiles = Annotated[list[Path], typer.Argument(help="Files of `pilot-bench submit`.")]


def submit(
    runs: Annotated[list[Path], typer.Argument(help="The runs of one method: its folder below runs/, or run folders.")],
    to: Annotated[Path, typer.Option(help="File to write, whose name ends in .tar.xz.")],
    by: Annotated[str, typer.Option(help="Who submits; nothing by default.")] = "",
    note: Annotated[str, typer.Option(help="One line about the entry.")] = "",
    url: Annotated[str, typer.Option(help="Address of a paper or of code.")] = "",
) -> None:
    """Pack one method's runs as an entry of the leaderboard: answers, scores, settings, digests; no data, no models."""
    from pilot.report.entries.submit import write_entry

    entry = write_entry(runs, to, version("pilot-bench"), by, note, url)
    seeds = ", ".join(map(str, entry.seeds))
    size = to.stat().st_size / 1e6
    typer.echo(f"{to}: {entry.method} on {entry.scenario} ({entry.profile}), seeds {seeds}, {size:.2f} MB", err=True)


def verify(
    files: EntryFiles,
    rerun: Annotated[bool, typer.Option("--rerun", help="Also train the first seed again and compare.")] = False,
) -> None:
    """Check entries: files, settings, budget, data, test sets, scores from answers; exit with 2 if any is wrong."""
    wrong = 0
    for file in files:
        found = _verified(file)
        for check in found.checks:
            typer.echo(f"{file}: {check.name}: {'ok' if not check.problems else 'wrong'}")
            for problem in check.problems:
                typer.echo(f"  {problem}")
        wrong += bool(found.problems)
        if rerun and not found.problems:
            wrong += not _rerun(file)
    if wrong:
        raise typer.Exit(2)


def leaderboard(
    files: EntryFiles,
    to: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/leaderboard.md"),
) -> None:
    """Verify entries and write the page with all of them; an entry with a problem is named and nothing is written."""
    from pilot.io.atomic import write_text
    from pilot.report.entries.page import leaderboard as page_of

    entries = {file: _verified(file) for file in files}
    for file, found in entries.items():
        if found.problems:
            raise UserError(f"{file}: {'; '.join(found.problems)}. Ask for a corrected entry, or leave it out.")
    write_text(to, page_of(entries))


def _verified(file: Path) -> "Verified":
    from pilot.report.entries.verify import verify_entry

    return verify_entry(file, version("pilot-bench"))


def _rerun(file: Path) -> bool:
    """Train an entry's first seed again in a temporary folder, and report what differs; return whether it is close."""
    from pilot.io.atomic import read_json
    from pilot.report.numbers.load import load_runs
    from pilot.report.pack import unpack_runs

    with TemporaryDirectory() as name:
        folder = Path(name)
        unpack_runs(file, folder / "entry")
        given = load_runs([folder / "entry"])[0]
        config = given.config
        profile = _profile_of(config, folder / f"{config['profile']}.yaml")
        made = _trained(config, profile, folder / "results")
        run = load_runs([made])[0]
        server = [read_json(path / "manifest.json", {"files": dict})["files"] for path in (given.path, made)]
        state = max((each for each in server[0] if each.endswith("server.safetensors")), default="", key=_round)
        if state and server[0][state] == server[1].get(state):
            typer.echo(f"{file}: rerun of seed {given.seed}: the same model, byte for byte")
            return True
        if config["digests"]["source"] != run.config["digests"]["source"]:
            typer.echo("  source: the entry was trained with other code than this version's")
        good = True
        for task in given.tasks:
            values = [_headline(each, task.name, task.metric) for each in (given, run)]
            share = abs(values[0] - values[1]) / max(abs(values[0]), 1e-9)
            good &= share <= RERUN_TOLERANCE
            typer.echo(f"  {task.name}: {task.metric} {values[0]:.4f} in the entry, {values[1]:.4f} here ({share:.1%})")
        typer.echo(
            f"{file}: rerun of seed {given.seed}: {'close' if good else 'too far'} (limit {RERUN_TOLERANCE:.0%})"
        )
        return good


def _round(name: str) -> int:
    return int(name.split("round-")[1].split("/")[0])


def _headline(run: Any, task: str, metric: str) -> float:
    """Return a run's mean of a metric over its clients' own models."""
    values = [
        each.value for each in run.entries
        if (each.task, each.metric, each.protocol) == (task, metric, "personalised") and each.value is not None
    ]  # fmt: skip
    return sum(values) / len(values)


def _profile_of(config: dict[str, Any], file: Path) -> Path:
    """Write the shipped profile with the entry's learning rates and options to a file; return it."""
    import yaml

    from pilot.config.load import load_profile

    values = load_profile(config["profile"]).model_dump(mode="json")
    method, chosen = config["method"], config["hyperparameters"]
    values["learning_rates"][method] = chosen["learning_rates"]
    values["method_options"][method] = chosen["options"]
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def _trained(config: dict[str, Any], profile: Path, results: Path) -> Path:
    """Build the scenario's data, train and evaluate the run; return its folder."""
    from pilot.backbone.features import compute_features
    from pilot.backbone.from_profile import load_backbone
    from pilot.config.load import load_setting
    from pilot.data.build import build_data
    from pilot.data.conditions import scenario_images
    from pilot.data.partition import partition_data
    from pilot.evaluation.answers import answer_run
    from pilot.evaluation.scoring import score_runs
    from pilot.runs.train import train_method

    scenario, sizes, folder = load_setting(config["scenario"], str(profile), results)
    build_data(scenario, folder, lambda task, done, total: None)
    partition_data(scenario, folder)
    with scenario_images(scenario, folder) as images:
        compute_features(load_backbone(sizes), sizes, images, folder / "features", lambda done, total: None, typer.echo)
    with progress(f"training {config['method']}, seed {config['seed']}, again") as advance:
        run = train_method(config["scenario"], str(profile), config["method"], config["seed"], results, False, advance)
    answer_run(run, lambda done, total: None)
    score_runs([run])
    return run


COMMANDS = (submit, verify, leaderboard)
