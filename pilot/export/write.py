"""Export of one client's trained model as a folder, written atomically."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging as transformers_logging

from pilot.errors import UserError
from pilot.export.card import card_text
from pilot.export.mixture import model_description, write_mixture
from pilot.export.processor import has_same_prompts, save_own_processor, save_processor, stock_processor
from pilot.export.source import TrainedModel, load_trained_model
from pilot.export.stock import SHARD_SIZE, write_adapter, write_merged
from pilot.io.atomic import set_mode, write_text

MERGED, ADAPTER, MIXTURE = "merged", "adapter", "mixture"
_PROBE = "Is there a dog?\nAnswer the question using a single word or phrase."


def export_model(
    run_dir: Path, client: int, target: Path, form: str | None = None, shard_size: str = SHARD_SIZE
) -> Path:
    """Write a client's final model of a finished run; equal runs give equal bytes.

    Args:
        run_dir: results/<profile>/<scenario>/runs/<method>/seed<k>.
        client: number of the client.
        target: a folder that does not exist or is empty.
        form: `merged` (the default if the connector is LLaVA's) or `adapter`; methods with several connectors or LoRAs
            have a separate format and take None only.
        shard_size: maximum size of a file of a merged checkpoint, such as `5GB`.

    Returns:
        `target`.

    Raises:
        UserError: `target` is not empty or cannot be written, or the form does not fit the method; also as
            `load_trained_model`.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: --to: exists and is not an empty folder. Choose another folder.")
    trained = load_trained_model(run_dir, client)
    chosen = _choose_form(trained, form)
    writers: dict[str, Callable[[TrainedModel, Path], list[str]]] = {
        MERGED: lambda trained, folder: write_merged(trained, folder, shard_size),
        ADAPTER: write_adapter,
        MIXTURE: _write_mixture,
    }
    transformers_logging.disable_progress_bar()
    _write(trained, chosen, target, lambda part: writers[chosen](trained, part))
    return target


def _write(trained: TrainedModel, form: str, target: Path, weights: Callable[[Path], list[str]]) -> None:
    """Write everything to a folder beside `target`, then rename it to `target`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}). Choose another folder.") from error
    try:
        notes = weights(part)
        exact = _write_processor(trained, part)
        write_text(part / "README.md", card_text(trained, form, part, exact_prompts=exact, notes=notes))
        set_mode(part, 0o755)
        for path in part.iterdir():
            set_mode(path, 0o644)  # safetensors creates files that only their owner can read
        os.replace(part, target)
    except OSError as error:
        raise UserError(f"{target}: writing failed ({error.strerror}). The partial export was removed.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _choose_form(trained: TrainedModel, form: str | None) -> str:
    family = trained.backbone.family
    if form is not None and not family.stock:
        raise UserError(
            f"{trained.run_dir}: --{form}: no class of transformers reads {trained.spec.profile.backbone} (model_type "
            f"{family.model_type}). Omit the option and load the exported folder with pilot.export.load."
        )
    if trained.plain and family.stock:
        return form or MERGED
    if form is not None:
        raise UserError(
            f"{trained.run_dir}: --{form}: method {trained.spec.method} has several connectors or LoRAs, which no "
            "class of transformers supports. Omit the option and load the exported folder with pilot.export.load."
        )
    return MIXTURE


def _write_mixture(trained: TrainedModel, folder: Path) -> list[str]:
    digest = trained.config["digests"]["backbone"]
    write_mixture(
        folder, model_description(trained.spec.profile, trained.spec.method, trained.info, digest), trained.state
    )
    return []


def _write_processor(trained: TrainedModel, folder: Path) -> bool:
    """Write what prepares images and prompts; return whether its prompts are those of training, id for id."""
    template = trained.spec.profile.prompt_template
    if trained.backbone.family.model_type != "llava" or template is None:
        save_own_processor(trained.backbone, folder)
        return template is None
    processor = stock_processor(trained.backbone, template)
    save_processor(processor, folder)
    return has_same_prompts(processor, trained.backbone, _PROBE)
