"""The frozen multimodal LLM with its LoRA: prompts, features, loss and answers.

A sequence is `prefix [image tokens] prompt answer`. Connectors are not part of it: callers pass image tokens, or a
function that returns them. What differs between models is in `pilot.backbone.families`.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from pilot.backbone.checkpoint import Checkpoint
from pilot.backbone.families.base import Family
from pilot.backbone.families.table import family_of
from pilot.backbone.language import LanguageParameters
from pilot.backbone.lora import GROUP, LoraLinear, attach_lora, initial_lora_state
from pilot.backbone.mixed import Mixtures
from pilot.backbone.numerics import Numerics
from pilot.backbone.offsets import Offsets
from pilot.backbone.packed.checkpoint import LeanCheckpoint
from pilot.backbone.packed.llama import supports
from pilot.backbone.packed.packing import IGNORED
from pilot.backbone.packed.passes import PackedPasses
from pilot.backbone.passes import ImageTokens, LanguageModel, ModulePasses, Passes
from pilot.backbone.prompts import ChatPrompts, Prompts, TemplatePrompts
from pilot.connector.projector import Projector
from pilot.errors import UserError
from pilot.methods.mixed_lora import Mixture


class Backbone:
    """A frozen model from transformers, with its tokenizer, its image processor and one LoRA in its LLM."""

    def __init__(
        self,
        checkpoint: Checkpoint | LeanCheckpoint,
        *,
        rank: int,
        alpha: float,
        prompt_template: str | None,
        numerics: Numerics | None = None,
        max_length: int | None = None,
    ) -> None:
        self.numerics = numerics or Numerics()
        self._checkpoint = checkpoint
        self.model, self.tokenizer = checkpoint.model, checkpoint.tokenizer
        self.family: Family = family_of(self.model.config.model_type)(checkpoint, self.numerics)
        self.language_model = self.family.language_model
        self.lm_head: nn.Module = self.model.lm_head
        self.embed: nn.Module = self.model.get_input_embeddings()
        self.prompts = self._make_prompts(prompt_template)
        self.eos_id = self.prompts.eos_id
        self.num_language_parameters = sum(p.numel() for p in self.language_model.parameters())
        self._lora = rank, alpha
        self.text_adapter = attach_lora(self.language_model, rank, alpha, token_space=self.numerics.token_space)
        self._language = LanguageParameters(self.language_model, self.lm_head, self.text_adapter.values())
        self._offsets: Offsets | None = None
        self._singular: dict[str, Tensor] | None = None
        if self.numerics.gradient_checkpointing:
            with warnings.catch_warnings():  # about a new name, which older versions of transformers 5 lack
                warnings.simplefilter("ignore", FutureWarning)
                self.language_model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        self._prefix_ids = torch.tensor(self.prompts.prefix, device=self.numerics.device)
        after = self.family.after_image()
        self._after_image = None if after is None else self.numerics.to_device(after)
        positions = self.family.positions(self.num_prefix_tokens)
        model = LanguageModel(
            self.language_model, self.lm_head, self.embed, self._prefix_ids, self.eos_id, self.numerics, positions
        )
        can_pack = self.numerics.can_pack and positions is None and supports(self.model.config.text_config)
        self._passes: Passes = PackedPasses(model) if can_pack else ModulePasses(model)
        self._plain_passes, self._model = self._passes, model
        self._mixtures: Mixtures | None = None
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
        """(N, D): features per image, and their width."""
        return self.family.feature_shape

    @property
    def num_image_tokens(self) -> int:
        """Number of tokens of an image in a sequence: N, and those that follow the image's own."""
        return self.feature_shape[0] + (0 if self._after_image is None else len(self._after_image))

    def _make_prompts(self, template: str | None) -> Prompts:
        if template is not None:
            return TemplatePrompts(self.tokenizer, template)
        image = self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id)
        return ChatPrompts(self.tokenizer, image, self.family.opening, self.family.closing)

    def _max_text_ids(self, max_length: int) -> int:
        """Return how many tokens may follow the image in a sequence of at most `max_length`."""
        taken = self.num_prefix_tokens + self.num_image_tokens
        if max_length <= taken:
            raise UserError(
                f"profile: field max_length: expected more than the {taken} tokens of system prompt and image, got "
                f"{max_length}. Increase it."
            )
        return max_length - taken

    def projector(self) -> Projector:
        """Return a float32 copy of the backbone's pre-trained connector, in host memory."""
        return self.family.projector()

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
        return self._offsets_of_layers().parameters

    def initial_adapter(self, seed: int, from_weights: bool = False) -> dict[str, Tensor]:
        """Return LoRA's initial values: the seed's, or the weights' largest singular values with their offsets."""
        if not from_weights:
            return initial_lora_state(self.text_adapter, seed)
        if self._singular is None:
            self._singular = self._offsets_of_layers().singular_start()
        return dict(self._singular)

    def _offsets_of_layers(self) -> Offsets:
        if self._offsets is None:
            self._offsets = Offsets(self.language_model)
        return self._offsets

    def mix(self, mixture: Mixture | None) -> dict[str, nn.Parameter]:
        """Use several LoRAs in each layer, or with None the client's own alone; return the parameters that this adds.

        Mixtures are computed by transformers' module, in token space; see `pilot.backbone.mixed`.
        """
        if self._mixtures is not None:
            self._mixtures.detach()
        self._passes = self._plain_passes
        if mixture is None:
            return {}
        if isinstance(self._checkpoint, LeanCheckpoint) and self._mixtures is None:
            self._model = replace(self._model, layers=self._whole_language_model(self._checkpoint))
        mixtures = self._mixtures = self._mixtures or Mixtures(self._model.layers, self.width)

        def weigh(prompts: Sequence[Sequence[int]]) -> None:
            mixtures.weigh(self.question_features(prompts))

        self._passes = ModulePasses(self._model, None if mixture.weigh is None else weigh)
        return mixtures.attach(mixture)

    def question_features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the features (B, D) of questions: their ids' mean embedding, of length 1; 0 without ids."""
        with torch.no_grad():
            rows = [self.embed(torch.tensor(ids, dtype=torch.int64, device=self.numerics.device)) for ids in prompts]
            means = [row_LD.float().mean(dim=0) if len(row_LD) else row_LD.new_zeros(self.width) for row_LD in rows]
            return functional.normalize(torch.stack(means), dim=1)

    @property
    def width(self) -> int:
        """Width of the LLM."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    def _whole_language_model(self, checkpoint: LeanCheckpoint) -> nn.Module:
        """Return the LLM as transformers' module, with the same LoRA."""
        whole: nn.Module = checkpoint.whole.get_submodule(self.family.language)
        attach_lora(whole, *self._lora, token_space=True)
        for name, layer in whole.named_modules():
            if isinstance(layer, LoraLinear):
                layer.lora_A, layer.lora_B = (self.text_adapter[f"{GROUP}.{name}.lora_{part}"] for part in "AB")
        return whole

    def language_parameters(self) -> dict[str, nn.Parameter]:
        """Return the LLM's own parameters by name; see `pilot.backbone.language`, also for what is raised."""
        return self._language.parameters()

    def initial_language_state(self) -> dict[str, Tensor]:
        """Return what `language_parameters` hold before training, in host memory."""
        return self._language.initial()

    def reset_weights(self) -> None:
        """Restore the LLM as its checkpoint has it, with offsets of zero; call `apply_weights` afterwards."""
        self._language.reset()
        if self._offsets is not None:
            self._offsets.reset()

    def apply_weights(self) -> None:
        """Compute with the LLM's parameters and offsets as they are now; do nothing if no method changes them."""
        if self._offsets is not None:
            self._offsets.fold()
        if self._offsets is not None or self._language.in_use:
            self._passes.refresh()

    def image_features(self, images: Iterable[Image.Image]) -> Tensor:
        """Return the family's features (M, N, D) of images, in host memory; images are asked for batch by batch."""
        parts, remaining = [], iter(images)
        while batch := [image.convert("RGB") for image in islice(remaining, self.numerics.generation_batch)]:
            with torch.no_grad():
                parts.append(self.family.features(batch).cpu())
        return torch.cat(parts)

    def prompt_ids(self, instruction: str) -> list[int]:
        """Return the ids between the image and the first answer."""
        return self.prompts.first(instruction)

    def follow_up_prompt_ids(self, instruction: str) -> list[int]:
        """Return the ids of a later question in a conversation, which follow the end token of the previous answer."""
        return self.prompts.later(instruction)

    def answer_ids(self, answer: str) -> list[int]:
        """Return the ids of an answer with its end token, as they are when the answer follows the prompt.

        Raises:
            UserError: the tokenizer joins the prompt's last characters with the answer's first.
        """
        return self.prompts.answer(answer)

    def cross_entropy(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Return the mean cross-entropy of the labelled tokens, 0 if there are none.

        Tensors are on the backbone's device; `ids` follow the image and are right-padded.
        """
        if not (labels_BL != IGNORED).any():
            trained = [image_tokens_BNC, *self.text_adapter.values(), *self._language.trained()]
            trained += self._mixtures.trained() if self._mixtures is not None else ()
            return torch.stack([value.float().sum() for value in trained]).sum() * 0
        return functional.cross_entropy(*self._passes.logits(self._whole(image_tokens_BNC), ids_BL, labels_BL))

    def logits(self, image_tokens_BNC: Tensor, ids_BL: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (M, V) of the M >= 1 labelled tokens, and the tokens (M,); arguments as in `cross_entropy`."""
        logits_MV, targets_M = self._passes.logits(self._whole(image_tokens_BNC), ids_BL, labels_BL)
        num_labelled = int((labels_BL != IGNORED).sum())
        return logits_MV[:num_labelled], targets_M[:num_labelled]

    def answer(self, image_tokens: ImageTokens, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Return greedy answers to `prompts` (instructions); `image_tokens(rows)` returns (len(rows), N, C)."""
        tokens = self.continue_ids(image_tokens, self._all_prompt_ids(prompts), max_new_tokens)
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def continue_ids(
        self, image_tokens: ImageTokens, ids: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[list[int]]:
        """Return the tokens of greedy answers to prompts given as ids; the end token is left out."""

        def whole(rows: list[int]) -> Tensor:
            return self._whole(image_tokens(rows))

        with torch.no_grad():
            return self._passes.answer(whole, ids, max_new_tokens)

    def _whole(self, image_tokens_BNC: Tensor) -> Tensor:
        """Return the image's tokens with the fixed embeddings that follow them."""
        if self._after_image is None:
            return image_tokens_BNC
        after_BEC = self._after_image.to(image_tokens_BNC.dtype).expand(len(image_tokens_BNC), -1, -1)
        return torch.cat([image_tokens_BNC, after_BEC], dim=1)

    def _all_prompt_ids(self, instructions: Sequence[str]) -> list[list[int]]:
        """Return the ids of each prompt after the image; tokenise repeated instructions once."""
        ids = {instruction: self.prompt_ids(instruction) for instruction in dict.fromkeys(instructions)}
        return [ids[instruction] for instruction in instructions]
