"""The stock processor makes the pixels and token ids of training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaProcessor

from pilot.backbone.families.llava import Llava
from pilot.backbone.families.table import family_of
from pilot.backbone.random_model import SPECIAL, chat_tokenizer
from pilot.export.processor import (
    chat_template,
    has_same_prompts,
    prompt_ids,
    save_own_processor,
    save_processor,
    stock_processor,
)
from pilot.io.atomic import read_json, write_json
from pilot.io.seeding import generator

from ..backbone.test_families import RANDOM, size
from ..small import Small
from .compare import stock_inputs

sides = st.integers(1, 150)


@pytest.fixture(scope="module")
def processor(small: Small, tmp_path_factory: pytest.TempPathFactory) -> LlavaProcessor:
    """Saved and opened again, as users get it."""
    folder = tmp_path_factory.mktemp("processor")
    save_processor(stock_processor(small.backbone, small.profile.prompt_template), folder)
    return LlavaProcessor.from_pretrained(folder)


def square(small: Small, image: Image.Image) -> Image.Image:
    """A picture as LLaVA's family pads it."""
    assert isinstance(small.backbone.family, Llava)
    return small.backbone.family.square(image.convert("RGB"))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise, so that every pixel counts."""
    pixels = generator("picture", width, height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_tokenizer_file_suits_transformers_4_and_5(processor: LlavaProcessor) -> None:
    """A class that both know, no list of special tokens (4 expects a dictionary), and nothing of this machine."""
    config = read_json(Path(processor.tokenizer.name_or_path) / "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["processor_class"] == "LlavaProcessor"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<s>", "</s>", "<pad>")
    assert not config.keys() & {"is_local", "local_files_only", "name_or_path", "backend", "extra_special_tokens"}


@pytest.mark.parametrize("family", RANDOM)
def test_files_of_every_family_suit_both_versions(family: str, tmp_path: Path) -> None:
    """Byte for byte, also where a tokenizer names its tokens, as InternVL's does; and version 5 reads the same ids."""
    tokenizer, names = chat_tokenizer(family), {"image_token": "<image>", "start_image_token": "<img>"}
    if family == "internvl":
        tokenizer.save_pretrained(tmp_path / "named")
        config = read_json(tmp_path / "named" / "tokenizer_config.json")
        write_json(tmp_path / "named" / "tokenizer_config.json", config | names)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "named", local_files_only=True)
    backbone = type("Stub", (), {"family": family_of(family), "tokenizer": tokenizer})()
    backbone.processor = family_of(family).random_processor(size(family))
    save_own_processor(backbone, tmp_path / "export")
    expected = {
        "additional_special_tokens": list(SPECIAL), "bos_token": "<s>", "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "image_token": "<image>", "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656, "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip
    if family == "internvl":
        expected |= {"extra_special_tokens": names, "start_image_token": "<img>"}
    assert read_json(tmp_path / "export" / "tokenizer_config.json") == expected
    again = AutoTokenizer.from_pretrained(tmp_path / "export", local_files_only=True)
    text = "<|im_start|>user\n<image> Is there a dog?<|im_end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template and again.all_special_tokens == tokenizer.all_special_tokens
    assert family != "internvl" or again.start_image_token == "<img>"


@settings(max_examples=40)
@given(width=sides, height=sides, mode=st.sampled_from(["RGB", "L", "RGBA"]))
def test_pixels_are_those_of_training(
    small: Small, processor: LlavaProcessor, width: int, height: int, mode: str
) -> None:
    """Square or not, the vision tower gets the same numbers, bit for bit."""
    image = picture(width, height, mode)
    squares = small.backbone.processor([square(small, image)], return_tensors="pt")["pixel_values"]
    assert torch.equal(processor.image_processor([image], return_tensors="pt")["pixel_values"], squares)


def test_padding_is_needed(small: Small, processor: LlavaProcessor) -> None:
    """Without `do_pad` a wide picture becomes another one: transformers' default would be wrong here."""
    image = picture(120, 60)
    padded = processor.image_processor([image], return_tensors="pt")["pixel_values"]
    stretched = processor.image_processor([image], do_pad=False, return_tensors="pt")["pixel_values"]
    assert padded.shape == stretched.shape == (1, 3, 80, 80)
    assert (padded - stretched).abs().max() > 1
    bars = padded[0, :, :18].flatten(1)  # the mean colour, rounded down to an integer, is 0 after normalisation
    assert bars.abs().max() < 1 / 255 / 0.26 + 1e-6
    assert padded[0, :, 22:58].abs().max() > 1


def test_llava_processor_settings_are_kept(small: Small) -> None:
    """LLaVA-1.5's own file resizes the shortest edge and crops; after padding both change nothing."""
    own = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    backbone = type("Stub", (), {})()
    backbone.model, backbone.tokenizer, backbone.processor = small.backbone.model, small.backbone.tokenizer, own
    stock = stock_processor(backbone, small.profile.prompt_template).image_processor
    image = picture(150, 91)
    expected = own([square(small, image)], return_tensors="pt")["pixel_values"]
    got = stock([image], return_tensors="pt")["pixel_values"]
    assert got.shape == (1, 3, 336, 336) and torch.equal(got, expected)


@settings(max_examples=40)
@given(text=st.text(st.characters(codec="ascii", exclude_characters="<>"), min_size=1, max_size=40))
def test_prompts_are_those_of_training(small: Small, processor: LlavaProcessor, text: str) -> None:
    """Begin token, 25 image tokens, and the ids of the instruction."""
    instruction = text.lstrip("\n")
    inputs = stock_inputs(processor, picture(30, 20), instruction)
    before = small.backbone._prefix_ids.tolist()
    image = [processor.image_token_id] * 25
    assert inputs["input_ids"][0].tolist() == [*before, *image, *small.backbone.prompt_ids(instruction)]
    assert has_same_prompts(processor, small.backbone, instruction)


def test_other_ids_are_noticed(small: Small, processor: LlavaProcessor) -> None:
    """A template with a space where training has none."""
    other = LlavaProcessor(
        processor.image_processor, processor.tokenizer, patch_size=16, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=processor.chat_template.replace("ASSISTANT:", "ASSISTANT: x"),
    )  # fmt: skip
    assert not has_same_prompts(other, small.backbone, "What is it?")
    assert prompt_ids(other, "What is it?")[0] == small.backbone.prompts.prefix[0]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "What is it?"}],
        [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Which?"}]}],
        [{"role": "system", "content": [{"type": "image"}, {"type": "text", "text": "Be kind."}]}],
        [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": [{"type": "image"}]}],
    ],
)
def test_other_conversations_are_refused(processor: LlavaProcessor, messages: list[dict[str, object]]) -> None:
    with pytest.raises(TemplateError, match="one user turn of one image and text"):
        processor.apply_chat_template(messages)


def test_begin_token_is_written_once(small: Small, tmp_path: Path) -> None:
    """A tokenizer that adds the begin token by itself gets a template without one."""
    tokenizer = small.backbone.tokenizer
    assert chat_template(tokenizer, "A: <image>{instruction} B:").count("<s>") == 1

    def adding(text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, *tokenizer(text)["input_ids"]]}

    assert "<s>" not in chat_template(adding, "A: <image>{instruction} B:")
