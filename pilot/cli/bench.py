"""`pilot-bench bench NAME`: benchmarks of the suite against other tools, and over many clients."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilot.cli.options import JsonOption, ProfileOption, ResultsOption, ScenarioDirArgument
from pilot.cli.progress import progress

if TYPE_CHECKING:
    from pilot.bench.kernels.report import Report

RepeatsOption = Annotated[int, typer.Option(min=1, help="Repetitions of every case.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="Small sizes, for a quick check.")]
ScenarioNameOption = Annotated[str, typer.Option(help="Name or YAML file; the folder's name by default.")]
ProfileNameOption = Annotated[str, typer.Option(help="Name or YAML file; the parent folder's name by default.")]
TimedRoundsOption = Annotated[int, typer.Option(min=2, help="Rounds of each run; the first one is not timed.")]
RunRepeatsOption = Annotated[int, typer.Option(min=1, help="Repetitions of each run.")]

bench_app = typer.Typer(help="Benchmarks against other tools, and over many clients.", no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """Time the suite against other tools, and over many clients."""


@bench_app.command()
def evaluation(
    scenario_dir: ScenarioDirArgument,
    method: Annotated[list[str] | None, typer.Option(help="Only runs of these methods; repeat the option.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first records of each test set and part.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of lm-eval's class (the fastest).")] = 512,
    as_json: JsonOption = False,
) -> None:
    """Evaluate all trained runs with `evaluate` and with lm-eval's `hf-multimodal`, and compare time and answers."""
    from pilot.bench.evaluation.bench import as_text, bench_evaluation

    with progress(f"evaluating {scenario_dir} twice") as advance:
        report = bench_evaluation(scenario_dir, method or (), limit, batch_size, advance)
    _print_report(report, as_text, as_json)


