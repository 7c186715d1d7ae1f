"""Frozen, typed models of the scenario and profile files in `pipelines/`."""

import difflib
import importlib
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pilot.errors import UserError
from pilot.model_settings import (
    Attention,
    Count,
    Device,
    FeatureType,
    Frame,
    LearningRates,
    LoraConfig,
    Positive,
    Precision,
    RandomLlava,
    Sparse,
    Trial,
)
from pilot.scenario_settings import FullName, Kind, Name, PartitionConfig, Scenario, Seed, Share, TaskConfig
from pilot.settings import FederationConfig, Model
from pilot.variants import Variant, VariantKind, base_name, split_name

__all__ = [
    "Kind", "LearningRates", "LoraConfig", "Name", "PartitionConfig", "Profile", "Scenario", "TaskConfig",
    "load_profile", "load_scenario",
]  # fmt: skip


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


SINGULAR = {"studies": "study"}
_M = TypeVar("_M", bound=Model)


def load_scenario(name_or_path: str | Path) -> Scenario:
    """The scenario of a name (`pipelines/scenarios/<name>.yaml`) or of a `.yaml` file, or a variant: `base+variant`.

    Raises:
        UserError: no such scenario or variant, or the file is wrong; names file, field, what was expected, what to do.
    """
    name = str(name_or_path)
    scenario, variant = load_file(Scenario, "scenarios", base_name(name)), load_variant("scenario", name)
    if variant is None or variant.scenario is None:
        return scenario
    whole = {"name": f"{scenario.name}+{variant.name}", "title": f"{scenario.title}; {variant.title}"}
    return validated(Scenario, f"scenario {name}", variant.scenario.over(scenario.model_dump(mode="json")) | whole)


def load_profile(name_or_path: str | Path) -> Profile:
    """The profile of a name (`pipelines/profiles/<name>.yaml`), of a file, or a variant; raises as `load_scenario`."""
    name = str(name_or_path)
    profile, variant = load_file(Profile, "profiles", base_name(name)), load_variant("profile", name)
    if variant is None or variant.profile is None:
        return profile
    whole = {"name": f"{profile.name}+{variant.name}"}
    return validated(Profile, f"profile {name}", variant.profile.over(profile.model_dump(mode="json")) | whole)


def load_variant(kind: VariantKind, name: str) -> Variant | None:
    """The variant that a name of a kind ends with; None without one.

    Raises:
        UserError: no such variant of this kind and method, or its file is wrong.
    """
    base, wanted = split_name(name)
    if wanted is None:
        return None
    if wanted in names_of("variants") and (found := load_file(Variant, "variants", wanted)).fits(kind, base):
        return found
    of = f"method {base}" if kind == "method" else f"a {kind}"
    fitting = [each for each in names_of("variants") if load_file(Variant, "variants", each).fits(kind, base)]
    expected = f"Expected one of: {', '.join(fitting)}." if fitting else "There is none."
    raise UserError(f"{kind} {name}: {wanted!r} is no variant of {of}. {expected} They are in pipelines/variants.")


def scenario_names() -> list[str]:
    """The scenarios that ship, sorted."""
    return names_of("scenarios")


def profile_names() -> list[str]:
    """The profiles that ship, sorted."""
    return names_of("profiles")


def check_known(where: str, field: str, names: Collection[str], known: Collection[str]) -> None:
    """Refuse names that a registry does not hold; `where` is the file or thing that states them.

    Raises:
        UserError: names the field, the unknown name and the known ones.
    """
    for name in names:
        if name not in known:
            raise UserError(f"{where}: field {field}: {_unknown(name, known)}")


def check_methods(where: str, field: str, names: Collection[str], known: Collection[str]) -> None:
    """`check_known` for methods, which may be variants of known ones.

    Raises:
        UserError: an unknown method or variant.
    """
    check_known(where, field, [base_name(name) for name in names], known)
    for name in names:
        load_variant("method", name)


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown name {name!r}.{hint} Expected one of: {', '.join(sorted(known))}."


def _folder(kind: str) -> Path:
    """The folder of a kind of file. (An editable install adds a hook to the path that is no folder.)"""
    return next(at for entry in importlib.import_module("pipelines").__path__ if (at := Path(entry) / kind).is_dir())


def twin(scenario: str, profile: str) -> str:
    """What a profile means by a scenario: with the real model, its twin over public data (`llava-scenario2`)."""
    own = f"llava-{scenario}"
    return own if load_profile(profile).backbone == "llava-1.5-7b" and base_name(own) in scenario_names() else scenario


def names_of(kind: str) -> list[str]:
    """The files of a kind (`scenarios`, `profiles`, `faults`, ...) that ship, by name, sorted."""
    return sorted(path.stem for path in _folder(kind).glob("*.yaml"))


def load_file(model: type[_M], kind: str, name_or_path: str) -> _M:
    """A file of a kind as its model, by the name of one that ships or by path; raises as `load_scenario`."""
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        if name_or_path not in names_of(kind):
            raise UserError(f"{SINGULAR.get(kind, kind.removesuffix('s'))}: {_unknown(name_or_path, names_of(kind))}")
        path = _folder(kind) / f"{name_or_path}.yaml"
    return validated(model, str(path), _read_yaml(path))


def validated(model: type[_M], where: str, values: Mapping[str, Any]) -> _M:
    """Values as their model; `where` (a file, or a field of one) begins the messages.

    Raises:
        UserError: one line for each wrong, unknown or missing field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {_explain(model, item)}" for item in error.errors())) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Name an existing YAML file.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}. Correct the file.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of fields, got {type(values).__name__}. See the files that ship.")
    return values


def _explain(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One pydantic error as field, what was expected, what to do."""
    place = ".".join(str(part) for part in error["loc"]) or "(whole file)"
    if error["type"] == "extra_forbidden":
        *inside, field = error["loc"]
        return f"field {place}: {_unknown(str(field), _fields(model, inside))} Rename or remove it."
    if error["type"] == "missing":
        return f"field {place}: is missing. Add it."
    message = error["msg"].removeprefix("Value error, ")
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"field {place}: {message[0].lower()}{message[1:]}{got}. Correct this field."


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The field names of the model at `place` inside `model`."""
    for part in place:
        if part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            models = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
            model = models[0] if models else model
    return list(model.model_fields)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
