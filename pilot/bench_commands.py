"""`pilot-bench bench NAME`: the suite timed beside the tools that are used otherwise."""

import json
from typing import Annotated

import typer

from pilot.options import JsonOption, ScenarioDirArgument
from pilot.progress import progress

bench_app = typer.Typer(help="The suite timed beside other tools.", no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """The suite timed beside other tools."""


@bench_app.command()
def evaluation(
    scenario_dir: ScenarioDirArgument,
    method: Annotated[list[str] | None, typer.Option(help="Only runs of these methods; repeat the option.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first records of each test set and part.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the stock class; 512 is the best of those tried.")] = 512,
    as_json: JsonOption = False,
) -> None:
    """Evaluate all trained runs as `evaluate` does and through lm-eval's `hf-multimodal`, and compare."""
    from pilot.evaluation.bench import as_text, bench_evaluation

    with progress(f"both ways of {scenario_dir}") as advance:
        report = bench_evaluation(scenario_dir, method or (), limit, batch_size, advance)
    typer.echo(json.dumps(report, indent=2, sort_keys=True) if as_json else as_text(report))
