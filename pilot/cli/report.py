"""Commands that present results: tables, figures, reports and comparisons."""

from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import (
    AllowOption,
    BaselineOption,
    JsonOption,
    OnlyMethodsOption,
    PaperOption,
    ProfileOption,
    ProtocolTable,
    PublishFormat,
    ResultsOption,
    ScenarioDirArgument,
    TableFormat,
    TestOption,
)
from pilot.errors import UserError


def compare(
    paths: Annotated[list[Path], typer.Argument(help="Scenario, method or run folders.")],
    baseline: BaselineOption = "fedavg",
    format: Annotated[TableFormat, typer.Option("--format", "-f", help="Output format.")] = "table",
    as_json: JsonOption = False,
    allow_different: AllowOption = None,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference", help="Compare a scenario folder with the committed reference; exit code 1 if they differ."
        ),
    ] = False,
    changes: Annotated[
        bool | None,
        typer.Option("--changes/--side-by-side", help="Show changes from OLD to NEW, or all methods in one table."),
    ] = None,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="Exit code 1 if something changed beyond noise.")
    ] = False,
    show: Annotated[ProtocolTable | None, typer.Option(help="Show this table instead.")] = None,
    test: TestOption = "training",
) -> None:
    """Compare methods by task: mean, spread and interval, significant differences, and cost.

    With two result folders OLD NEW of the same profile and scenario, show what changed beyond noise, by method. With
    `--show`: curves over rounds and bytes, when targets are reached, every client's model on every task, how clients
    differ, what newcomers get, what imaging conditions change, or what was forgotten.
    """
    form = "json" if as_json else format
    if show is not None:
        if reference or changes or fail_on_change:
            raise UserError(f"--show {show}: not valid with --reference, --changes or --fail-on-change. Omit them.")
        from pilot.report.compare.protocols import show_protocol

        text = show_protocol(paths, show, form, allow_different or ())
        if text is not None:
            typer.echo(text, nl=False)
        return
    if reference:
        _compare_with_reference(paths, form)
        return
    if changes is None:
        changes = fail_on_change or _are_versions(paths)
    if changes:
        _compare_versions(paths, form, fail_on_change)
        return
    if fail_on_change:
        raise UserError("--fail-on-change: not valid with --side-by-side, which detects no changes. Omit one of them.")
    from pilot.report.compare.side_by_side import compare as compare_runs

    text = compare_runs(paths, baseline, form, allow_different or (), test=test)
    if text is not None:
        typer.echo(text, nl=not text.endswith("\n"))


def power(
    paths: Annotated[list[Path], typer.Argument(help="Scenario, method or run folders.")],
    difference: Annotated[
        list[str],
        typer.Option(help="True difference in the metric's unit: a number for all tasks, or TASK=NUMBER; repeat it."),
    ],
    baseline: BaselineOption = "fedavg",
    format: Annotated[TableFormat, typer.Option("--format", "-f", help="Output format.")] = "table",
    as_json: JsonOption = False,
    allow_different: AllowOption = None,
) -> None:
    """Say how many seeds a difference to the baseline needs, from the variation that finished runs show."""
    from pilot.report.compare.power import show_power

    text = show_power(paths, difference, baseline, "json" if as_json else format, allow_different or ())
    if text is not None:
        typer.echo(text, nl=False)


def replication(
    paths: Annotated[list[Path], typer.Argument(help="Scenario, method or run folders.")],
    seeds: Annotated[int, typer.Option(help="Number of seeds in either set: the first ones, and the next.")] = 5,
    baseline: BaselineOption = "fedavg",
    format: Annotated[TableFormat, typer.Option("--format", "-f", help="Output format.")] = "table",
    as_json: JsonOption = False,
    allow_different: AllowOption = None,
) -> None:
    """Say what share of the marks of some seeds is confirmed by as many others."""
    from pilot.report.compare.replication import show_replication

    text = show_replication(paths, seeds, baseline, "json" if as_json else format, allow_different or ())
    if text is not None:
        typer.echo(text, nl=False)


def _compare_with_reference(paths: list[Path], form: str) -> None:
    from pilot.report.compare.reference import against_reference, agrees, as_text

    if len(paths) != 1:
        raise UserError(f"--reference: expected one scenario folder, got {len(paths)} paths.")
    rows = against_reference(paths[0])
    typer.echo(as_text(rows, form), nl=False)
    if not agrees(rows):
        raise typer.Exit(1)


def _are_versions(paths: list[Path]) -> bool:
    from pilot.report.compare.changes import same_settings

    return len(paths) == 2 and same_settings(paths[0], paths[1])


def _compare_versions(paths: list[Path], form: str, fail_on_change: bool) -> None:
    from pilot.report.compare.change_text import as_text
    from pilot.report.compare.changes import find_changes

    if len(paths) != 2:
        raise UserError(f"--changes: expected two result folders, OLD and NEW, got {len(paths)}.")
    found = find_changes(paths[0], paths[1])
    typer.echo(as_text(found, form), nl=False)
    if fail_on_change and found.changed:
        raise typer.Exit(1)


