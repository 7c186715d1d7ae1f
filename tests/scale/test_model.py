"""`pilot-bench bench llava-random`: one round of both stages, and accounts that add up."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilot.backbone.sources import MODELS_VARIABLE
from pilot.bench.scale.model import full_size_profile, resize_profile
from pilot.cli.main import app
from pilot.config.load import load_profile
from pilot.config.model import RandomModel
from pilot.errors import UserError


def test_a_round_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer of width 32: batch 2 x 1, 12 tokens after the image, one step of three clients in each stage."""
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    options = ["--layers", "1", "--hidden", "32", "--heads", "2", "--batch", "2", "--accumulation", "1", "--rank", "2"]
    command = ["bench", "llava-random", *options, "--text-tokens", "12", "--steps", "1", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["architecture"]["text_layers"] == 1 and report["architecture"]["text_hidden"] == 32
    assert report["settings"]["batch_size"] == 2 and report["settings"]["lora"]["rank"] == 2
    assert report["peak_memory_mb"] >= report["memory_mb_after_features"] > 100
    assert list(report["stages"]) == ["stage1", "stage2"]
    for stage in report["stages"].values():
        assert stage["samples_per_second"] == pytest.approx(6 / stage["seconds"], rel=0.05)
        tokens = 6 * report["sequence_length"]
        assert stage["tokens_per_second"] == pytest.approx(tokens / stage["seconds"], rel=0.05)
    # LoRA of rank 2, widths 32, 32, 172: four times (32 + 32) and three times (32 + 172), times 2 = 1,736; an adapter
    # is 32 x 32 + 32 + 32 x 32 + 32 = 2,112. Stage 1: two adapters. Stage 2: own, two cross-task, router 32 x 3 = 96.
    trained = {name: stage["trainable_parameters"] for name, stage in report["stages"].items()}
    assert trained == {"stage1": 1736 + 2 * 2112, "stage2": 1736 + 3 * 2112 + 96}
    assert list(tmp_path.glob("llava-random-*/model.safetensors.index.json"))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"bench llava-random: .*text_hidden: expected an even multiple of text_heads"):
        resize_profile(load_profile("llava-random"), {"text_hidden": 30})
    with pytest.raises(UserError, match="profile embedded: field backbone: expected llava-random, got tiny-llava"):
        resize_profile(load_profile("embedded"), {"text_layers": 2})


def test_full_size_is_that_of_llava() -> None:
    """The profile `llava` in all but the weights, which are made on the device."""
    full, llava = full_size_profile(load_profile("llava-random")), load_profile("llava")
    assert full.architecture == RandomModel(materialise=False) and full.architecture.num_image_tokens == 576
    for name in ("precision", "gradient_checkpointing", "lora", "batch_size", "accumulation", "learning_rates"):
        assert getattr(full, name) == getattr(llava, name)
