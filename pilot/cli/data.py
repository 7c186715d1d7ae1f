"""`pilot-bench data`: build, check and import data."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import BoxForm, JsonOption, Kind, ProfileOption, QuestionForm, ResultsOption, ScenarioOption
from pilot.cli.progress import progress

data_app = typer.Typer(help="Build, check and import data.", no_args_is_help=True)


@data_app.command("build")
def build(
    scenario: ScenarioOption, profile: ProfileOption = "embedded", results: ResultsOption = Path("results")
) -> None:
    """Compose or read a scenario's images, questions, captions and boxes; write a data card beside each."""
    from pilot.config.load import load_setting
    from pilot.data.build import build_data

    loaded, _, folder = load_setting(scenario, profile, results)
    with progress(f"building data of {loaded.name}") as advance:
        sizes = {task.name: 0 for task in loaded.tasks}
        total = sum(task.num_train + task.num_test for task in loaded.tasks)

        def report(task: str, done: int, _: int) -> None:
            sizes[task] = done
            advance(sum(sizes.values()), total)

        closing = build_data(loaded, folder, report)
    for task, line in closing.items():
        typer.echo(f"{task}: {line}", err=True)


@data_app.command("validate")
def validate(
    files: Annotated[list[Path], typer.Argument(help="records.parquet files.")], as_json: JsonOption = False
) -> None:
    """Check record files: columns, boxes, references, splits disjoint by image."""
    from pilot.data.record import read_records

    counts = {str(path): len(read_records(path)) for path in files}
    typer.echo(
        json.dumps(counts, indent=2) if as_json else "\n".join(f"{p}: {n} records, valid" for p, n in counts.items())
    )


@data_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON lines, CSV or TSV (docs/own-data.md), or LLaVA's JSON.")],
    images: Annotated[Path, typer.Option(help="Folder that the rows' image paths are relative to.")],
    task: Annotated[Kind, typer.Option(help="Kind of task.")],
    name: Annotated[str, typer.Option(help="Name of the task.")],
    to: Annotated[Path, typer.Option(help="Output folder, preferably below $PILOT_DATASETS (default: datasets).")],
    held_out: Annotated[
        float | None, typer.Option(help="Share of images for testing, if no row is in split test.")
    ] = None,
    boxes: Annotated[BoxForm | None, typer.Option(help="Format of boxes (grounding, own files).")] = None,
    form: Annotated[
        list[QuestionForm] | None, typer.Option(help="LLaVA's JSON: form of the questions to keep; repeat the option.")
    ] = None,
    keep_turns: Annotated[bool, typer.Option("--keep-turns", help="LLaVA's JSON: one row per conversation.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the held-out share.")] = 0,
    max_quarantine: Annotated[float, typer.Option(min=0, max=1, help="Largest share of unusable rows.")] = 0.01,
    licence: Annotated[str, typer.Option(help="Licence, for the data card.")] = "",
    scenario: Annotated[Path | None, typer.Option(help="Also write a scenario file with only this task.")] = None,
) -> None:
    """Check your own examples and images, and write them as records for scenarios (`source: imported`)."""
    from pilot.data.importing import ImportRequest, import_data, reader_options, write_scenario

    options = reader_options(boxes, [each.value for each in form or ()], keep_turns)
    request = ImportRequest(
        file, images, task, name, to, held_out, options, seed, max_quarantine, licence
    )  # fmt: skip
    with progress(f"importing {file.name}") as advance:
        imported = import_data(request, advance)
    typer.echo(f"See {to / 'card.md'} and {to / 'contact_sheet.png'}. A task for a scenario file:", err=True)
    typer.echo(imported.task, nl=False)
    typer.echo(f"{to}: {imported.total}", err=True)
    if scenario:
        write_scenario(scenario, imported)
