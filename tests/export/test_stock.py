"""Exported checkpoints and adapters, opened by transformers and PEFT alone, compute what the run's model computes."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from pilot.backbone.sources import TINY_LLAVA
from pilot.errors import UserError
from pilot.export.write import export_model

from ..small import Small
from .compare import asked, own_answers, own_logits, run_model, stock_answer, stock_logits

pytestmark = pytest.mark.slow
TOLERANCE = 2e-4
"""Sums in another order (SDPA, merged weights), float32; the logits reach 10 and more."""


@pytest.fixture(scope="module")
def merged(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client 1's model of FedAvg."""
    return export_model(small.run("fedavg"), 1, tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture(scope="module")
def adapter(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client 4's own model of `local`."""
    return export_model(small.run("local"), 4, tmp_path_factory.mktemp("adapter") / "model", "adapter")


def check(small: Small, method: str, client: int, model: torch.nn.Module, processor: LlavaProcessor) -> None:
    """Logits token by token and whole answers are the run's own."""
    backbone, own = run_model(small, method, client)
    pairs = asked(small)
    for image, instruction in pairs:
        ours, theirs = own_logits(backbone, own, image, instruction), stock_logits(model, processor, image, instruction)
        assert ours.shape == theirs.shape and ours.abs().max() > 1
        assert torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE), (ours - theirs).abs().max()
    answers = own_answers(backbone, own, pairs)
    assert [stock_answer(model, processor, image, text) for image, text in pairs] == answers
    assert len(set(answers)) > 1


@pytest.mark.parametrize("method", ["flora", "fedex_lora"])
def test_offsets_are_merged(small: Small, method: str, tmp_path: Path) -> None:
    run = small.run(method)
    folder = export_model(run, 1, tmp_path / "model")
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    check(small, method, 1, model, LlavaProcessor.from_pretrained(folder))
    with pytest.raises(UserError, match=f"--adapter: method {method} added offsets"):
        export_model(run, 1, tmp_path / "adapter", "adapter")


def test_a_whole_llm_is_exported(small: Small, tmp_path: Path) -> None:
    run = small.run("full")
    folder = export_model(run, 1, tmp_path / "model")
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    check(small, "full", 1, model, LlavaProcessor.from_pretrained(folder))
    with pytest.raises(UserError, match="--adapter: method full trained the whole LLM"):
        export_model(run, 1, tmp_path / "adapter", "adapter")


def test_merged_is_a_stock_checkpoint(small: Small, merged: Path) -> None:
    model, info = LlavaForConditionalGeneration.from_pretrained(merged, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check(small, "fedavg", 1, model, LlavaProcessor.from_pretrained(merged))
    assert (merged / "generation_config.json").is_file()
    names = {path.name for path in merged.iterdir()}
    assert not [name for name in names if name.endswith((".py", ".bin", ".pt", ".pkl"))]


def test_training_changed_what_is_exported(small: Small, merged: Path) -> None:
    """The comparison would otherwise hold for the bare base model, too."""
    shipped, own = load_file(TINY_LLAVA / "model.safetensors"), load_file(merged / "model.safetensors")
    base = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in shipped.items()}
    assert base.keys() == own.keys(), "named as published"
    changed = {name for name in base if not torch.equal(base[name], own[name])}
    assert len([name for name in changed if "multi_modal_projector" in name]) == 4
    assert len([name for name in changed if "language_model" in name]) == 4 * 7  # four layers of seven matrices
    assert len(changed) == 32


def test_shards(small: Small, merged: Path, tmp_path: Path) -> None:
    """A small limit makes several files; the model is the same."""
    folder = export_model(small.run("fedavg"), 1, tmp_path / "shards", shard_size="2MB")
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 1 and (folder / "model.safetensors.index.json").is_file()
    tensors = {name: value for file in files for name, value in load_file(file).items()}
    whole = load_file(merged / "model.safetensors")
    assert tensors.keys() == whole.keys() and all(torch.equal(tensors[name], whole[name]) for name in whole)
    image, instruction = asked(small)[0]
    processor = LlavaProcessor.from_pretrained(folder)
    one, other = (LlavaForConditionalGeneration.from_pretrained(path) for path in (folder, merged))
    assert torch.equal(*(stock_logits(model, processor, image, instruction) for model in (one, other)))


def test_adapter_loads_with_peft(small: Small, adapter: Path) -> None:
    base = LlavaForConditionalGeneration.from_pretrained(TINY_LLAVA)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    check(small, "local", 4, model, LlavaProcessor.from_pretrained(adapter))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 16)
    assert config["base_model_name_or_path"] == "tiny-llava" and config["modules_to_save"] == ["multi_modal_projector"]
    assert len(load_file(adapter / "adapter_model.safetensors")) == 4 * 7 * 2 + 4


def test_adapter_merges_to_the_checkpoint(small: Small, tmp_path: Path) -> None:
    """PEFT's own merge gives the weights of the merged export (float32, other order of products)."""
    run = small.run("fedprox")
    adapter, merged = export_model(run, 0, tmp_path / "a", "adapter"), export_model(run, 0, tmp_path / "m", "merged")
    base = LlavaForConditionalGeneration.from_pretrained(TINY_LLAVA)
    theirs = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
    ours = LlavaForConditionalGeneration.from_pretrained(merged).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-6) for name in ours)


def test_clients_of_local_differ(small: Small, adapter: Path, tmp_path: Path) -> None:
    other = export_model(small.run("local"), 5, tmp_path / "other", "adapter")
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, other))
    assert one.keys() == two.keys() and not any(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["central", "untuned"])
def test_one_model_for_everybody(small: Small, method: str, tmp_path: Path) -> None:
    """Pooled data, and no training at all."""
    folder = export_model(small.run(method), 5, tmp_path / method)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    backbone, own = run_model(small, method, 5)
    image, instruction = asked(small)[-1]
    theirs = stock_logits(model, LlavaProcessor.from_pretrained(folder), image, instruction)
    assert torch.allclose(own_logits(backbone, own, image, instruction), theirs, rtol=0, atol=TOLERANCE)
