"""`llava-random`: the hub's layout, and one mathematics in every space, kernel, precision and split into batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import Checkpoint, read_checkpoint
from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.lora import initial_lora_state
from pilot.backbone.numerics import Numerics
from pilot.backbone.random_llava import random_model, random_processor, random_tokenizer, write_random_llava
from pilot.backbone.sources import INDEX
from pilot.config.model import LearningRates, RandomModel
from pilot.errors import UserError
from pilot.federation.client import PhaseTask
from pilot.federation.shards import Example
from pilot.federation.trainer import LocalTrainer, TrainSettings
from pilot.io.atomic import read_json
from pilot.methods.base import ClientInfo, Method, State
from pilot.registry import make_method

SIZE = RandomModel(
    text_layers=2, text_hidden=32, text_intermediate=48, text_heads=4, text_kv_heads=2, vocabulary=1304,
    max_positions=256, vision_layers=2, vision_hidden=16, vision_intermediate=32, vision_heads=2, image_size=28,
)  # fmt: skip
CPU = torch.device("cpu")
RATES = LearningRates(text_adapter=0.01, connector=0.01)


def backbone(**changes: Any) -> Backbone:
    """A backbone of this size, with a LoRA that does something."""
    numerics = replace(Numerics(), **changes)
    model = random_model(SIZE, CPU, numerics.dtype)
    model.set_attn_implementation(numerics.attention)
    checkpoint = Checkpoint(model.eval().requires_grad_(False), random_tokenizer(), random_processor(SIZE))
    made = Backbone(checkpoint, rank=4, alpha=8, prompt_template="USER: <image>\n{instruction} A:", numerics=numerics)
    for seed, (name, value) in enumerate(initial_lora_state(made.text_adapter, 0).items()):
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        made.text_adapter[name].data.copy_(0.1 * noise)
    return made


def gradients(made: Backbone) -> tuple[float, State]:
    """Loss of three sequences, and its gradients at the LoRA and at the image tokens."""
    source = torch.Generator().manual_seed(1)
    tokens = (0.1 * torch.randn(3, 4, 32, generator=source)).requires_grad_(True)
    ids = torch.randint(4, 1000, (3, 9), generator=source)
    labels = torch.where(torch.arange(9) >= 5, ids, -100)
    for parameter in made.text_adapter.values():
        parameter.grad = None
        parameter.requires_grad_(True)
    with made.numerics.autocast():
        loss = made.cross_entropy(tokens, ids, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in made.text_adapter.items()} | {"tokens": tokens.grad}
    return float(loss.detach()), {name: value for name, value in found.items() if value is not None}


def assert_close(first: State, second: State, tolerance: float) -> None:
    """Same names; differences are small beside each tensor's norm."""
    assert first.keys() == second.keys() and len(first) == 2 * 7 * 2 + 1
    for name, value in first.items():
        assert float(value.norm()) > 0, name
        assert float((value - second[name]).norm() / value.norm()) < tolerance, name


def test_checkpoint_has_the_hubs_layout(tmp_path: Path) -> None:
    """Names as in `llava-hf/llava-1.5-7b-hf`, every tensor once; transformers loads what is also made directly."""
    write_random_llava(SIZE, tmp_path / "x", shard_bytes=20_000)
    places = read_json(tmp_path / "x" / INDEX)["weight_map"]
    assert {
        "language_model.model.embed_tokens.weight", "language_model.lm_head.weight", "language_model.model.norm.weight",
        "language_model.model.layers.1.self_attn.q_proj.weight", "multi_modal_projector.linear_1.bias",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "vision_tower.vision_model.post_layernorm.bias",
    } <= places.keys()  # fmt: skip
    assert len(set(places.values())) > 3
    assert {path.name for path in (tmp_path / "x").glob("*.safetensors")} == set(places.values())
    model, info = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "x", local_files_only=True, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    direct = random_model(SIZE, CPU, torch.bfloat16).state_dict()
    loaded = model.state_dict()
    assert len(places) == len(direct) and loaded.keys() == direct.keys()
    assert all(torch.equal(loaded[name], direct[name]) for name in direct)
    rotary = random_model(SIZE, CPU, torch.bfloat16).model.language_model.rotary_emb.inv_freq
    assert rotary.dtype == torch.float32
    assert torch.equal(rotary, model.model.language_model.rotary_emb.inv_freq)
    assert read_checkpoint(tmp_path / "x", Numerics(precision="bfloat16")).model.dtype == torch.bfloat16


def test_seed_and_name_decide() -> None:
    first, again = (random_model(SIZE, CPU, torch.float32).state_dict() for _ in range(2))
    other = random_model(SIZE.model_copy(update={"seed": 1}), CPU, torch.float32).state_dict()
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert float(first[name].std()) == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(first[name], first[name.replace("layers.0", "layers.1")])


def test_squares_lose_nothing_to_the_processors_crop() -> None:
    """LLaVA-1.5's processor crops; a wide picture is padded first, so both its ends count."""
    made = backbone()
    wide = np.zeros((28, 56, 3), dtype=np.uint8)
    left = wide.copy()
    left[:, :6] = 255
    black, marked = made.image_features([Image.fromarray(wide), Image.fromarray(left)])
    assert black.shape == (4, 16) and made.feature_shape == (4, 16)
    assert not torch.allclose(black, marked, atol=1e-3)


