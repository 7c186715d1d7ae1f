"""The frozen multimodal LLM with its LoRA: prompts, features, loss and answers.

A sequence is `<s> before [image tokens] after answer </s>`, where `before` and `after` are the parts of the filled
prompt template around `<image>`. Connectors are not part of it: callers pass image tokens, or a function that returns
them.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.lora import attach_lora
from pilot.backbone.numerics import Numerics
from pilot.backbone.offsets import Offsets
from pilot.backbone.packed.checkpoint import LeanCheckpoint
from pilot.backbone.packed.llama import supports
from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.packed.passes import PackedPasses
from pilot.backbone.passes import ImageTokens, LanguageModel, ModulePasses, Passes
from pilot.connector.mlp import Mlp
from pilot.errors import UserError

IMAGE_PLACEHOLDER = "<image>"
_ROLE = re.compile(r"\S+:\s*$")
"""Pattern of the user's role, which ends the template's text before the image."""


class Backbone:
    """A frozen LLaVA model from transformers, with its tokenizer, its image processor and one LoRA in its LLM."""

    def __init__(
        self,
        checkpoint: Checkpoint | LeanCheckpoint,
        *,
        rank: int,
        alpha: float,
        prompt_template: str,
        numerics: Numerics | None = None,
        max_length: int | None = None,
    ) -> None:
        self.numerics = numerics or Numerics()
        self._checkpoint = checkpoint
        self.model, self.tokenizer = checkpoint.model, checkpoint.tokenizer
        self.language_model: nn.Module = self.model.model.language_model
        self.lm_head: nn.Module = self.model.lm_head
        self.embed: nn.Module = self.model.get_input_embeddings()
        self.eos_id: int = self.tokenizer.eos_token_id
        self.bos_id: int = self.tokenizer.bos_token_id
        self.num_language_parameters = sum(p.numel() for p in self.language_model.parameters())
        self.text_adapter = attach_lora(self.language_model, rank, alpha, token_space=self.numerics.token_space)
        self._offsets: Offsets | None = None
        if self.numerics.gradient_checkpointing:
            with warnings.catch_warnings():  # about a new name, which older versions of transformers 5 lack
                warnings.simplefilter("ignore", FutureWarning)
                self.language_model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        before, self._after = prompt_template.split(IMAGE_PLACEHOLDER)
        role = _ROLE.search(before)
        self._follow_up = (role[0] if role else "") + self._after.lstrip()
        self._answer_role = self._after.split("{instruction}")[1].strip()
        self._answer_role_ids: list[int] = self.tokenizer(self._answer_role, add_special_tokens=False)["input_ids"]
        prefix = [self.bos_id, *self.tokenizer(before, add_special_tokens=False)["input_ids"]]
        self._prefix_ids = torch.tensor(prefix, device=self.numerics.device)
        model = LanguageModel(
            self.language_model, self.lm_head, self.embed, self._prefix_ids, self.eos_id, self.numerics
        )
        packs = self.numerics.can_pack and supports(self.model.config.text_config)
        self._passes: Passes = PackedPasses(model) if packs else ModulePasses(model)
        self.max_ids = None if max_length is None else self._max_text_ids(max_length)

    @property
    def processor(self) -> Any:
        """The image processor."""
        return self._checkpoint.processor

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the image: the begin token and the system prompt."""
        return len(self._prefix_ids)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(N, D): tokens per image, and the vision tower's width times the number of selected layers."""
        vision = self.model.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches + self._class_token, len(self._vision_layers) * vision.hidden_size

    @property
    def _vision_layers(self) -> list[int]:
        layers: int | list[int] = self.model.config.vision_feature_layer
        return layers if isinstance(layers, list) else [layers]

    @property
    def _class_token(self) -> bool:
        """Whether the class token is one of an image's tokens."""
        kept: bool = self.model.config.vision_feature_select_strategy == "full"
        return kept

    def _max_text_ids(self, max_length: int) -> int:
        """Return how many tokens may follow the image in a sequence of at most `max_length`."""
        taken = self.num_prefix_tokens + self.feature_shape[0]
        if max_length <= taken:
            raise UserError(
                f"profile: field max_length: expected more than the {taken} tokens of system prompt and image, got "
                f"{max_length}. Increase it."
            )
        return max_length - taken

    def projector(self) -> Mlp:
        """Return a float32 copy of the backbone's pre-trained connector, in host memory."""
        own = self.model.model.multi_modal_projector
        with torch.device("cpu"):
            copy = Mlp(own.linear_1.in_features, own.linear_2.out_features)
        copy.load_state_dict(own.state_dict(), strict=True)
        return copy.requires_grad_(False)

    def load_text_adapter(self, state: dict[str, Tensor]) -> None:
        """Set the LoRA to `state`, whose names must match exactly.

        Raises:
            ValueError: a missing or unexpected name, or another shape.
        """
        if state.keys() != self.text_adapter.keys():
            difference = sorted(state.keys() ^ self.text_adapter.keys())[:3]
            raise ValueError(f"text adapter does not fit this backbone: {difference}")
        with torch.no_grad():
            for name, parameter in self.text_adapter.items():
                if parameter.shape != state[name].shape:
                    raise ValueError(f"{name}: shape {tuple(state[name].shape)}, expected {tuple(parameter.shape)}")
                parameter.copy_(state[name])

    def offset_parameters(self) -> dict[str, nn.Parameter]:
        """Return the offsets of the LLM's linear layers by name, initially zero; see `pilot.backbone.offsets`."""
        if self._offsets is None:
            self._offsets = Offsets(self.language_model)
        return self._offsets.parameters

    def reset_offsets(self) -> None:
        """Set all offsets to zero, so that none of another model's remain; call `fold_offsets` afterwards."""
        if self._offsets is not None:
            self._offsets.reset()

    def fold_offsets(self) -> None:
        """Apply the offsets to the LLM's weights; do nothing if no method uses offsets."""
        if self._offsets is not None:
            self._offsets.fold()
            self._passes.refresh()

    def image_features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return features (M, N, D) of the layers and tokens that the checkpoint's configuration names, in host memory.

        LLaVA-1.5 takes the patches of the second-to-last layer without the class token; features of several layers are
        concatenated along D. Images that are not square are padded to a square with the processor's mean colour, as
        LLaVA-1.5 does.
        """
        parts = []
        size = self.numerics.generation_batch
        for start in range(0, len(images), size):
            squares = [self._square(image) for image in images[start : start + size]]
            pixels = self.numerics.to_device(self.processor(squares, return_tensors="pt")["pixel_values"])
            with torch.no_grad():
                output = self._checkpoint.vision_tower(pixels, output_hidden_states=True)
            layers = [output.hidden_states[layer] for layer in self._vision_layers]
            parts.append(torch.cat(layers, dim=-1)[:, 0 if self._class_token else 1 :].cpu())
        return torch.cat(parts)

    def prompt_ids(self, instruction: str) -> list[int]:
        """Return the ids of the prompt after the image; strip the instruction, as LLaVA's code does."""
        return self._ids(self._after.replace("{instruction}", instruction.strip()))

    def follow_up_prompt_ids(self, instruction: str) -> list[int]:
        """Return the ids of a later question in a conversation, which follow the end token of the previous answer."""
        return self._ids(self._follow_up.replace("{instruction}", instruction))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer with its end token, as they are when the answer follows the prompt.

        Prompt and answer are tokenised together: tokenised alone, an answer would start with the space that
        SentencePiece puts before a text.

        Raises:
            ValueError: the tokenizer joins the prompt's last characters with the answer's first.
        """
        both = self.tokenizer(f"{self._answer_role} {answer}", add_special_tokens=False)["input_ids"]
        if both[: len(self._answer_role_ids)] != self._answer_role_ids:
            raise ValueError(f"the tokenizer joins {self._answer_role!r} with the answer {answer!r}")
        return [*both[len(self._answer_role_ids) :], self.eos_id]

    def cross_entropy(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Return the mean cross-entropy of the labelled tokens, 0 if there are none.

        Tensors are on the backbone's device; `ids` follow the image and are right-padded.
        """
        if not (labels_BL != IGNORED).any():
            trained = (image_tokens_BNC, *self.text_adapter.values())
            return torch.stack([value.float().sum() for value in trained]).sum() * 0
        return functional.cross_entropy(*self._passes.logits(image_tokens_BNC, ids_BL, labels_BL))

    def logits(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (M, V) of the M >= 1 labelled tokens, and the tokens (M,); arguments as in `cross_entropy`."""
        logits_MV, targets_M = self._passes.logits(image_tokens_BNC, ids_BL, labels_BL)
        num_labelled = int((labels_BL != IGNORED).sum())
        return logits_MV[:num_labelled], targets_M[:num_labelled]

    def answer(self, image_tokens: ImageTokens, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Return greedy answers to `prompts` (instructions); `image_tokens(rows)` returns (len(rows), N, C)."""
        with torch.no_grad():
            tokens = self._passes.answer(image_tokens, self._all_prompt_ids(prompts), max_new_tokens)
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _all_prompt_ids(self, instructions: Sequence[str]) -> list[list[int]]:
        """Return the ids of each prompt after the image; tokenise repeated instructions once."""
        ids = {instruction: self.prompt_ids(instruction) for instruction in dict.fromkeys(instructions)}
        return [ids[instruction] for instruction in instructions]

    def _square(self, image: Image.Image) -> Image.Image:
        if image.width == image.height:
            return image.convert("RGB")
        side = max(image.size)
        red, green, blue = (int(255 * value) for value in self.processor.image_mean)
        square = Image.new("RGB", (side, side), (red, green, blue))
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
        return square
