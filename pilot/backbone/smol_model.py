"""The model of `smol` in transformers' form: EfficientNet-lite0, two linear layers, Llama.

Everything except the vision tower is transformers' LLaVA: places of image tokens, projector, generation, files.
Importing this module needs the package `efficientnet_lite_pytorch` only when a model is created.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlavaConfig, LlavaForConditionalGeneration, LlavaModel
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector, LlavaPreTrainedModel

NETWORK = "efficientnet-lite0"
SIDE, STRIDE, CHANNELS = 224, 32, 1280
"""Side of an image and of a cell in pixels, and the width of EfficientNet-lite0's last feature map."""
CELLS = SIDE // STRIDE
"""Cells in a row and in a column: 7."""


class LiteConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of the vision tower; `hidden_size` is D, with the position of a cell."""

    model_type = "pilot_efficientnet_lite"
    base_config_key = "vision_config"

    image_size: int = SIDE
    patch_size: int = STRIDE
    hidden_size: int = CHANNELS + 2 * CELLS


class SmolConfig(LlavaConfig):  # type: ignore[misc]
    """LLaVA's configuration with another vision tower, whose only layer is read whole."""

    model_type = "pilot_smol"
    sub_configs_defaults = {"vision_config": LiteConfig, "text_config": LlamaConfig}

    image_token_index: int = 0
    image_seq_length: int = CELLS**2
    vision_feature_layer: int | list[int] = -1
    vision_feature_select_strategy: str = "full"


class LiteTower(PreTrainedModel):  # type: ignore[misc]
    """The package's EfficientNet-lite0 (Tan and Le 2019, arXiv 1905.11946) without its classifier."""

    config_class = LiteConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True  # it has no attention, and any kernel will do

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name(NETWORK)
        self.network._fc = nn.Identity()
        self.post_init()

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutput:
        """Map images (B, 3, S, S) to the features (B, N, D) of their cells, row by row.

        The last 2 x 7 numbers are 1 at a cell's column and at its row, else 0: after pooling and strides, features
        hardly say where they are, and the connector sees one cell at a time (as CoordConv, Liu et al. 2018, arXiv
        1807.03247). Images are computed one by one: their features then do not depend on the batch, and a processor's
        caches hold one image's maps (32 instead of 86 ms per image on one core).
        """
        images = pixel_values.to(self.dtype, memory_format=torch.channels_last).split(1)
        grid_BCHW = torch.cat([self.network.extract_features(image) for image in images])
        cells_BND = torch.cat([grid_BCHW.flatten(2).transpose(1, 2), positions(len(grid_BCHW)).to(grid_BCHW)], dim=-1)
        return BaseModelOutput(last_hidden_state=cells_BND, hidden_states=(cells_BND,))


def positions(count: int) -> Tensor:
    """Return column and row of every cell as 0 and 1, (count, 49, 14)."""
    one = torch.eye(CELLS)
    both = torch.cat([one.repeat(CELLS, 1), one.repeat_interleave(CELLS, dim=0)], dim=1)
    return both.expand(count, -1, -1)


class SmolModel(LlavaModel):  # type: ignore[misc]
    """LLaVA's model over `LiteTower`."""

    config_class = SmolConfig

    def __init__(self, config: Any) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.vision_tower = LiteTower(config.vision_config)
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        self.language_model = LlamaModel(config.text_config)
        self.post_init()


class SmolForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """`SmolModel` with the LLM's head; the vision tower is always float32."""

    config_class = SmolConfig
    _keep_in_fp32_modules_strict = ["vision_tower"]

    def __init__(self, config: Any) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = SmolModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
