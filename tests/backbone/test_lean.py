"""The language part read without transformers is the one that transformers reads, bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.lora import initial_lora_state
from pilot.backbone.numerics import Numerics
from pilot.backbone.packed.checkpoint import LeanCheckpoint, LeanTokenizer, can_load_lean
from pilot.backbone.sources import TINY_LLAVA
from pilot.config.load import load_profile
from pilot.federation.shards import batches
from tests.small import Small, contents

TEXTS = (
    "USER: ", "\nWhich thing is left of the dog? ASSISTANT:", "ASSISTANT: [0.12, 0.34, 0.56, 0.78]", "a  b\tc", "",
    "naïve caf\u00e9 \U0001f600 </s> <image> <s>", "ASSISTANT: Two cats, 12 dogs and 105 birds.",
)  # fmt: skip


@pytest.fixture(scope="module")
def both() -> tuple[Backbone, Backbone]:
    """The shipped backbone, lean and whole."""
    lean, whole = (load_backbone(load_profile("embedded"), lean=lean) for lean in (True, False))
    assert isinstance(lean._checkpoint, LeanCheckpoint) and not isinstance(whole._checkpoint, LeanCheckpoint)
    return lean, whole


def test_parameters_are_the_same(both: tuple[Backbone, Backbone]) -> None:
    lean, whole = both
    assert list(lean.text_adapter) == list(whole.text_adapter)
    mine, theirs = lean.language_model.state_dict(), whole.language_model.state_dict()
    assert mine.keys() == theirs.keys() and len(mine) > 50
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(lean.lm_head.weight, whole.lm_head.weight)
    assert lean.num_language_parameters == whole.num_language_parameters
    assert lean.feature_shape == whole.feature_shape and lean.eos_id == whole.eos_id
    assert list(lean.prompts.prefix) == list(whole.prompts.prefix)
    assert all(
        torch.equal(a, b) for a, b in zip(lean.projector().parameters(), whole.projector().parameters(), strict=True)
    )


def test_tokens_are_the_same(both: tuple[Backbone, Backbone]) -> None:
    lean, whole = both
    for text in TEXTS:
        ids = whole.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert lean.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        for skip in (True, False):
            text_of = [backbone.tokenizer.batch_decode([ids], skip_special_tokens=skip) for backbone in both]
            assert text_of[0] == text_of[1]
    assert len(lean.tokenizer) == len(whole.tokenizer)


@pytest.mark.slow
def test_loss_and_gradients_have_the_same_bits(small: Small, both: tuple[Backbone, Backbone]) -> None:
    batch = next(batches(small.examples[0], small.features, 6, 0, small.backbone.eos_id))
    results = []
    for backbone in both:
        state = initial_lora_state(backbone.text_adapter, 0)
        backbone.load_text_adapter({name: value + 0.01 for name, value in state.items()})
        connector = backbone.projector().requires_grad_(True)
        loss = backbone.cross_entropy(connector(batch.features_BND), batch.ids_BL, batch.labels_BL)
        wanted = [*connector.parameters(), *backbone.text_adapter.values()]
        results.append([loss, *torch.autograd.grad(loss, wanted)])
    assert results[0][0] > 0
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*results, strict=True))


def test_images_get_the_features_of_the_vision_tower(small: Small, both: tuple[Backbone, Backbone]) -> None:
    from PIL import Image

    images = [Image.new("RGB", (90, 60), (30, 200, 90)), Image.new("RGB", (80, 80), (255, 0, 0))]
    lean, whole = both
    assert torch.equal(lean.image_features(images), whole.image_features(images))


@pytest.mark.slow
def test_training_in_a_fresh_process(small: Small, tmp_path: Path) -> None:
    """It imports neither transformers nor the compiler; other hashes and two cores give the bytes of this process."""
    code = """
import sys
from pathlib import Path
from pilot.config.load import load_profile, load_scenario
from pilot.federation.spec import RunSpec
from pilot.federation.training import train_run
scenario, profile, folder, run = sys.argv[1:]
spec = RunSpec(load_scenario(scenario), load_profile(profile), "pilot", 0)
train_run(spec, Path(folder), Path(run), False, lambda done, total: None)
print([name for name in ("transformers", "torch._dynamo") if name in sys.modules])
"""
    paths = [small.scenario_file, small.profile_file, small.folder, tmp_path / "run"]
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert contents(tmp_path / "run") == contents(small.run("pilot"))


def changed(path: tuple[str, ...], value: Any) -> Callable[[Path], None]:
    """Set a field of config.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        inner = config
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(("text_config", "hidden_act"), "gelu"),
        changed(("text_config", "attention_bias"), True),
        changed(("text_config", "rope_parameters", "rope_type"), "llama3"),
        changed(("tie_word_embeddings",), False),
        changed(("dtype",), "bfloat16"),
        lambda folder: (folder / "tokenizer.json").unlink(),
    ],
)
def test_what_it_does_not_know_is_left_to_transformers(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY_LLAVA, folder)
    assert can_load_lean(folder, Numerics())
    change(folder)
    assert not can_load_lean(folder, Numerics())


def test_other_numbers_and_devices_are_left_to_transformers() -> None:
    plain = Numerics()
    for other in (
        replace(plain, precision="bfloat16"), replace(plain, token_space=True),
        replace(plain, gradient_checkpointing=True), replace(plain, device=torch.device("cuda")),
    ):  # fmt: skip
        assert not can_load_lean(TINY_LLAVA, other)


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY_LLAVA, folder)
    state = load_file(folder / "model.safetensors")
    save_file(
        state | {"language_model.model.layers.0.self_attn.q_proj.bias": torch.zeros(128)}, folder / "model.safetensors"
    )
    with pytest.raises(ValueError, match="q_proj.bias is not a parameter of Llama"):
        LeanCheckpoint(folder, Numerics())


def test_special_tokens_are_named_by_the_configuration() -> None:
    tokenizer = LeanTokenizer(TINY_LLAVA)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
