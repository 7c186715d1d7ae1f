"""`pilot-bench plan`: estimate of what a scenario needs, before anything starts."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import JsonOption, ProfileOption, ResultsOption


def plan(
    scenario: Annotated[str, typer.Argument(help="Scenario name, or a path to its YAML file.")],
    profile: ProfileOption = "embedded",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Only these methods; repeat the option.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs; one client trains on each.")] = 1,
    memory: Annotated[float, typer.Option(min=0.001, help="Memory of one GPU in GB (10^9 bytes).")] = 80.0,
    text_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the longest prompt and answer, no image.")] = 128,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the longest answer.")] = 32,
    tflops: Annotated[float | None, typer.Option(min=1e-6, help="Sustained 10^12 operations/s of one GPU.")] = None,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Estimate memory, disk, bytes per round, steps and hours; suggest changes if a method does not fit."""
    from pilot.config.load import load_setting, scenario_for_profile
    from pilot.plan.plan import PlanInputs, make_plan
    from pilot.plan.text import as_text
    from pilot.runs.inputs import check_method_option

    loaded, sizes, folder = load_setting(scenario_for_profile(scenario, profile), profile, results)
    methods = method or list(loaded.methods)
    check_method_option(methods)
    asked = PlanInputs(
        loaded, sizes, methods, gpus, round(memory * 1e9), text_tokens, min(answer_tokens, text_tokens), tflops
    )  # fmt: skip
    made = make_plan(asked, folder)
    typer.echo(json.dumps(made, indent=2, sort_keys=True) if as_json else as_text(made))
