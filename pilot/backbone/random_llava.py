"""`llava-random`: LLaVA-1.5's architecture and checkpoint layout at any size, with random weights.

Every tensor is drawn from a separate generator, seeded by its name: N(0, 0.02^2) for matrices and embeddings, 1 for the
scales of normalisations, 0 for biases. So a written checkpoint equals a model created directly on the same kind of
device, and a shard can be written without the rest of the model in memory.

The tokenizer is tiny-llava's: Vicuna's is not free to ship. Ids above its 1,289 are never used.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from pilot.backbone.sources import INDEX, TINY_LLAVA
from pilot.config.model import RandomModel
from pilot.io.atomic import set_mode
from pilot.io.seeding import seed_for

STD = 0.02
SHARD_BYTES = 1 << 30
HUB_NAMES = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
"""Prefixes of parameters in transformers' model, and those of the same tensors in `llava-hf/llava-1.5-7b-hf`."""


def llava_config(size: RandomModel, tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """Return the configuration of a size, with the special ids of `tokenizer`."""
    vision = CLIPVisionConfig(
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_intermediate,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_heads,
        image_size=size.image_size,
        patch_size=size.patch_size,
    )
    text = LlamaConfig(
        vocab_size=max(size.vocabulary, len(tokenizer)),
        hidden_size=size.text_hidden,
        intermediate_size=size.text_intermediate,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_heads,
        num_key_value_heads=size.text_kv_heads,
        max_position_embeddings=size.max_positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=size.num_image_tokens,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def random_tokenizer() -> PreTrainedTokenizerFast:
    """Load tiny-llava's tokenizer."""
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(TINY_LLAVA, local_files_only=True)  # type: ignore[assignment]
    return tokenizer


def random_processor(size: RandomModel) -> CLIPImageProcessorPil:
    """Return an image processor like LLaVA-1.5's: resize the shortest edge to the image size, then crop.

    The crop cuts nothing off a square.
    """
    side = size.image_size
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_center_crop=True,
        do_convert_rgb=True,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )


def random_model(size: RandomModel, device: torch.device, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """Create the model on `device`, without a checkpoint on disk or a copy in host memory."""
    config = llava_config(size, random_tokenizer())
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    llama = model.model.language_model  # its angles are float32, whatever the type of the weights
    llama.rotary_emb = type(llama.rotary_emb)(config.text_config).to(device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_tensor(hub_name(name), parameter.shape, size.seed, device))
    return model


def write_random_llava(
    size: RandomModel, folder: Path, shard_bytes: int = SHARD_BYTES, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write the checkpoint atomically: shards, index, configuration, tokenizer and processor."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        tokenizer = random_tokenizer()
        config = llava_config(size, tokenizer)
        config.dtype, config.architectures = dtype, ["LlavaForConditionalGeneration"]
        with torch.device("meta"):
            shapes = {hub_name(k): p.shape for k, p in LlavaForConditionalGeneration(config).named_parameters()}
        _write_shards(work, shapes, size.seed, shard_bytes, dtype)
        for part in (config, tokenizer, random_processor(size)):
            part.save_pretrained(work)
        set_mode(work, 0o755)
        os.replace(work, folder)
    except OSError:
        if not folder.is_dir():  # else another process finished first, with the same bytes
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def hub_name(name: str) -> str:
    """Map the name of a parameter in transformers' model to its name in the hub's checkpoint.

    Raises:
        ValueError: an unknown prefix: transformers has renamed its modules.
    """
    for prefix, hub in HUB_NAMES.items():
        if name.startswith(prefix):
            return hub + name.removeprefix(prefix)
    raise ValueError(f"parameter {name}: expected a name that starts with one of {', '.join(HUB_NAMES)}")


def _write_shards(
    folder: Path, shapes: Mapping[str, torch.Size], seed: int, shard_bytes: int, dtype: torch.dtype
) -> None:
    shards = list(_split({name: shape.numel() * dtype.itemsize for name, shape in shapes.items()}, shard_bytes))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        cpu = torch.device("cpu")
        tensors = {name: _tensor(name, shapes[name], seed, cpu).to(dtype) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    total = sum(shape.numel() for shape in shapes.values()) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _split(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Yield names in order, in groups of at most `limit` bytes (or of one tensor)."""
    group: list[str] = []
    for name, size in sizes.items():
        if group and sum(sizes[other] for other in group) + size > limit:
            yield group
            group = []
        group.append(name)
    yield group


def _tensor(name: str, shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """Draw one float32 tensor; `name` as on the hub."""
    if name.endswith(".bias"):
        return torch.zeros(shape, device=device)
    if len(shape) == 1 and "norm" in name:
        return torch.ones(shape, device=device)
    source = torch.Generator(device).manual_seed(seed_for("RandomLlava", seed, name))
    return torch.randn(shape, generator=source, device=device) * STD
