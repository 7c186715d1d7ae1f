"""Commands about the frozen multimodal LLM: pre-train, check, compute features."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pilot.cli.options import JsonOption, ProfileOption, RecipeOption, ResultsOption, ScenarioOption
from pilot.cli.progress import progress
from pilot.errors import UserError

backbone_app = typer.Typer(help="The frozen multimodal LLM.", no_args_is_help=True)


@backbone_app.command("pretrain")
def backbone_pretrain(
    name: RecipeOption = "tiny-llava",
    target: Annotated[Path | None, typer.Option(help="Folder of the checkpoint; in the package by default.")] = None,
    work: Annotated[Path, typer.Option(help="Folder for finished phases.")] = Path("results/backbone"),
) -> None:
    """Pre-train a backbone from its seeded recipe (100 minutes or more on one core with AVX-512)."""
    from pilot.backbone.sources import SHIPPED
    from pilot.cli.progress import phases
    from pilot.pretraining.make import make_checkpoint
    from pilot.pretraining.recipe import RECIPES

    if target is None and name not in SHIPPED:
        raise UserError(f"--name {name}: does not ship, so no folder is known for it. Name one with --target.")
    with phases() as report:
        quality = make_checkpoint(RECIPES[name], work / name, target or SHIPPED[name], report)
    typer.echo(json.dumps(quality, indent=2, sort_keys=True))


@backbone_app.command("verify")
def backbone_verify(as_json: JsonOption = False) -> None:
    """Check a shipped checkpoint: compare its files with their digests and measure its caption quality again."""
    from pilot.pretraining.verify import verify_shipped

    report = verify_shipped()
    typer.echo(
        json.dumps(report, indent=2, sort_keys=True) if as_json else "\n".join(f"{k}: {v}" for k, v in report.items())
    )


@backbone_app.command("features")
def backbone_features(
    scenario: ScenarioOption, profile: ProfileOption = "embedded", results: ResultsOption = Path("results")
) -> None:
    """Compute the frozen vision tower's features of a scenario's images, once for all runs."""
    from pilot.backbone.features import compute_features
    from pilot.backbone.from_profile import load_backbone
    from pilot.config.load import load_setting
    from pilot.data.conditions import scenario_images
    from pilot.data.manifest import check_data

    loaded, sizes, folder = load_setting(scenario, profile, results)
    check_data(folder / "data")
    with (
        scenario_images(loaded, folder) as images,
        progress(f"computing features of {loaded.name}") as advance,
    ):
        inform = partial(typer.echo, err=True)
        compute_features(load_backbone(sizes), sizes, images, folder / "features", advance, inform)
