"""Typed model of a profile file."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pilot.config.base import CompactModel, Count, Positive
from pilot.config.federation import FederationConfig
from pilot.config.model import (
    Attention,
    Device,
    FeatureType,
    Frame,
    LearningRates,
    LoraConfig,
    Precision,
    RandomModel,
    Trial,
)
from pilot.config.scenario import Seed, Share
from pilot.config.variant import base_name, load_variant

ProfileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(\+[a-z0-9][a-z0-9._-]*)?$")]
"""A name, with a variant after a plus sign if any; names of models have dots."""
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
"""An experiment tracker; see `pilot.report.trackers`."""


class Profile(CompactModel):
    """Backbone, budget, optimiser, prompt and federation settings.

    A client trains `local_steps` per round, or `local_epochs` over its examples; with `budget: flops` each method takes
    as many steps as FedAvg's floating-point operations with `local_steps` buy. A step takes `accumulation` batches of
    `batch_size`. Sequences end at `max_length` tokens, image included. `checkpoint_minutes` is the interval at which an
    unfinished phase is saved on the client's disk; null for never. `precision`, `attention`, `device`,
    `gradient_checkpointing`, `generation_batch` and `feature_dtype` control how and where the model is computed.
    `tuning_grid` has the candidates of `pilot-bench tune`; `tuning_grids` replaces them with as many others for some
    methods. Without a `prompt_template`, prompts are the checkpoint's own chat template. `box_frame` overrides the
    default of `frame`. `evaluate_every` is the number of rounds between evaluations of the models; the last round is
    always evaluated. `forgetting` names what the backbone could do before, to be measured on tuned models: parts of
    tiny-llava's public corpus, or tasks of lm-eval. `tracking` names experiment trackers, and `keep_messages` rounds
    whose messages are kept for `pilot-bench audit`; neither is in a dump, since runs and their digests do not depend
    on them.
    """

    omitted_defaults: ClassVar[frozenset[str]] = frozenset({
        "local_epochs", "backbone_path", "revision", "architecture", "precision", "attention", "device",
        "gradient_checkpointing", "accumulation", "max_length", "feature_dtype", "generation_batch",
        "checkpoint_minutes", "tuning_grids", "prompt_template", "box_frame", "evaluate_every", "forgetting", "budget",
    })  # fmt: skip

    name: ProfileName
    backbone: str
    backbone_path: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    architecture: RandomModel | None = None
    precision: Precision = "float32"
    attention: Attention = "eager"
    device: Device = "cpu"
    gradient_checkpointing: bool = False
    generation_batch: Count = 96
    feature_dtype: FeatureType = "float32"
    rounds: Count
    evaluate_every: Count | None = None
    forgetting: tuple[str, ...] = ()
    local_steps: Count | None = None
    local_epochs: Positive | None = None
    budget: Literal["steps", "flops"] = "steps"
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
    prompt_template: str | None = None
    box_frame: Frame | None = None
    federation: FederationConfig = FederationConfig()
    tuning_grid: tuple[Trial, ...] = ()
    tuning_grids: Mapping[str, tuple[Trial, ...]] = Field(default_factory=dict)
    tuning_seed: Seed = 1000
    tracking: Annotated[tuple[TrackerName, ...], Field(exclude=True)] = ()
    keep_messages: Annotated[tuple[Count | Literal["last"], ...], Field(exclude=True)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Profile":
        if "default" not in self.learning_rates:
            raise ValueError("learning_rates: expected a key default")
        for method, trials in self.tuning_grids.items():
            if len(trials) != len(self.tuning_grid):
                raise ValueError(
                    f"tuning_grids.{method}: expected as many trials as tuning_grid has ({len(self.tuning_grid)}), "
                    f"got {len(trials)}: every method gets the same budget"
                )
        if self.evaluate_every is not None and self.evaluate_every > self.rounds:
            raise ValueError(f"evaluate_every: expected at most rounds ({self.rounds}), got {self.evaluate_every}")
        if late := [number for number in self.kept_rounds if number > self.rounds]:
            raise ValueError(f"keep_messages: expected rounds of at most rounds ({self.rounds}), got {late[0]}")
        template = self.prompt_template
        if template is not None and ("<image>" not in template or "{instruction}" not in template):
            raise ValueError("prompt_template: expected a text with <image> and {instruction}")
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("local_steps or local_epochs: expected exactly one of the two")
        if self.budget == "flops" and self.local_steps is None:
            raise ValueError("budget: flops: expected local_steps, whose operations are shared, not local_epochs")
        if self.precision == "bfloat16" and self.lora.space == "weight":
            raise ValueError(
                "lora.space: expected token with precision: bfloat16, got weight, in which W + s B A is rounded to "
                "bfloat16 in every step and small updates are lost. Set space: token in lora"
            )
        if self.backbone.endswith("-random") != (self.architecture is not None):
            raise ValueError("architecture: expected for backbones with random weights (*-random) and for no other")
        return self

    @property
    def frame(self) -> Frame:
        """Frame of boxes in training data and answers; LLaVA-1.5 was trained on boxes in the padded square."""
        return self.box_frame or ("original" if self.backbone == "tiny-llava" else "padded_square")

    @property
    def evaluated_rounds(self) -> tuple[int, ...]:
        """Rounds before the last one whose models are evaluated, ascending."""
        every = self.evaluate_every or self.rounds
        return tuple(range(every, self.rounds, every))

    @property
    def kept_rounds(self) -> tuple[int, ...]:
        """Rounds whose messages are kept, as `keep_messages` names them: numbers, or the last one."""
        return tuple(self.rounds if number == "last" else number for number in self.keep_messages)

    def steps_of(self, num_examples: int) -> int:
        """Return the optimiser steps per round of a client with `num_examples` examples."""
        if self.local_steps is not None:
            return self.local_steps
        assert self.local_epochs is not None, "exactly one of the two is set"
        return max(1, math.ceil(self.local_epochs * num_examples / (self.batch_size * self.accumulation)))

    def for_method(self, method: str) -> "Profile":
        """Return the profile for one method's runs: without other methods' settings and without tuning grids."""
        own = {"learning_rates": {"default": self.learning_rates_of(method)}, "tuning_grid": (), "tuning_grids": {}}
        return self.model_copy(update=own | {"method_options": {method: self.options_of(method)}})

    def trials_of(self, method: str) -> tuple[Trial, ...]:
        """Return the tuning candidates of a method."""
        return self.tuning_grids.get(method, self.tuning_grids.get(base_name(method), self.tuning_grid))

    def learning_rates_of(self, method: str) -> LearningRates:
        """Return a method's learning rates, or the default ones; a variant that is not listed uses its base's."""
        listed = next((name for name in (method, base_name(method)) if name in self.learning_rates), "default")
        return self.learning_rates[listed]

    def options_of(self, method: str) -> dict[str, Any]:
        """Return a method's options. A variant's override its base's, unless the profile lists the variant itself.

        Raises:
            UserError: see `load_variant`.
        """
        if method in self.method_options:
            return dict(self.method_options[method])
        variant = load_variant("method", method)
        return {**self.method_options.get(base_name(method), {}), **(variant.options if variant else {})}
