"""The architectures of the checkpoints that ship, in transformers' classes."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
)

from pilot.data.scenes.scene import SIZE
from pilot.io.seeding import seed_for
from pilot.pretraining.parts import Idefics3Parts, LlavaParts, Parts
from pilot.pretraining.recipe import Idefics3Recipe, Recipe

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
PAD, BEGIN, END, IMAGE = range(4)


def tiny_llava_config(recipe: Recipe, vocabulary_size: int) -> LlavaConfig:
    """Return LLaVA-1.5's structure at a size that two CPU cores can train: CLIP tower, two-layer projector, Llama."""
    vision = CLIPVisionConfig(
        hidden_size=recipe.vision_width,
        intermediate_size=recipe.vision_feed_forward,
        num_hidden_layers=recipe.vision_layers,
        num_attention_heads=recipe.num_heads,
        image_size=SIZE,
        patch_size=recipe.patch_size,
        projection_dim=recipe.vision_width,
    )
    text = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=recipe.text_width,
        intermediate_size=recipe.text_feed_forward,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(SIZE // recipe.patch_size) ** 2,
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )


def new_tiny_llava(recipe: Recipe, vocabulary_size: int) -> LlavaForConditionalGeneration:
    """Create an untrained tiny-llava; the vision tower's weights do not depend on the vocabulary."""
    config = tiny_llava_config(recipe, vocabulary_size)
    torch.manual_seed(seed_for("tiny-llava", recipe.seed, "vision tower"))
    vision = CLIPVisionModel(config.vision_config)
    torch.manual_seed(seed_for("tiny-llava", recipe.seed, "everything else"))
    model = LlavaForConditionalGeneration(config).float()
    model.model.vision_tower.load_state_dict(vision.state_dict(), strict=True)
    return model


def tiny_idefics3_config(recipe: Idefics3Recipe, vocabulary_size: int) -> Idefics3Config:
    """Return Idefics3's structure with Qwen2 as its LLM, at a size that two CPU cores can train."""
    vision = {
        "hidden_size": recipe.vision_width, "intermediate_size": recipe.vision_feed_forward,
        "num_hidden_layers": recipe.vision_layers, "num_attention_heads": recipe.vision_heads,
        "image_size": SIZE, "patch_size": recipe.patch_size // recipe.shuffle, "max_image_size": {"longest_edge": SIZE},
    }  # fmt: skip
    text = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=recipe.text_width,
        intermediate_size=recipe.text_feed_forward,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_key_value_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    return Idefics3Config(
        vision_config=vision,
        text_config=text.to_dict(),
        image_token_id=IMAGE,
        scale_factor=recipe.shuffle,
        tie_word_embeddings=True,
        pad_token_id=PAD,
    )


def new_tiny_idefics3(recipe: Idefics3Recipe, vocabulary_size: int) -> Idefics3ForConditionalGeneration:
    """Create an untrained tiny-idefics3; the vision tower's weights do not depend on the vocabulary."""
    torch.manual_seed(seed_for("tiny-idefics3", recipe.seed, "everything"))
    model = Idefics3ForConditionalGeneration(tiny_idefics3_config(recipe, vocabulary_size)).float()
    torch.manual_seed(seed_for("tiny-idefics3", recipe.seed, "vision tower"))
    vision = Idefics3ForConditionalGeneration(tiny_idefics3_config(recipe, len(SPECIAL_TOKENS)))
    model.model.vision_model.load_state_dict(vision.model.vision_model.state_dict(), strict=True)
    return model


def new_parts(recipe: Recipe, vocabulary_size: int) -> Parts:
    """Create the untrained model of a recipe."""
    if isinstance(recipe, Idefics3Recipe):
        return Idefics3Parts(new_tiny_idefics3(recipe, vocabulary_size))
    return LlavaParts(new_tiny_llava(recipe, vocabulary_size))


def image_processor(recipe: Recipe) -> Any:
    """Return the image processor of a recipe's checkpoint: an image is one square tile of the scenes' size."""
    if isinstance(recipe, Idefics3Recipe):
        side = {"longest_edge": SIZE}
        return Idefics3ImageProcessorPil(size=side, max_image_size=side, do_image_splitting=False)
    return CLIPImageProcessorPil(size={"height": SIZE, "width": SIZE}, do_center_crop=False, do_convert_rgb=True)


def load_parts(recipe: Recipe, folder: Path) -> Parts:
    """Load the model of a recipe's checkpoint in float32."""
    if isinstance(recipe, Idefics3Recipe):
        loaded: Any = Idefics3ForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        return Idefics3Parts(loaded.float().eval())
    loaded = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return LlavaParts(loaded.float().eval())
