"""Families at random weights: image tokens, prompt ids and logits are those of transformers' full forward."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.families.table import FAMILIES, family_of
from pilot.backbone.lora import initial_state
from pilot.backbone.numerics import Numerics
from pilot.backbone.random_model import chat_tokenizer, random_family_model
from pilot.config.model import RandomModel
from pilot.connector.two_stage import TaskClientConnector

QUESTION, ANSWER = "What is left of the dog?", "Two cats"
SQUARE = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)


def size(family: str) -> RandomModel:
    """A family's size in these tests."""
    merge = 1 if family in ("llava", "llava_onevision") else 2
    return RandomModel(
        family=family, merge=merge, text_layers=2, text_hidden=48, text_intermediate=64, text_heads=4, text_kv_heads=2,
        vocabulary=1320, max_positions=512, vision_layers=2, vision_hidden=16, vision_intermediate=32, vision_heads=2,
        image_size=56, patch_size=14,
    )  # fmt: skip


@cache
def backbone(family: str, packs: bool = False) -> Backbone:
    """A backbone of this size."""
    model, tokenizer = random_family_model(size(family)), chat_tokenizer(family)
    checkpoint = Checkpoint(model, tokenizer, family_of(family).random_processor(size(family)))
    return Backbone(checkpoint, rank=4, alpha=8, prompt_template=None, numerics=Numerics())


def images() -> list[Image.Image]:
    """Two square images; other shapes are padded or resized before the processor."""
    return [Image.fromarray(picture) for picture in SQUARE]


def whole_ids(made: Backbone) -> Tensor:
    """The ids of a whole sequence, as transformers' model takes them."""
    config = made.model.config
    image = [config.image_token_id] * made.num_image_tokens
    return torch.tensor([*made.prompts.lead, *image, *made.prompt_ids(QUESTION), *made.answer_ids(ANSWER)])


def stock_inputs(made: Backbone, family: str) -> dict[str, Any]:
    """What transformers' full forward takes besides ids."""
    options: dict[str, Any] = {
        "smolvlm": {"do_image_splitting": False}, "idefics3": {"do_image_splitting": False},
        "internvl": {"crop_to_patches": False},
    }.get(family, {})  # fmt: skip
    pictures: Any = images()
    if family == "llava_onevision":
        pictures = [pictures]
    if family == "qwen2_5_vl":
        pictures = [picture.resize((56, 56), Image.Resampling.BICUBIC) for picture in pictures]
    if family in ("smolvlm", "idefics3"):
        pictures = [[picture] for picture in pictures]
    made_of = dict(made.processor(pictures, return_tensors="pt", **options))
    if family == "internvl":
        made_of.pop("num_patches")
    if family == "llava_onevision":
        made_of["pixel_values"] = made_of["pixel_values"].flatten(0, 1)
    return made_of


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_logits_are_those_of_the_full_forward(family: str) -> None:
    made = backbone(family)
    ids = whole_ids(made)
    inputs = stock_inputs(made, family)
    if family == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (ids == made.model.config.image_token_id).int().expand(2, -1)
    with torch.no_grad():
        full = made.model(input_ids=ids.expand(2, -1), **inputs).logits
        tokens = made.projector()(made.image_features(images()))
        after = len(made.prompts.lead) + made.num_image_tokens
        rest = ids[after:].expand(2, -1)
        prompt = len(made.prompt_ids(QUESTION))
        labels = torch.where(torch.arange(rest.shape[1]) >= prompt, rest, -100)
        logits, targets = made.logits(tokens, rest, labels)
    expected = full[:, after + prompt - 1 : -1].flatten(0, 1)
    assert tokens.shape == (2, *made.feature_shape[:1], 48)
    assert targets.tolist() == made.answer_ids(ANSWER) * 2
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_answers_are_those_of_generate(family: str) -> None:
    made = backbone(family)
    start = torch.tensor([*made.prompts.lead, *[made.model.config.image_token_id] * made.num_image_tokens])
    ids = torch.cat([start, torch.tensor(made.prompt_ids(QUESTION))]).expand(2, -1)
    inputs = stock_inputs(made, family)
    if family == "qwen2_5_vl":
        inputs["mm_token_type_ids"] = (ids == made.model.config.image_token_id).int()
    with torch.no_grad():
        out = made.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, max_new_tokens=8, do_sample=False,
            eos_token_id=made.end, pad_token_id=0,
        )  # fmt: skip
        tokens = made.projector()(made.image_features(images()))
        whole = made._whole(tokens)
        answers = made._passes.answer(lambda rows: whole[rows], [made.prompt_ids(QUESTION)] * 2, 8)
    assert answers == out[:, ids.shape[1] :].tolist() and len(answers[0]) == 8


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_prompts_are_the_template_tokenised_in_context(family: str) -> None:
    made = backbone(family)
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
        {"role": "user", "content": [{"type": "text", "text": "And right?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A red bird."}]},
    ]
    token = made.tokenizer.convert_ids_to_tokens(made.model.config.image_token_id)
    text = made.tokenizer.apply_chat_template(talk, tokenize=False).replace(
        token, made.family.opening + token * made.num_image_tokens + made.family.closing
    )
    ids = [
        *whole_ids(made).tolist(), *made.later_prompt_ids("And right?"), *made.answer_ids("A red bird."),
    ]  # fmt: skip
    tail = made.tokenizer(text)["input_ids"]
    assert tail[: len(ids)] == ids and made.tokenizer.decode(tail[len(ids) :]).strip() == ""


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_adapters_start_at_the_familys_connector(family: str) -> None:
    made = backbone(family)
    projector = made.projector()
    features = made.image_features(images())
    own = TaskClientConnector(projector)
    torch.testing.assert_close(own(features).tokens_BNC, projector(features), atol=1e-6, rtol=1e-5)
    assert initial_state(made.text_adapter, 0)
