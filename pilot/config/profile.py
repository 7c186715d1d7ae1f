"""Typed model of a profile file."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from pilot.config.base import Count, Positive, Sparse
from pilot.config.federation import FederationConfig
from pilot.config.model import (
    Attention,
    Device,
    FeatureType,
    Frame,
    LearningRates,
    LoraConfig,
    Precision,
    RandomLlava,
    Trial,
)
from pilot.config.scenario import FullName, Seed, Share
from pilot.config.variant import base_name, load_variant


class Profile(Sparse):
    """How large everything is: backbone, budget, optimiser, prompt; and how its federation behaves.

    A client trains `local_steps` per round, or `local_epochs` over its own examples. A step takes `accumulation`
    batches of `batch_size`. Sequences end at `max_length` tokens, image included. `checkpoint_minutes` is how often an
    unfinished phase is kept on the client's disk; null for never. What computes where is the business of `precision`,
    `attention`, `device`, `gradient_checkpointing`, `generation_batch` and `feature_dtype`. `tuning_grid` holds the
    candidates of `pilot-bench tune`; `tuning_grids` others, as many, for some methods. `box_frame` sets `frame`.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({
        "local_epochs", "backbone_path", "revision", "architecture", "precision", "attention", "device",
        "gradient_checkpointing", "accumulation", "max_length", "feature_dtype", "generation_batch",
        "checkpoint_minutes", "tuning_grids", "box_frame",
    })  # fmt: skip

    name: FullName
    backbone: str
    backbone_path: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    architecture: RandomLlava | None = None
    precision: Precision = "float32"
    attention: Attention = "eager"
    device: Device = "cpu"
    gradient_checkpointing: bool = False
    generation_batch: Count = 96
    feature_dtype: FeatureType = "float32"
    rounds: Count
    local_steps: Count | None = None
    local_epochs: Positive | None = None
    batch_size: Count
    accumulation: Count = 1
    max_length: Count | None = None
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    warmup_fraction: Share
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_grad_norm: Positive
    lora: LoraConfig
    learning_rates: Mapping[str, LearningRates]
    method_options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    prompt_template: str
    box_frame: Frame | None = None
    federation: FederationConfig = FederationConfig()
    tuning_grid: tuple[Trial, ...] = ()
    tuning_grids: Mapping[str, tuple[Trial, ...]] = Field(default_factory=dict)
    tuning_seed: Seed = 1000

    @model_validator(mode="after")
    def _usable(self) -> "Profile":
        if "default" not in self.learning_rates:
            raise ValueError("learning_rates needs the key default")
        for method, trials in self.tuning_grids.items():
            if len(trials) != len(self.tuning_grid):
                raise ValueError(
                    f"tuning_grids.{method}: expected as many trials as tuning_grid has ({len(self.tuning_grid)}), "
                    f"got {len(trials)}: every method gets the same budget"
                )
        if "<image>" not in self.prompt_template or "{instruction}" not in self.prompt_template:
            raise ValueError("prompt_template needs <image> and {instruction}")
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("local_steps or local_epochs: expected exactly one of the two")
        if (self.backbone == "llava-random") != (self.architecture is not None):
            raise ValueError("architecture goes with backbone llava-random, and only with it")
        return self

    @property
    def frame(self) -> Frame:
        """Frame of the boxes that models learn and answer; LLaVA-1.5 was trained on boxes in the padded square."""
        return self.box_frame or ("original" if self.backbone == "tiny-llava" else "padded_square")

    def steps_of(self, num_examples: int) -> int:
        """Optimiser steps per round of a client with that many examples."""
        if self.local_steps is not None:
            return self.local_steps
        assert self.local_epochs is not None, "one of the two is there"
        return max(1, math.ceil(self.local_epochs * num_examples / (self.batch_size * self.accumulation)))

    def only(self, method: str) -> "Profile":
        """The profile as one method's runs see it: without other methods' settings and without the tuning grid."""
        own = {"learning_rates": {"default": self.learning_rates_of(method)}, "tuning_grid": (), "tuning_grids": {}}
        return self.model_copy(update=own | {"method_options": {method: self.options_of(method)}})

    def trials_of(self, method: str) -> tuple[Trial, ...]:
        """The candidates of a method's tuning."""
        return self.tuning_grids.get(method, self.tuning_grids.get(base_name(method), self.tuning_grid))

    def learning_rates_of(self, method: str) -> LearningRates:
        """A method's learning rates, or the default ones; a variant that is not listed has those of its base."""
        listed = next((name for name in (method, base_name(method)) if name in self.learning_rates), "default")
        return self.learning_rates[listed]

    def options_of(self, method: str) -> dict[str, Any]:
        """A method's options. A variant's are laid over its base's, unless the profile lists the variant itself.

        Raises:
            UserError: see `load_variant`.
        """
        if method in self.method_options:
            return dict(self.method_options[method])
        variant = load_variant("method", method)
        return {**self.method_options.get(base_name(method), {}), **(variant.options if variant else {})}
