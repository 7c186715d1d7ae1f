"""The plan's formulas against values worked out by hand, and its parameter counts against real models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from pilot.backbone.lora import attach_lora
from pilot.backbone.sources import TINY_LLAVA
from pilot.config.load import load_profile
from pilot.errors import UserError
from pilot.plan.architecture import Architecture, architecture_of
from pilot.plan.memory import Memory, Settings, connector_bytes, layer_bytes, training_memory
from pilot.plan.miniature import Miniature
from pilot.plan.work import example_flops, forward_flops

from .asked import planned

LLAVA = Architecture()
# C = 4, F = 6, two heads, one of keys: K = 2; V = 10; D = 3, four patches.
SMALL = Architecture(
    text_layers=2, text_hidden=4, text_intermediate=6, text_heads=2, text_kv_heads=1, vocabulary=10, vision_layers=2,
    vision_hidden=3, vision_intermediate=5, image_size=4, patch_size=2,
)  # fmt: skip
SETTINGS = Settings(
    batch_size=2, accumulation=1, sequence=7, answers=3, rank=2, precision="float32", attention="sdpa",
    gradient_checkpointing=False, token_space=True, feature_dtype="float32",
)  # fmt: skip


def test_llava_is_counted_as_published() -> None:
    """7,063,427,072 parameters: Llama 6,738,939,904 with head, CLIP 303,507,456, projector 20,979,712."""
    assert LLAVA.image_tokens == 576 and LLAVA.kv_width == 4096
    assert LLAVA.layer_parameters == 4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096 == 202_383_360
    assert LLAVA.language_parameters + 32064 * 4096 == 6_738_939_904
    assert LLAVA.vision_parameters == 303_507_456
    assert LLAVA.projector_parameters == 1024 * 4096 + 4096 + 4096 * 4096 + 4096 == 20_979_712
    assert LLAVA.parameters == 7_063_427_072
    # r = 64: 32 layers of 4 * 64 * 8192 + 3 * 64 * 15104.
    assert LLAVA.lora_parameters(64) == 32 * 64 * (4 * 8192 + 3 * 15104) == 159_907_840


def test_counts_are_those_of_real_models() -> None:
    """transformers' own modules at three sizes, made without memory."""
    small = load_profile("llava-random")
    for architecture in (architecture_of(load_profile("embedded")), architecture_of(small), SMALL):
        config = LlavaConfig.from_pretrained(TINY_LLAVA)
        text, vision = config.text_config, config.vision_config
        text.num_hidden_layers, text.hidden_size = architecture.text_layers, architecture.text_hidden
        text.intermediate_size, text.vocab_size = architecture.text_intermediate, architecture.vocabulary
        text.num_attention_heads, text.num_key_value_heads = architecture.text_heads, architecture.text_kv_heads
        text.head_dim = architecture.text_hidden // architecture.text_heads
        text.pad_token_id, text.tie_word_embeddings = None, architecture.tied
        config.tie_word_embeddings = architecture.tied
        vision.num_hidden_layers, vision.hidden_size = architecture.vision_layers, architecture.vision_hidden
        vision.intermediate_size, vision.num_attention_heads = architecture.vision_intermediate, 1
        vision.image_size, vision.patch_size = architecture.image_size, architecture.patch_size
        with torch.device("meta"):
            model = LlavaForConditionalGeneration(config)
        assert sum(p.numel() for p in model.parameters()) == architecture.parameters
        with torch.device("meta"):
            adapter = attach_lora(model.model.language_model, 5, 1.0)
        assert sum(p.numel() for p in adapter.values()) == architecture.lora_parameters(5)


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [
        ("llava-onevision-0.5b", 893_675_552, (729, 1152)), ("smolvlm-256m", 256_484_928, (64, 12288)),
        ("smolvlm2-500m", 507_482_304, (64, 12288)), ("qwen2.5-vl-3b", 3_754_622_976, (256, 5120)),
        ("internvl3-1b", 938_119_296, (256, 4096)),
    ],
)  # fmt: skip
def test_published_backbones_have_their_parameters(name: str, parameters: int, features: tuple[int, int]) -> None:
    architecture = architecture_of(load_profile(name))
    assert architecture.parameters == parameters and architecture.features == features


def test_unknown_backbone() -> None:
    profile = load_profile("embedded").model_copy(update={"backbone": "other"})
    with pytest.raises(UserError, match="field backbone: unknown name 'other'"):
        architecture_of(profile)


