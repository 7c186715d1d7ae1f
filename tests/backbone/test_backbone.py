"""The backbone against transformers and PEFT: the same logits, the same answers, the same loss."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pilot.backbone.backbone import Backbone
from pilot.backbone.feature_files import open_features
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.generation import group_by_length
from pilot.backbone.lora import TARGETS, attach_lora, initial_lora_state, merged_lora, to_peft
from pilot.backbone.sources import TINY_LLAVA
from pilot.data.record import read_records
from pilot.errors import UserError

from ..small import Small

QUESTIONS = [
    "What color is the background?\nAnswer the question using a single word or phrase.",
    "How many objects are there?\nAnswer the question using a single word or phrase.",
    "Provide a one-sentence caption for the provided image.",
    "Please provide the bounding box coordinate of the region this sentence describes: the dog.",
]


def noise(shape: torch.Size, seed: int) -> Tensor:
    """Reproducible values."""
    return 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def backbone(small: Small) -> Iterator[Backbone]:
    """The backbone with a LoRA that does something."""
    state = {name: noise(p.shape, seed) for seed, (name, p) in enumerate(small.backbone.text_adapter.items())}
    small.backbone.load_text_adapter(state)
    yield small.backbone
    small.backbone.load_text_adapter(initial_lora_state(small.backbone.text_adapter, 0))


@pytest.fixture
def images(small: Small) -> list[Image.Image]:
    """Four images of the small scenario."""
    records = read_records(small.folder / "data/scene-vqa/records.parquet")
    return [Image.open(io.BytesIO(record.image)).convert("RGB") for record in records[:4]]


def llava_inputs(backbone: Backbone, image: Image.Image, question: str) -> dict[str, Tensor]:
    """Ids with image placeholders, and pixels, as transformers' own Llava reads them."""
    lead, placeholder = backbone._prefix_ids.tolist(), backbone.model.config.image_token_index
    ids = [*lead, *[placeholder] * 25, *backbone.prompt_ids(question)]
    pixels = backbone.processor([image], return_tensors="pt")["pixel_values"]
    return {"input_ids": torch.tensor([ids]), "pixel_values": pixels, "attention_mask": torch.ones(1, len(ids))}


def image_tokens(backbone: Backbone, images: list[Image.Image]) -> Tensor:
    """Image tokens by the backbone's own projector."""
    tokens: Tensor = backbone.projector()(backbone.image_features(images))
    return tokens


@torch.no_grad()
def own_logits(backbone: Backbone, image: Image.Image, question: str) -> Tensor:
    """Logits at every position, by our path."""
    inputs = backbone._passes._model.inputs(
        image_tokens(backbone, [image]), torch.tensor([backbone.prompt_ids(question)])
    )
    logits: Tensor = backbone.lm_head(backbone.language_model(inputs_embeds=inputs).last_hidden_state)
    return logits


@torch.no_grad()
def test_same_logits_as_peft(backbone: Backbone, images: list[Image.Image]) -> None:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(TINY_LLAVA, local_files_only=True).float().eval()
    targets = rf".*language_model.*\.({'|'.join(TARGETS)})"
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets)).eval()
    adapter = to_peft({name: parameter.detach() for name, parameter in backbone.text_adapter.items()})
    loaded: Any = set_peft_model_state_dict(adapted, adapter)
    assert loaded.unexpected_keys == [] and not [name for name in loaded.missing_keys if "lora_" in name]
    assert len(adapter) == 56
    for question in QUESTIONS[:2]:
        theirs = adapted(**llava_inputs(backbone, images[0], question)).logits
        difference = (own_logits(backbone, images[0], question) - theirs).abs().max()
        assert float(difference / theirs.abs().max()) < 1e-5
    adapted.disable_adapter_layers()
    plain = adapted(**llava_inputs(backbone, images[0], QUESTIONS[0])).logits
    assert not torch.allclose(own_logits(backbone, images[0], QUESTIONS[0]), plain, atol=1e-2)


def test_merged_is_unmerged(backbone: Backbone, images: list[Image.Image]) -> None:
    plain = own_logits(backbone, images[1], QUESTIONS[2])
    with merged_lora(backbone.language_model):
        assert torch.equal(own_logits(backbone, images[1], QUESTIONS[2]), plain)
        for parameter in backbone.text_adapter.values():
            parameter.data.zero_()
        assert torch.equal(own_logits(backbone, images[1], QUESTIONS[2]), plain), "formed once, inside the context"
    assert not torch.equal(own_logits(backbone, images[1], QUESTIONS[2]), plain)


def test_same_answers_as_generate(backbone: Backbone, images: list[Image.Image]) -> None:
    tokens = image_tokens(backbone, images)
    answers = backbone.answer(lambda rows: tokens[rows], QUESTIONS, 12)
    for image, question, answer in zip(images, QUESTIONS, answers, strict=True):
        inputs = llava_inputs(backbone, image, question)
        generated = backbone.model.generate(**inputs, do_sample=False, max_new_tokens=12)
        new = generated[0, inputs["input_ids"].shape[1] :]
        assert answer == str(backbone.tokenizer.decode(new, skip_special_tokens=True)).strip()


def test_batch_changes_no_answer(backbone: Backbone, images: list[Image.Image]) -> None:
    tokens = image_tokens(backbone, images)

    def alone(index: int) -> str:
        return backbone.answer(lambda rows: tokens[[index]], [QUESTIONS[2]], 12)[0]

    assert backbone.answer(lambda rows: tokens[rows], [QUESTIONS[2]] * 4, 12) == [alone(k) for k in range(4)]


