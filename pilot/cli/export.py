"""`pilot-bench export`: a trained model for use elsewhere."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run directory: results/<profile>/<scenario>/runs/<method>/seed<k>.")],
    client: Annotated[int, typer.Option(min=0, help="Id of the client whose model is exported.")],
    to: Annotated[Path, typer.Option(help="Output folder; must be absent or empty.")],
    merged: Annotated[
        bool | None, typer.Option("--merged/--adapter", help="Stock LLaVA checkpoint (default), or PEFT adapter.")
    ] = None,
) -> None:
    """Write a client's trained model with processor and model card.

    Models with the backbone's single connector and one LoRA can be loaded by transformers or PEFT, all others by
    pilot.export.load: those of Pilot, its variants, FedMoE, and methods that keep several LoRAs.
    """
    from pilot.export.write import ADAPTER, MERGED, export_model

    form = None if merged is None else MERGED if merged else ADAPTER
    typer.echo(str(export_model(run, client, to, form)), err=True)