def test_a_checkpoint_is_planned_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `backbone_path` or `PILOT_MODELS`, with the sizes that published configurations leave to transformers."""
    profile = load_profile("llava")
    own = profile.model_copy(update={"backbone_path": str(TINY_LLAVA)})
    assert architecture_of(own) == architecture_of(load_profile("embedded")) != LLAVA
    folder = tmp_path / "llava-1.5-7b"
    folder.mkdir()
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    }  # fmt: skip
    text = {"model_type": "llama", "vocab_size": 32064}
    published = {"model_type": "llava", "tie_word_embeddings": False, "text_config": text, "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(published))
    assert architecture_of(profile.model_copy(update={"backbone_path": str(folder)})) == LLAVA
    published["text_config"] = text | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(published))
    monkeypatch.setenv("PILOT_MODELS", str(tmp_path))
    assert architecture_of(profile) == replace(LLAVA, text_layers=2)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"model_type": "llava_next"}'])
def test_what_is_no_checkpoint_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    profile = load_profile("llava").model_copy(update={"backbone_path": str(tmp_path)})
    with pytest.raises(
        UserError, match=r"llava: field backbone_path: .*config\.json: .*(Expected a checkpoint.s|got .llava_next)"
    ):
        architecture_of(profile)


def test_layer() -> None:
    """14 tokens. Norms 2 * 4 * 4 = 32; attention 4 (12 + 4) = 64; MLP 4 (4 + 24) = 112; LoRA 7 * 4 * 2 = 56."""
    assert layer_bytes(SMALL, SETTINGS) == 14 * (32 + 64 + 112 + 56)
    # bfloat16: norms stay 32; 2 (12 + 4) = 32; 2 (4 + 24) = 56; LoRA 28.
    assert layer_bytes(SMALL, replace(SETTINGS, precision="bfloat16")) == 14 * (32 + 32 + 56 + 28)
    # Probabilities: 2 heads x 7 tokens x 4 bytes, in bfloat16 2 more for the rounded ones.
    assert layer_bytes(SMALL, replace(SETTINGS, attention="eager")) == 14 * (264 + 56)
    rounded = replace(SETTINGS, attention="eager", precision="bfloat16")
    assert layer_bytes(SMALL, rounded) == 14 * (148 + 2 * 7 * 6)
    # In weight space: q 16, k 8, v 8, o 16, three of 24 numbers once more, and no A x.
    assert layer_bytes(SMALL, replace(SETTINGS, token_space=False)) == 14 * 208 + 4 * 120


def test_training() -> None:
    """FedAvg on the small model, every part by hand."""
    (phase,) = planned("fedavg", SMALL, 2).phases(1)
    memory = training_memory(SMALL, SETTINGS, phase, on_gpu=True)
    lora = 2 * 2 * (8 + 6 + 6 + 8 + 10 + 10 + 10)  # layers x rank x sum of widths
    trained = lora + (3 + 1) * 4 + (4 + 1) * 4
    assert SMALL.lora_parameters(2) == lora == 232 and trained == 268
    language = 2 * (120 + 8) + 11 * 4
    vision = 2 * (4 * 12 + 12 + 30 + 8) + (3 + 36 + 15) + 12
    assert memory == Memory(
        weights=4 * (language + 40 + vision + 36),
        masters=4 * 268,
        optimiser=8 * 268,
        copies=4 * 268,
        gradients=4 * 268,
        # two layers, the inputs, and of the connector two hidden layers and the sum for 8 patches
        activations=2 * 14 * 264 + 14 * 16 + 8 * 4 * 12,
        working=14 * (4 * (12 + 8) + 32),
        logits=2 * 3 * 10 * 12,
        features=2 * 4 * 3 * 8,
        stepping=4 * 268,
        accumulated=False,
    )
    assert memory.resident == memory.weights + 16 * 268 + 192
    assert memory.peak == memory.resident + memory.activations + memory.working


def test_peak_is_the_worst_moment() -> None:
    parts = dict(weights=1000, masters=0, optimiser=0, copies=0, features=0)
    small = dict(gradients=0, activations=0, working=0, logits=0, stepping=0)

    def peak(accumulated: bool = False, **own: int) -> int:
        return Memory(**(parts | small | own), accumulated=accumulated).peak - 1000

    assert peak(activations=50, logits=30, working=20) == 80
    assert peak(activations=50, logits=10, working=20) == 70
    assert peak(activations=5, gradients=40, working=20) == 60
    assert peak(activations=5, gradients=40, stepping=30) == 70
    assert peak(True, activations=50, logits=30, gradients=40) == 120


def test_what_saves_memory() -> None:
    """The full model in stage 2: every setting that the advice offers needs less than what it replaces."""
    phase = planned("pilot", LLAVA, 64).phases(2)[0]
    profile = load_profile("llava")
    good = Settings.from_profile(profile, 740, 32)
    needed = training_memory(LLAVA, good, phase, on_gpu=True).peak
    for worse in (
        {"gradient_checkpointing": False}, {"attention": "eager"}, {"token_space": False}, {"precision": "float32"},
        {"feature_dtype": "float32"}, {"batch_size": 32}, {"sequence": 2048}, {"rank": 128},
    ):  # fmt: skip
        assert training_memory(LLAVA, replace(good, **worse), phase, on_gpu=True).peak > needed, worse
    halved = replace(good, batch_size=good.batch_size // 2, accumulation=good.accumulation * 2)
    assert training_memory(LLAVA, halved, phase, on_gpu=True).peak < needed
    assert Settings.from_profile(profile, 4000, 32).sequence == 2048


def test_connectors() -> None:
    """Stage 1 adds both features scaled in float32; stage 2 stacks three experts. 8 patches of width 4."""
    stage1, stage2 = planned("pilot", SMALL, 2).phases(1)
    assert connector_bytes(SMALL, SETTINGS, stage1) == 8 * 4 * (2 * 4 * 2 + 4 + 2 * 4)
    assert connector_bytes(SMALL, SETTINGS, stage2) == 8 * 4 * (2 * 4 * 3 + 4 + 3 * 4)
    assert connector_bytes(SMALL, replace(SETTINGS, precision="bfloat16"), stage1) == 8 * 4 * (2 * 2 * 2 + 2 + 4 * 4)


def test_sizes_of_parts() -> None:
    """Rank 2, two layers. A: 2 (4 + 4 + 4 + 4 + 4 + 4 + 6); B: 2 (4 + 2 + 2 + 4 + 6 + 6 + 4); 120 weights a layer."""
    miniature = Miniature(SMALL, 2, 9)
    for part, expected in (("lora_A", 2 * 2 * 30), ("lora_B", 2 * 2 * 28)):
        own = {name: value for name, value in miniature.text_adapter.items() if name.endswith(part)}
        assert miniature.count(own) == sum(value.numel() for value in miniature.full(own).values()) == expected
    assert miniature.count(miniature.offsets) == SMALL.linear_parameters == 240
    projector = dict(miniature.projector.named_parameters())
    assert miniature.count(projector) == SMALL.projector_parameters == 36
    router = {"router.weight": torch.zeros(3, miniature.projector.width_in)}
    assert miniature.count(router | {"mask": torch.zeros(4)}) == 3 * 3 + 4


def test_copies_of_the_objective() -> None:
    """SCAFFOLD holds two controls, their difference and the sum of gradients: four times what is trained."""
    plain, scaffold, prox = (
        training_memory(SMALL, SETTINGS, planned(name, SMALL, 2).phases(2)[0], on_gpu=True)
        for name in ("fedavg", "scaffold", "fedprox")
    )
    assert scaffold == replace(plain, copies=plain.copies + 4 * 4 * 268)
    assert prox == replace(plain, copies=plain.copies + 4 * 268)


def test_offsets() -> None:
    """FLoRA's linear layers are there twice; on a CPU offsets and their start lie in the same memory, too."""
    plain, flora = (planned(name, SMALL, 2).phases(2)[0] for name in ("fedavg", "flora"))
    on_gpu, on_cpu = (
        [training_memory(SMALL, SETTINGS, phase, on_gpu=gpu) for phase in (plain, flora)] for gpu in (True, False)
    )
    assert on_gpu[1] == replace(on_gpu[0], weights=on_gpu[0].weights + 4 * 240)
    more = {"masters": on_cpu[0].masters + 4 * 240, "copies": on_cpu[0].copies + 4 * 240}
    assert on_cpu[1] == replace(on_cpu[0], weights=on_cpu[0].weights + 4 * 240, **more)
    # In float32 the sum is formed once; beside bfloat16 weights an offset of 240 is a product for each of 7 tokens, 2
    # operations forwards, 2 for the input's gradient, and 2 once more with checkpointing.
    assert example_flops(SMALL, SETTINGS, flora) == example_flops(SMALL, SETTINGS, plain)
    for checkpointing, factor in ((False, 4), (True, 6)):
        rounded = replace(SETTINGS, precision="bfloat16", gradient_checkpointing=checkpointing)
        more = example_flops(SMALL, rounded, flora) - example_flops(SMALL, rounded, plain)
        assert more == 7 * factor * 240


