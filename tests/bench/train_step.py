"""A local training step the plain way: stock `LlavaForConditionalGeneration`, PEFT's LoRA, AdamW.

The vision tower runs in every step; logits are computed for the whole vocabulary and every token; sequences are padded
on the right to the longest; the loss is transformers' own over labels with -100. In the projector's place stands the
connector, by its equations.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
Connect = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Vision features (B, N, D) to image tokens (B, N, C) and auxiliary losses by name."""


@dataclass(frozen=True)
class Example:
    """Pixels (3, H, W) of an image; ids of the sequence, the image's placeholders among them; number of answer ids."""

    pixels: Tensor
    ids: Sequence[int]
    num_answer: int


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of LoRA and connector, and the rest of the optimiser's settings."""

    text_adapter: float
    connector: float
    num_steps: int
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float


class Projector(nn.Module):
    """A connector with the stock projector's interface, which remembers its losses."""

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self.connect, self.terms = connect, dict[str, Tensor]()

    def forward(self, features_BND: Tensor) -> Tensor:
        tokens_BNC, self.terms = self.connect(features_BND)
        return tokens_BNC


class Trainer:
    """Trains LoRA and connector.

    Args:
        checkpoint: folder of the backbone.
        lora: rank, alpha, and the adapter under PEFT's names.
        connect: the connector.
        parameters: its trained parameters.
        loss_weights: of its auxiliary losses.
        rates: of the optimiser.
        pad: id of the padding.
    """

    def __init__(
        self, checkpoint: Path, lora: tuple[int, float, Mapping[str, Tensor]], connect: Connect,
        parameters: Sequence[nn.Parameter], loss_weights: Mapping[str, float], rates: Rates, pad: int,
    ) -> None:  # fmt: skip
        rank, alpha, state = lora
        llava = LlavaForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True)
        self.projector = Projector(connect)
        llava.model.multi_modal_projector = self.projector
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=TARGETS)
        with warnings.catch_warnings():  # PEFT reads an attribute that transformers renames
            warnings.simplefilter("ignore", FutureWarning)
            self.model = get_peft_model(llava, config)
        loaded = set_peft_model_state_dict(self.model, dict(state))
        assert not loaded.unexpected_keys, "every tensor of the adapter has its place"
        self.model.train()
        self.loss_weights, self.rates, self.pad = loss_weights, rates, pad
        adapter = [parameter for name, parameter in self.model.named_parameters() if "lora_" in name]
        self.trained = [*adapter, *parameters]
        groups = [
            {"params": adapter, "lr": rates.text_adapter, "peak": rates.text_adapter},
            {"params": list(parameters), "lr": rates.connector, "peak": rates.connector},
        ]
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=rates.weight_decay)

    def step(self, number: int, examples: Sequence[Example]) -> float:
        """One optimiser step over `examples`, counted from 0; its loss before the update."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self._schedule(number)
        self.optimiser.zero_grad()
        loss = self.model(**self._batch(examples)).loss
        for name, weight in self.loss_weights.items():
            loss = loss + weight * self.projector.terms[name]
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.rates.max_grad_norm)
        self.optimiser.step()
        return float(loss.detach())

    def _schedule(self, number: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        warmup = max(1, math.ceil(self.rates.warmup_fraction * self.rates.num_steps))
        if number < warmup:
            return (number + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (number - warmup) / max(1, self.rates.num_steps - warmup)))

    def _batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        longest = max(len(example.ids) for example in examples)
        ids = torch.full((len(examples), longest), self.pad)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            stop = len(example.ids)
            ids[row, :stop], mask[row, :stop] = torch.tensor(example.ids), 1
            labels[row, stop - example.num_answer : stop] = ids[row, stop - example.num_answer : stop]
        pixels = torch.stack([example.pixels for example in examples])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}
