"""The stock processor of a backbone, which prepares images and prompts as `Backbone` does, without this package."""

import copy
import json
from pathlib import Path
from typing import Any

from transformers import LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from pilot.backbone.backbone import Backbone
from pilot.backbone.prompts import IMAGE_PLACEHOLDER
from pilot.io.atomic import read_json, write_json

_REFUSAL = "this model was trained on one user turn of one image and text: expected a list of content parts"
_MACHINE_FIELDS = ("is_local", "local_files_only", "backend", "name_or_path", "model_specific_special_tokens")
"""Fields in which transformers 5 records how the tokenizer was loaded on this machine."""
_IMAGE_OPTIONS = (
    "do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std",
)  # fmt: skip


def stock_processor(backbone: Backbone, prompt_template: str) -> LlavaProcessor:
    """Return a `LlavaProcessor` that gives the pixels of `Backbone.image_features` and the ids of a training prompt.

    Its image processor pads to a square with the mean colour (`do_pad`, which is off by default in transformers) and
    then processes the image as the backbone's processor does.
    """
    config, own = backbone.model.config, backbone.processor
    return LlavaProcessor(
        LlavaImageProcessorPil(do_pad=True, **{name: getattr(own, name) for name in _IMAGE_OPTIONS}),
        backbone.tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # CLIP's class token
        chat_template=chat_template(backbone.tokenizer, prompt_template),
    )


def save_processor(processor: LlavaProcessor, folder: Path) -> None:
    """Write the processor for transformers 4 and 5."""
    processor.save_pretrained(folder)
    _suit_both_versions(folder / "tokenizer_config.json")


def save_own_processor(backbone: Backbone, folder: Path) -> None:
    """Write the backbone's tokenizer, with its chat template, and its image processor, set to one tile per image."""
    backbone.tokenizer.save_pretrained(folder)
    _suit_both_versions(folder / "tokenizer_config.json")
    processor = copy.deepcopy(backbone.processor)
    for name, value in backbone.family.one_tile.items():
        setattr(processor, name, value)
    processor.save_pretrained(folder)


def _suit_both_versions(path: Path) -> None:
    """Replace a class name and a list of version 5 that 4 rejects; leave out what is of this machine."""
    written = read_json(path)
    config = {name: value for name, value in written.items() if name not in _MACHINE_FIELDS}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(extra := config.pop("extra_special_tokens", None), list) and extra:
        config["additional_special_tokens"] = extra
    named = written.get("model_specific_special_tokens", {})
    if named.keys() - {"image_token"}:  # which processors know; InternVL's asks its tokenizer for the others
        config["extra_special_tokens"] = named
    config["model_input_names"] = ["input_ids", "attention_mask"]  # 4 would add token_type_ids, which models refuse
    write_json(path, config)


def chat_template(tokenizer: Any, prompt_template: str) -> str:
    """Return the prompt template as Jinja, for one user turn of one image and text, in any order.

    It writes the begin token if `tokenizer` does not add it. Spaces around the text are stripped as in training, and so
    is the line break that lm-eval puts before it. Other conversations are refused when the template is applied.
    """
    begin = "" if tokenizer("")["input_ids"] else tokenizer.bos_token
    before, after = prompt_template.split(IMAGE_PLACEHOLDER)
    between, end = after.split("{instruction}")
    lead, end = json.dumps(begin + before + IMAGE_PLACEHOLDER + between), json.dumps(end)
    fits = (
        "messages | length == 1 and messages[0]['role'] == 'user' and messages[0]['content'] is not string "
        "and messages[0]['content'] | selectattr('type', 'equalto', 'image') | list | length == 1"
    )
    texts = "messages[0]['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join"
    return (
        f"{{% if not ({fits}) %}}{{{{ raise_exception({json.dumps(_REFUSAL)}) }}}}{{% endif %}}"
        f"{{{{ {lead} + ({texts}).strip() + {end} }}}}"
    )


def prompt_ids(processor: LlavaProcessor, instruction: str) -> list[int]:
    """Return the ids of a prompt from the stock processor, with one id in the place of all image tokens."""
    content: Any = [{"type": "image"}, {"type": "text", "text": instruction}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    tokenizer = processor.tokenizer
    starts_with_begin = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    ids: list[int] = tokenizer(text, add_special_tokens=not starts_with_begin)["input_ids"]
    return ids


def has_same_prompts(processor: LlavaProcessor, backbone: Backbone, instruction: str) -> bool:
    """Return whether the stock processor's ids after the image are those that the model was trained with."""
    ids = prompt_ids(processor, instruction)
    return ids[ids.index(processor.image_token_id) + 1 :] == backbone.prompt_ids(instruction)
