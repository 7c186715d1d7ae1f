"""Verification of a shipped checkpoint: its files against their digests, and its quality measured again."""

from pathlib import Path
from typing import Any

from pilot.backbone.sources import SHIPPED, TINY_LLAVA
from pilot.errors import UserError
from pilot.io.atomic import read_json
from pilot.io.digest import sha256_file


def check_files(folder: Path = TINY_LLAVA) -> str:
    """Return the first problem of the checkpoint's files; an empty string if there is none."""
    if not (folder / "recipe.json").is_file():
        return f"{folder / 'recipe.json'}: missing"
    for name, digest in read_json(folder / "recipe.json")["files"].items():
        if not (folder / name).is_file():
            return f"{folder / name}: missing"
        if sha256_file(folder / name) != digest:
            return f"{folder / name}: sha256 differs from recipe.json"
    return ""


def verify_shipped(name: str = "tiny-llava") -> dict[str, Any]:
    """Check files and recipe of a shipped checkpoint and measure its quality again.

    Returns `files_ok`, `recipe_is_current`, `quality_recorded` and `quality_measured`.

    Raises:
        UserError: a file is missing or altered.
    """
    from transformers import AutoTokenizer

    from pilot.pretraining.architecture import image_processor, load_parts
    from pilot.pretraining.quality import measure_held_out
    from pilot.pretraining.recipe import RECIPES

    folder, recipe = SHIPPED[name], RECIPES[name]
    problem = check_files(folder)
    if problem:
        raise UserError(f"{problem}. Rebuild it with `pilot-bench backbone pretrain --name {name}`.")
    recorded = read_json(folder / "recipe.json")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    measured = measure_held_out(load_parts(recipe, folder), tokenizer, recipe, image_processor(recipe))
    return {
        "files_ok": True,
        "recipe_is_current": recorded["recipe_digest"] == recipe.digest(),
        "quality_recorded": recorded["quality"],
        "quality_measured": {name: round(value, 4) for name, value in measured.items()},
    }
