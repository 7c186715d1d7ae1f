"""`pilot-bench run`: the whole pipeline, wherever the package is installed."""

from typing import Annotated

import typer


def run(
    words: Annotated[
        list[str],
        typer.Argument(metavar="TARGET... [-- OPTION...]", help="What to make; behind `--`, options of Snakemake."),
    ],
    cores: Annotated[str, typer.Option(help="Number of cores, or all.")] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="List the jobs only.")] = False,
    config: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the workflow; repeat the option.")
    ] = None,
) -> None:
    """Make tables, figures and report in the current folder, with the workflow of the package and Snakemake.

    A target is a rule (scenario2, smoke, zoo, ...), a scenario or study of pipelines/ here, or a file below results/.
    """
    from pilot.runs.workflow import run_workflow

    raise typer.Exit(run_workflow(words, cores, dry_run, config or ()))