def test_a_whole_llm() -> None:
    """Two layers of 128, embeddings and a head of 10 x 4 each, the last norm: 340 numbers beside the connector's 36.

    The checkpoint's values are kept in the host's memory. Two more operations per number of a layer and token, and per
    number of the head and answer token; LoRA's 232 numbers get no gradient.
    """
    plain, full = (planned(name, SMALL, 2).phases(2)[0] for name in ("fedavg", "full"))
    assert (full.trained, full.trained_language, full.trained_lora) == (340 + 36, 340, 0)
    assert full.down == full.up == 376 and full.frozen == 232
    biased = replace(SMALL, text_biases=True, tied=True)
    assert (
        planned("full", biased, 2).phases(2)[0].trained_language == biased.language_parameters == 300 + 2 * (4 + 2 + 2)
    )
    for on_gpu, masters in ((True, 36 + 232), (False, 376 + 232)):
        memory = training_memory(SMALL, SETTINGS, full, on_gpu=on_gpu)
        assert memory.masters == 4 * masters and memory.optimiser == 8 * 376 and memory.gradients == 4 * 376
        assert memory.weights == training_memory(SMALL, SETTINGS, plain, on_gpu=on_gpu).weights
    more = example_flops(SMALL, SETTINGS, full) - example_flops(SMALL, SETTINGS, plain)
    assert more == 7 * (2 * 2 * 128 - 2 * 232) + 2 * 10 * 4 * 3