def test_both_spaces_are_one_mathematics() -> None:
    (weight, of_weight), (token, of_token) = gradients(backbone()), gradients(backbone(token_space=True))
    assert weight == pytest.approx(token, abs=1e-5)
    assert_close(of_weight, of_token, 1e-4)


@pytest.mark.parametrize("change", [{"gradient_checkpointing": True}, {"attention": "sdpa"}])
def test_recomputation_and_kernels_change_nothing(change: dict[str, Any]) -> None:
    plain, of_plain = gradients(backbone(token_space=True))
    other, of_other = gradients(backbone(token_space=True, **change))
    assert plain == pytest.approx(other, abs=1e-5)
    assert_close(of_plain, of_other, 1e-4)


def test_checkpointing_keeps_layers_inputs_only() -> None:
    """With it a layer's forward runs twice in a step with gradients, and once without."""
    made, calls = backbone(gradient_checkpointing=True), [0]

    def count(module: torch.nn.Module, arguments: object) -> None:
        calls[0] += 1

    made.language_model.layers[0].mlp.register_forward_pre_hook(count)  # type: ignore[index, union-attr]
    gradients(made)
    assert calls[0] == 2
    with torch.no_grad():
        made.cross_entropy(torch.zeros(1, 4, 32), torch.tensor([[5, 6]]), torch.tensor([[-100, 6]]))
    assert calls[0] == 3


@pytest.mark.parametrize("token_space", [True, False])
def test_bfloat16_rounds_and_keeps_float32_masters(token_space: bool) -> None:
    """8 bits of mantissa: loss and gradients within a few percent; gradients arrive in float32."""
    exact, of_exact = gradients(backbone(token_space=token_space))
    rounded, of_rounded = gradients(backbone(token_space=token_space, precision="bfloat16"))
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.01)
    assert {value.dtype for value in of_rounded.values()} == {torch.float32}
    assert_close(of_exact, of_rounded, 0.1)


@pytest.mark.parametrize("token_space", [True, False])
def test_bfloat16_answers(token_space: bool) -> None:
    made = backbone(precision="bfloat16", token_space=token_space, attention="sdpa", gradient_checkpointing=True)
    answers = made.answer(lambda rows: torch.ones(len(rows), 4, 32), ["What?", "Where is it?"], 5)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    assert made.answer(lambda rows: torch.ones(len(rows), 4, 32), ["What?"], 5) == answers[:1]


def test_no_labelled_token_is_no_loss() -> None:
    made = backbone()
    tokens = torch.zeros(1, 4, 32, requires_grad=True)
    loss = made.cross_entropy(tokens, torch.tensor([[5, 6]]), torch.full((1, 2), -100))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == 0 and tokens.grad is not None and not tokens.grad.any()


class Once:
    """Examples of very different lengths, taken in a batch of eight or in four of two, in one order."""

    examples = [Example(row, [7] * (1 + row % 3), [20 + row] * (1 + 2 * row)) for row in range(8)]
    features = FeatureCache([np.random.default_rng(0).random((8, 4, 16), dtype=np.float32)], "float32", {}, "")

    @classmethod
    def trained(cls, method: Method, batch_size: int, accumulation: int) -> tuple[State, dict[str, list[Any]]]:
        """State after three steps, and the losses."""
        settings = TrainSettings(batch_size, RATES, 0.03, 0.0, 1.0, accumulation)
        trainer = LocalTrainer(backbone(token_space=True), method, settings, cls.features, {0: cls.examples})
        info = ClientInfo(0, "a", ("a", "b"), 0)
        result = trainer.run(PhaseTask(info, method.phases(1)[0], 1, 0, 3, {}), {})
        return result.update.state, result.report.losses


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "pilot"])
def test_accumulated_batches_are_one_large_batch(method: str) -> None:
    """Fixed by labelled tokens: batches here have 1 to 15 labels per example. Pilot's first stage has its own term."""
    whole, losses = Once.trained(make_method(method, {}), 8, 1)
    parts, of_parts = Once.trained(make_method(method, {}), 2, 4)
    assert losses.keys() == of_parts.keys()
    for name in losses:
        assert of_parts[name] == pytest.approx(losses[name], abs=2e-4), name
    differences = {name: float((whole[name] - parts[name]).abs().max()) for name in whole}
    assert max(differences.values()) < 2e-3, differences  # AdamW divides by its own gradient: rounding counts
    start, _ = Once.trained(make_method(method, {}), 2, 1)
    assert max(float((whole[name] - start[name]).abs().max()) for name in whole) > 5e-3, "the test can fail"


def test_image_that_does_not_fit_is_refused() -> None:
    made = backbone()
    with pytest.raises(
        UserError, match=r"max_length: expected more than the \d+ tokens of system prompt and image, got 5"
    ):
        made._max_text_ids(5)
    assert made._max_text_ids(made.num_prefix_tokens + 4 + 3) == 3


def test_no_gpu_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from pilot.config.load import load_profile

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="profile llava: field device: cuda, but PyTorch finds no GPU"):
        Numerics.from_profile(load_profile("llava"))
    auto = load_profile("llava").model_copy(update={"device": "auto"})
    assert Numerics.from_profile(auto).device == CPU and Numerics.from_profile(auto).token_space


def test_place_keeps_ids() -> None:
    placed: Tensor = Numerics(precision="bfloat16").to_device(torch.tensor([1, 2]))
    assert placed.dtype == torch.int64
    assert Numerics(precision="bfloat16").to_device(torch.zeros(1)).dtype == torch.bfloat16
