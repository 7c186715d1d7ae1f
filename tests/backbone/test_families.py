"""Families at random weights: image tokens, prompt ids and logits are those of transformers' full forward."""

from functools import cache

import pytest
import torch

from pilot.backbone.backbone import Backbone
from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.families.table import FAMILIES, family_of
from pilot.backbone.lora import initial_lora_state
from pilot.backbone.numerics import Numerics
from pilot.backbone.prompts import ChatPrompts
from pilot.backbone.random_model import chat_tokenizer, random_family_model
from pilot.config.model import RandomModel
from pilot.connector.two_stage import TaskClientConnector
from pilot.errors import UserError

from ..families import ANSWER, QUESTION, images, prompt, stock_inputs, whole_ids

RANDOM = sorted(name for name, family in FAMILIES.items() if family.stock)
"""Families whose models can be made with random weights; `smol` is tested in test_smol.py."""


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


@pytest.mark.parametrize("family", RANDOM)
def test_logits_are_those_of_the_full_forward(family: str) -> None:
    made = backbone(family)
    ids = whole_ids(made)
    inputs = stock_inputs(made, ids)
    with torch.no_grad():
        full = made.model(input_ids=ids.expand(2, -1), **inputs).logits
        tokens = made.projector()(made.image_features(images()))
        after = len(made.prompts.prefix) + made.num_image_tokens
        rest = ids[after:].expand(2, -1)
        asked = len(made.prompt_ids(QUESTION))
        labels = torch.where(torch.arange(rest.shape[1]) >= asked, rest, -100)
        logits, targets = made.logits(tokens, rest, labels)
    expected = full[:, after + asked - 1 : -1].flatten(0, 1)
    assert tokens.shape == (2, *made.feature_shape[:1], 48)
    assert targets.tolist() == made.answer_ids(ANSWER) * 2
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", RANDOM)
def test_greedy_answers_are_those_of_generate(family: str) -> None:
    made = backbone(family)
    ids = prompt(made).expand(2, -1)
    inputs = stock_inputs(made, ids)
    with torch.no_grad():
        out = made.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, max_new_tokens=8, do_sample=False,
            eos_token_id=made.eos_id, pad_token_id=0,
        )  # fmt: skip
        tokens = made.projector()(made.image_features(images()))
        whole = made._whole(tokens)
        answers = made._passes.answer(lambda rows: whole[rows], [made.prompt_ids(QUESTION)] * 2, 8)
    assert answers == out[:, ids.shape[1] :].tolist() and len(answers[0]) == 8


@pytest.mark.parametrize("family", RANDOM)
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
        *whole_ids(made).tolist(), *made.follow_up_prompt_ids("And right?"), *made.answer_ids("A red bird."),
    ]  # fmt: skip
    tail = made.tokenizer(text)["input_ids"]
    assert tail[: len(ids)] == ids and made.tokenizer.decode(tail[len(ids) :]).strip() == ""


IMAGE, TEXT = "{{ '<image>' }}", "{{ m['content'][-1]['text'] }}"
GENERATE = "{% if add_generation_prompt %}|{% endif %}"
EACH, DONE = "{% for m in messages %}", "{% endfor %}"
TEMPLATES = {
    None: "there is none",
    f"{EACH}{TEXT}<|im_end|>{DONE}A:": "expected one image token for one image, got 0",
    f"{EACH}{IMAGE}{IMAGE}{TEXT}<|im_end|>{DONE}A:": "expected one image token for one image, got 2",
    f"{EACH}{TEXT}{IMAGE}{DONE}A:": "the text before the image depends on the question",
    f"{{{{ '<image>' }}}}{EACH}{TEXT}<|im_end|>{DONE}": "it has no generation prompt",
    f"{IMAGE}{EACH}{TEXT}{DONE}{GENERATE}": "an answer does not continue the generation prompt",
    f"{IMAGE}{EACH}{{% if m['role'] == 'assistant' %}}|{{% endif %}}{TEXT}{DONE}{GENERATE}": "no token ends an answer",
    "{{ raise_exception('text only') }}": "it does not take a question with an image .text only",
    "{% if %}": "it does not take a question with an image",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_that_does_not_fit_is_one_message(template: str | None) -> None:
    tokenizer = chat_tokenizer("smolvlm")
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=rf"chat template: {TEMPLATES[template]}.*set prompt_template"):
        ChatPrompts(tokenizer, "<image>")


@pytest.mark.parametrize("family", RANDOM)
def test_adapters_start_at_the_familys_connector(family: str) -> None:
    made = backbone(family)
    projector = made.projector()
    features = made.image_features(images())
    own = TaskClientConnector(projector)
    torch.testing.assert_close(own(features).tokens_BNC, projector(features), atol=1e-6, rtol=1e-5)
    assert initial_lora_state(made.text_adapter, 0)