def test_validation() -> None:
    """FedMoE's forward passes over 10 % of the shards: two per number and token, and attention."""
    plain, fedmoe = (planned(name, SMALL, 2).phases(2)[0] for name in ("fedavg", "fedmoe"))
    assert fedmoe.validates and not plain.validates
    layers, attention, head = 2 * 128, 2 * 2 * 7 * 4, 2 * 10 * 4 * 3
    assert forward_flops(SMALL, SETTINGS, plain) == 7 * 2 * (layers + attention + 232) + head + 4 * 2 * 36


def test_teacher() -> None:
    """FedDAT's shared phase on a GPU, where the whole start is on the device; bfloat16 halves the folded weights."""
    plain, feddat = (planned(name, SMALL, 2).phases(2)[0] for name in ("fedavg", "feddat"))
    rounded = replace(SETTINGS, precision="bfloat16")
    alone, taught = (training_memory(SMALL, rounded, phase, on_gpu=True) for phase in (plain, feddat))
    assert taught.weights == alone.weights + 2 * 2 * 240
    assert taught.masters == alone.masters + 4 * (36 + 2)  # the gate has two numbers
    # The frozen connector, gate and offset as received; the shared adapter twice, the private LoRA, one more offset.
    assert taught.copies == alone.copies + 4 * (36 + 2 + 240 + 2 * 268 + 232 + 240)
    assert taught.logits == 3 * alone.logits
    # One more forward pass with both connectors, of which the frozen one computes in the model as well.
    layers, attention, head = 2 * 128, 2 * 2 * 7 * 4, 2 * 10 * 4 * 3
    more = 7 * 2 * (layers + attention + 232) + head + 4 * (2 * 36 + 2 * 2 * 36)
    assert example_flops(SMALL, SETTINGS, feddat) == example_flops(SMALL, SETTINGS, plain) + more


def test_flops() -> None:
    """One example of 7 tokens, FedAvg; layers 2 x 128, attention 2 S C per layer and product pair."""
    (phase,) = planned("fedavg", SMALL, 2).phases(1)
    layers, attention = 2 * 128, 2 * 2 * 7 * 4
    forward, backward = 2 * layers + 2 * attention, 2 * layers + 4 * attention
    head, connector = 4 * 10 * 4 * 3, 4 * 6 * 36
    assert example_flops(SMALL, SETTINGS, phase) == 7 * (forward + backward + 6 * 232) + head + connector
    # FFA-LoRA computes A without a gradient of its own, 120 numbers.
    (frozen,) = planned("ffa_lora", SMALL, 2).phases(1)
    assert example_flops(SMALL, SETTINGS, phase) - example_flops(SMALL, SETTINGS, frozen) == 7 * 2 * 120
    again = example_flops(SMALL, replace(SETTINGS, gradient_checkpointing=True), phase)
    assert again - example_flops(SMALL, SETTINGS, phase) == 7 * forward