def tables(
    scenario_dir: ScenarioDirArgument,
    baseline: BaselineOption = "fedavg",
    allow_different: AllowOption = None,
    method: OnlyMethodsOption = None,
) -> None:
    """Write tables/ of a scenario: CSV, Markdown and LaTeX."""
    from pilot.report.tables.write import write_tables

    write_tables(scenario_dir, baseline, allow_different or (), method)


def figures(
    scenario_dir: ScenarioDirArgument,
    method: OnlyMethodsOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these figures; repeat the option.")] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Draw paper/ instead: PDFs as wide as a column and as the text.")
    ] = False,
) -> None:
    """Draw figures/ of a scenario as PNG and PDF."""
    from pilot.report.plots.write import write_figures

    for path in write_figures(scenario_dir, method, only, paper):
        typer.echo(str(path), err=True)


def report(
    scenario_dir: ScenarioDirArgument,
    method: OnlyMethodsOption = None,
    samples: Annotated[int, typer.Option(min=0, help="Maximum test examples per task in the sample browser.")] = 300,
) -> None:
    """Write report.html of a scenario: one self-contained page for any browser, without network."""
    from pilot.report.html.page import write_report

    typer.echo(str(write_report(scenario_dir, method, samples)), err=True)


def faults(scenario_dir: ScenarioDirArgument, paper: PaperOption = False) -> None:
    """Write faults/tables and faults/figures: how much quality runs lose with each fault."""
    from pilot.report.tables.fault import write_faults

    for path in write_faults(scenario_dir, paper):
        typer.echo(str(path), err=True)


def study(
    name: Annotated[str, typer.Argument(help="Study by name or file; see `pilot-bench list studies`.")],
    results: ResultsOption = Path("results"),
    profile: ProfileOption = "embedded",
    part: Annotated[list[str] | None, typer.Option(help="Only these parts, no index.md; repeat the option.")] = None,
    method: OnlyMethodsOption = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds; by default each scenario's own.")] = None,
    paper: PaperOption = False,
) -> None:
    """Write studies/<study>: a table and a figure of every part, from finished runs."""
    from pilot.config.study import load_study
    from pilot.report.tables.study import write_study

    chosen = load_study(name).subset(parts=part or (), methods=method or (), seeds=seeds)
    for path in write_study(chosen, profile, results, index=not part, paper=paper):
        typer.echo(str(path), err=True)


def tuning(scenario_dir: ScenarioDirArgument, method: OnlyMethodsOption = None) -> None:
    """Write tuning/tuning.csv and tuning.md of a scenario: every trial of every tuned method."""
    from pilot.report.tables.tuning import write_tuning

    for path in write_tuning(scenario_dir, method):
        typer.echo(str(path), err=True)


def pack(
    paths: Annotated[list[Path], typer.Argument(help="Scenario, method or run folders.")],
    to: Annotated[Path, typer.Option(help="File to write, whose name ends in .tar.xz.")],
    everything: Annotated[
        bool, typer.Option("--everything", help="Also answers, and evaluations other than the last round's.")
    ] = False,
) -> None:
    """Pack what finished runs measured: settings, scores by example, bytes, times; no models, data or features."""
    from pilot.report.pack import pack_runs

    typer.echo(f"{to}: {pack_runs(paths, to, everything)} runs, {to.stat().st_size / 1e6:.2f} MB", err=True)


def unpack(
    files: Annotated[list[Path], typer.Argument(help="Files of `pilot-bench pack`.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Unpack runs into a results folder, for `compare`, `study`, `power` and `replication`."""
    from pilot.report.pack import unpack_runs

    for file in files:
        found = unpack_runs(file, results)
        typer.echo(f"{file}: {len(found.new)} runs written to {results}, {len(found.known)} were there", err=True)


def tensorboard(
    paths: Annotated[list[Path], typer.Argument(help="Scenario, method or run folders; runs may still be training.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder for the event files; by default tensorboard/ of the scenario's folder.")
    ] = None,
) -> None:
    """Write event files for TensorBoard: losses, router weights, drift, bytes, times and final metrics of each run."""
    from pilot.report.tensorboard import write_events

    for path in write_events(paths, to):
        typer.echo(str(path), err=True)


def publish(
    results: Annotated[Path, typer.Argument(help="Scenario folder; for scores also a method or run folder.")],
    format: Annotated[PublishFormat, typer.Option("--format", "-f", help="Format to write.")],
    to: Annotated[Path, typer.Option(help="Output folder; must be absent or empty.")],
    about: Annotated[
        Path | None, typer.Option(help="YAML file that states author, licence, date and what is known of data.")
    ] = None,
    client: Annotated[int | None, typer.Option(min=0, help="Only the scores of this client's model.")] = None,
) -> None:
    """Write data (croissant), results (ro-crate) or scores (eee, hf-eval-results) for publication; upload nothing."""
    from pilot.report.publish.write import publish as write_publication

    for note in write_publication(results, format, to, about, client):
        typer.echo(note, err=True)
    typer.echo(str(to), err=True)


COMMANDS = (
    *(compare, power, replication, tables, figures, report, faults, study, tuning, tensorboard, pack, unpack),
    publish,
)