@torch.no_grad()
def test_cross_entropy_is_the_naive_one(backbone: Backbone, images: list[Image.Image]) -> None:
    """Token by token from all logits of each row alone, without padding."""
    prompts = [backbone.prompt_ids(question) for question in QUESTIONS]
    answers = [backbone.answer_ids(text) for text in ("red", "3", "A dog and an apple.", "[0.10, 0.20, 0.30, 0.40]")]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    losses = []
    tokens = image_tokens(backbone, images)
    for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        labels[index, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
        inputs = backbone._passes._model.inputs(tokens[index : index + 1], torch.tensor([row]))
        logits = backbone.lm_head(backbone.language_model(inputs_embeds=inputs).last_hidden_state)[0]
        start = inputs.shape[1] - len(row)
        for position in range(len(prompt), len(row)):
            losses.append(-functional.log_softmax(logits[start + position - 1], -1)[row[position]])
    assert len(losses) == sum(map(len, answers))
    assert torch.allclose(backbone.cross_entropy(tokens, ids, labels), torch.stack(losses).mean(), atol=1e-5)


def test_wrong_adapter_is_refused(small: Small) -> None:
    state = initial_lora_state(small.backbone.text_adapter, 0)
    name = "text_adapter.layers.0.self_attn.q_proj.lora_A"
    without = {other: value for other, value in state.items() if other != name}
    with pytest.raises(ValueError, match="text adapter does not fit this backbone.*q_proj.lora_Z"):
        small.backbone.load_text_adapter({**without, name[:-1] + "Z": state[name]})
    with pytest.raises(ValueError, match=r"text adapter does not fit this backbone.*q_proj\.lora_A"):
        small.backbone.load_text_adapter(without)
    with pytest.raises(ValueError, match=r"q_proj.lora_A: shape \(8,\), expected \(8, 128\)"):
        small.backbone.load_text_adapter({**state, name: torch.zeros(8)})
    with pytest.raises(UserError, match="no place for LoRA: expected linear layers named q_proj.* found 0"):
        attach_lora(torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False)), 2, 2.0)


def test_initial_adapter(small: Small) -> None:
    """B is zero, A is uniform within 1 / sqrt(in), and both depend on seed and name only."""
    first, again = (initial_lora_state(small.backbone.text_adapter, 5) for _ in range(2))
    other = initial_lora_state(small.backbone.text_adapter, 6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "text_adapter.layers.2.mlp.down_proj.lora_A"
    assert first[name].shape == (8, 256) and 0.06 < float(first[name].abs().max()) <= 1 / 16
    assert not torch.equal(first[name], other[name])
    assert not any(bool(value.any()) for key, value in first.items() if key.endswith("lora_B"))


def test_images_are_padded_to_squares(small: Small) -> None:
    """A wide image is centred on a square of the processor's mean colour, 122, 116, 104; nothing is cropped."""
    wide = Image.new("RGB", (80, 40), (255, 0, 0))
    square = Image.new("RGB", (80, 80), (122, 116, 104))
    square.paste(wide, (0, 20))
    features = small.backbone.image_features([wide, square, wide.resize((80, 80))])
    assert features.shape == (3, 25, 128)
    assert torch.equal(features[0], features[1])
    assert not torch.allclose(features[0], features[2], atol=1e-3)


def test_images_are_asked_for_batch_by_batch(
    small: Small, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five images in batches of two: no image is asked for before the batch that it is in."""
    family, asked, passes = small.backbone.family, list[Image.Image](), list[tuple[int, int]]()

    def features(batch: list[Image.Image]) -> Tensor:
        passes.append((len(asked), len(batch)))
        return torch.zeros(len(batch), 25, 128)

    def ask() -> Iterator[Image.Image]:
        for image in [*images, images[0]]:
            asked.append(image)
            yield image

    monkeypatch.setattr(family, "features", features)
    monkeypatch.setattr(small.backbone, "numerics", replace(small.backbone.numerics, generation_batch=2))
    assert small.backbone.image_features(ask()).shape == (5, 25, 128)
    assert passes == [(2, 2), (4, 2), (5, 1)]


def test_features_on_disk_are_those_of_the_images(small: Small, images: list[Image.Image]) -> None:
    records = read_records(small.folder / "data/scene-vqa/records.parquet")[:4]
    rows = [small.features.row_of[record.image_sha256] for record in records]
    stored = small.features.take(rows)
    assert torch.allclose(stored, small.backbone.image_features(images), atol=1e-5)
    with pytest.raises(UserError, match="no vision features here. Run `pilot-bench backbone features`"):
        open_features(small.folder / "partition")


def test_prompts_and_answers_decode_back(small: Small) -> None:
    backbone = small.backbone
    decode = backbone.tokenizer.decode
    assert decode(backbone._prefix_ids.tolist()) == "<s>USER: "
    for question in QUESTIONS:
        assert decode(backbone.prompt_ids(question)) == f"\n{question} ASSISTANT:"
    for answer in ("red", "[0.12, 0.34, 0.56, 0.99]", "A dog and two apples on a green background."):
        assert decode(backbone.answer_ids(answer)) == f" {answer}</s>"


def test_missing_checkpoint(small: Small, tmp_path: Path) -> None:
    profile = small.profile.model_copy(update={"backbone_path": str(tmp_path)})
    with pytest.raises(UserError, match=r"field backbone_path: .*: no checkpoint here \(config.json is missing\)"):
        load_backbone(profile)


def test_rows_of_equal_length_go_together() -> None:
    assert group_by_length([3, 5, 3, 3, 5], 2) == [[1, 4], [0, 2], [3]]