@bench_app.command()
def federation(
    quick: QuickOption = False,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Measure time and memory of the server over the number of clients, which are synthetic. About ten minutes."""
    from pilot.bench.scale.bench import QUICK, Sizes, bench_federation
    from pilot.bench.scale.files import write_with_figure
    from pilot.bench.scale.plot import draw
    from pilot.bench.scale.text import as_text

    with progress("bench federation") as advance:
        report = bench_federation(QUICK if quick else Sizes(), advance)
    _print_report(report, as_text, as_json, write_with_figure(report, draw, results, "federation"))


@bench_app.command("ct-moa")
def ct_moa(repeats: RepeatsOption = 50, quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """Time CT-MoA forward and backward against a loop over samples and experts, and its matrix products alone."""
    from pilot.bench.kernels.ct_moa import QUICK, SHAPES, bench_ct_moa

    with progress("bench ct-moa") as advance:
        report = bench_ct_moa(QUICK if quick else SHAPES, repeats, advance)
    _print_kernel_report(report, as_json)


@bench_app.command("difference-loss")
def difference_loss(repeats: RepeatsOption = 20, quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """Measure time and memory over C of the difference loss: Gram form against the explicit C x C matrix."""
    from pilot.bench.kernels.losses import QUICK, Sizes, bench_difference_loss

    with progress("bench difference-loss") as advance:
        report = bench_difference_loss(QUICK if quick else Sizes(), repeats, advance)
    _print_kernel_report(report, as_json)


@bench_app.command()
def aggregate(repeats: RepeatsOption = 10, quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """Measure time and memory over clients of the server's means, against stack-and-mean and a loop over pairs."""
    from pilot.bench.kernels.aggregate import QUICK, Sizes, bench_aggregate

    with progress("bench aggregate") as advance:
        report = bench_aggregate(QUICK if quick else Sizes(), repeats, advance)
    _print_kernel_report(report, as_json)


@bench_app.command("train-step")
def train_step(
    scenario_dir: ScenarioDirArgument,
    repeats: RepeatsOption = 10,
    scenario: ScenarioNameOption = "",
    profile: ProfileNameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Time training steps of fedavg and pilot against stock LLaVA with PEFT, and their matrix products alone."""
    from pilot.bench.kernels.train_step import bench_train_step

    with progress("bench train-step") as advance:
        report = bench_train_step(scenario_dir, repeats, advance, scenario=scenario, profile=profile)
    _print_kernel_report(report, as_json)


@bench_app.command("llava-random")
def llava_random(
    profile: ProfileOption = "llava-random",
    full: Annotated[bool, typer.Option("--full", help="LLaVA-1.5-7B's size, created on the device.")] = False,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the LLM.")] = None,
    hidden: Annotated[int | None, typer.Option(min=2, help="Width of the LLM.")] = None,
    intermediate: Annotated[int | None, typer.Option(min=1, help="Width of its feed-forward layers.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads of the LLM.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="LoRA's rank; alpha is twice that.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples of a batch.")] = None,
    accumulation: Annotated[int | None, typer.Option(min=1, help="Batches of a step.")] = None,
    text_tokens: Annotated[int, typer.Option(min=2, help="Tokens after the image; a quarter are the answer.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each client in each stage.")] = 2,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto; the profile's by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run one Pilot round of both stages on random weights of any size: peak memory, samples/s, tokens/s."""
    from pilot.bench.scale.model import Workload, as_text, bench_model, full_size_profile, resize_profile
    from pilot.config.load import load_profile

    loaded = full_size_profile(load_profile(profile)) if full else load_profile(profile)
    changes = {
        "text_layers": layers, "text_hidden": hidden, "text_intermediate": intermediate, "text_heads": heads,
        "text_kv_heads": heads, "batch_size": batch, "accumulation": accumulation, "device": device,
    }  # fmt: skip
    lora = {"rank": rank, "alpha": 2 * rank, "space": loaded.lora.space} if rank else None
    work = Workload(text_tokens, max(1, text_tokens // 4), steps)
    with progress("bench llava-random") as advance:
        report = bench_model(resize_profile(loaded, changes | {"lora": lora, "max_length": None}), work, advance)
    _print_report(report, as_text, as_json)


@bench_app.command()
def gpu(
    minutes: Annotated[float, typer.Option(min=0.01, help="Wall time; the part in progress is then cut off.")] = 8.0,
    quick: QuickOption = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto; cuda by default, cpu with --quick.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a GPU at LLaVA-1.5-7B's size: memory against the plan, speed of every part, losses beside a CPU's.

    Exit code 1 if a part was not finished or a check is out of its tolerance.
    """
    from pilot.bench.gpu.bench import as_text, bench_gpu, part_line
    from pilot.bench.gpu.sizes import full_sizes, quick_sizes

    report = bench_gpu(
        quick_sizes(device) if quick else full_sizes(device), minutes,
        lambda name, values: typer.echo(part_line(name, values), err=as_json),
    )  # fmt: skip
    _print_report(report, as_text, as_json)
    if not (report["complete"] and all(report["checks"].values())):
        raise typer.Exit(1)


@bench_app.command("round")
def round_(
    scenario_dir: ScenarioDirArgument,
    method: Annotated[list[str] | None, typer.Option(help="Methods to time (default: all); repeat the option.")] = None,
    compared: Annotated[str, typer.Option(help="Method to run with both engines; empty for none.")] = "pilot",
    rounds: TimedRoundsOption = 3,
    repeats: RunRepeatsOption = 3,
    scenario: ScenarioNameOption = "",
    profile: ProfileNameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Time rounds in this process against Flower's simulation, and each method's overhead beyond optimiser steps."""
    from pilot.bench.scale.round import as_text, bench_round, load_specs

    scenario_dir = scenario_dir.resolve()
    specs, both = load_specs(
        scenario or scenario_dir.name, profile or scenario_dir.parent.name, method or (), compared, rounds
    )
    with progress("bench round") as advance:
        report = bench_round(specs, both, scenario_dir, repeats, advance)
    _print_report(report, as_text, as_json)


@bench_app.command()
def rivals(
    scenario_dir: ScenarioDirArgument,
    rival: Annotated[list[str] | None, typer.Option(help="flower, pfl, nvflare or fluke (default: all).")] = None,
    factor: Annotated[
        list[int] | None, typer.Option(min=1, help="Clients, as a multiple (default: 1, 10, 100).")
    ] = None,
    rounds: TimedRoundsOption = 3,
    repeats: RunRepeatsOption = 3,
    local_steps: Annotated[int | None, typer.Option(min=1, help="Steps of a client; the profile's by default.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Clients at a time, where a simulator can choose it.")] = 1,
    limit: Annotated[float, typer.Option(min=1.0, help="Seconds after which a run is given up.")] = 900.0,
    scenario: ScenarioNameOption = "",
    profile: ProfileNameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run the same task in Flower's, pfl's, NVFlare's and fluke's simulation, and compare time, memory and states."""
    from pilot.bench.rivals.bench import Sizes, bench_rivals
    from pilot.bench.rivals.sides import choose_sides
    from pilot.bench.rivals.text import as_text
    from pilot.config.load import load_profile, load_scenario

    scenario_dir = scenario_dir.resolve()
    sizes = Sizes(repeats, tuple(factor or Sizes.factors), rounds=rounds, workers=workers, limit=limit)
    own = load_profile(profile or scenario_dir.parent.name)
    fewer = own if local_steps is None else own.model_copy(update={"local_steps": local_steps, "local_epochs": None})
    with progress("bench rivals") as advance:
        report = bench_rivals(
            load_scenario(scenario or scenario_dir.name), fewer, scenario_dir, choose_sides(rival or []), sizes, advance
        )
    _print_report(report, as_text, as_json)


@bench_app.command()
def scaling(
    quick: QuickOption = False,
    results: ResultsOption = Path("results"),
    as_json: JsonOption = False,
) -> None:
    """Measure cost over rounds, clients and examples, 1x to 16x each, with its exponents. About ten minutes."""
    from pilot.bench.scale.files import write_with_figure
    from pilot.bench.scale.scaling import QUICK, Sizes, as_text, bench_scaling
    from pilot.bench.scale.scaling_plot import draw

    with progress("bench scaling") as advance:
        report = bench_scaling(QUICK if quick else Sizes(), advance)
    _print_report(report, as_text, as_json, write_with_figure(report, draw, results, "scaling"))


@bench_app.command()
def data(
    images: Annotated[
        list[int] | None, typer.Option(help="Number of images; repeat the option (default: 5000, 20000).")
    ] = None,
    quick: QuickOption = False,
    profile: ProfileOption = "embedded",
    work: Annotated[Path | None, typer.Option(help="Folder for temporary data; a temporary one by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure memory of building data, partition and features over the number of generated images, with its slope."""
    from pilot.bench.scale.data import QUICK, Sizes, as_text, bench_data

    sizes = QUICK if quick else Sizes()
    with progress("bench data") as advance:
        report = bench_data(replace(sizes, images=tuple(images or sizes.images)), profile, work, advance)
    _print_report(report, as_text, as_json)


@bench_app.command()
def pipeline(
    scenario: Annotated[str, typer.Argument(help="A target of the Snakefile.")] = "scenario2",
    profile: ProfileOption = "embedded",
    cores: Annotated[int, typer.Option(min=1, help="Number of cores that Snakemake may use.")] = 2,
    results: Annotated[
        Path, typer.Option(help="Results folder that does not contain this scenario; it is kept.")
    ] = Path("results/bench"),
    as_json: JsonOption = False,
) -> None:
    """Time a whole scenario through Snakemake from scratch, against the sum of its jobs on fully used cores."""
    from pilot.bench.pipeline import as_text, bench_pipeline

    report = bench_pipeline(scenario, profile, cores, results)
    _print_report(report, as_text, as_json)


def _print_kernel_report(report: "Report", as_json: bool) -> None:
    _print_report(report.to_json(), lambda _: report.as_text(), as_json)


def _print_report(
    report: dict[str, Any], as_text: Callable[[dict[str, Any]], str], as_json: bool, files: Sequence[Path] = ()
) -> None:
    """Print a report as JSON, or as text followed by the paths of the files written."""
    if as_json:
        typer.echo(json.dumps(report, indent=2, sort_keys=True))
    else:
        typer.echo("\n\n".join([as_text(report), *(f"wrote {path}" for path in files)]))
