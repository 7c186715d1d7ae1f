"""Verification of the shipped tiny-llava: its files against their digests, and its quality measured again."""

from pathlib import Path
from typing import Any

from pilot.backbone.sources import TINY_LLAVA
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


def verify_tiny_llava() -> dict[str, Any]:
    """Check files and recipe and measure the quality again.

    Returns `files_ok`, `recipe_is_current`, `quality_recorded` and `quality_measured`.

    Raises:
        UserError: a file is missing or altered.
    """
    from pilot.pretraining.quality import load_model_and_tokenizer, measure_held_out
    from pilot.pretraining.recipe import Recipe

    problem = check_files()
    if problem:
        raise UserError(f"{problem}. Rebuild it with `snakemake --cores 2 backbone`.")
    recorded = read_json(TINY_LLAVA / "recipe.json")
    model, tokenizer = load_model_and_tokenizer(TINY_LLAVA)
    measured = measure_held_out(model, tokenizer, Recipe())
    return {
        "files_ok": True,
        "recipe_is_current": recorded["recipe_digest"] == Recipe().digest(),
        "quality_recorded": recorded["quality"],
        "quality_measured": {name: round(value, 4) for name, value in measured.items()},
    }
