"""The architecture of tiny-llava, in transformers' classes."""

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from pilot.data.scenes.scene import SIZE
from pilot.io.seeding import seed_for
from pilot.pretraining.recipe import Recipe

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
