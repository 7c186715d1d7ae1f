"""The studies of `pipelines/studies/`: groups of runs to compare, in parts, each with a baseline."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pilot.config.base import Count, Model
from pilot.config.files import check_known, known_names, load_file
from pilot.config.load import load_scenario, scenario_for_profile
from pilot.config.scenario import FullName, Name, VariantName
from pilot.config.variant import split_name
from pilot.errors import UserError
from pilot.io.layout import run_folder, setting_folder

BASE = "base"
"""Entry of a part's profiles for the profile itself, without a variant."""

Dimension = Literal["methods", "scenarios", "profiles"]
DIMENSIONS: tuple[Dimension, ...] = ("methods", "scenarios", "profiles")


@dataclass(frozen=True)
class Setting:
    """A scenario and a profile. Runs of one setting are comparable; runs of two differ in more than the method.

    `num_seeds` is the number of seeds of each method; by default the scenario's own.
    """

    scenario: str
    profile: str
    num_seeds: int | None = None

    def folder(self, results: Path) -> Path:
        """Return the scenario's folder below `results`."""
        return setting_folder(results, self.profile, self.scenario)

    def runs(self, results: Path, methods: Collection[str]) -> list[Path]:
        """Return the folders of the methods' runs, one for each seed."""
        seeds = load_scenario(self.scenario).first_seeds(self.num_seeds)
        return [run_folder(self.folder(results), method, seed) for method in methods for seed in seeds]

    def own_methods(self) -> tuple[str, ...]:
        """Return the methods that the scenario's own targets train and score; none for a variant."""
        plain = split_name(self.scenario)[1] is None and split_name(self.profile)[1] is None
        return load_scenario(self.scenario).methods if plain else ()


class Axis(Model):
    """The number that a part varies: `values` has it for each method, scenario or profile of the part."""

    label: str
    values: Mapping[str, float]


class Part(Model):
    """One table and one figure: every method in every scenario with every profile.

    `profiles` are variants of the profile that the study is run with, `base` for that profile itself, or other
    profiles (another backbone). Each method is tested against
    `baseline` within each setting; Holm's correction covers the part.
    """

    name: Name
    title: str
    scenarios: tuple[FullName, ...] = Field(min_length=1)
    profiles: Annotated[tuple[VariantName, ...], Field(min_length=1)] = (BASE,)
    methods: tuple[FullName, ...] = Field(min_length=2)
    baseline: FullName
    axis: Axis | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Part":
        for dimension in DIMENSIONS:
            names = getattr(self, dimension)
            if len(set(names)) != len(names):
                raise ValueError(f"{dimension}: expected distinct names, got {list(names)}")
        if self.baseline not in self.methods:
            raise ValueError(f"baseline: expected one of the methods, got {self.baseline!r}")
        if self.axis and self.axis.values.keys() not in [set(getattr(self, each)) for each in DIMENSIONS]:
            raise ValueError("axis.values: expected a number for every method, every scenario or every profile")
        return self

    @property
    def varied_dimension(self) -> Dimension | None:
        """The dimension whose names the axis has numbers for; None without an axis."""
        if self.axis is None:
            return None
        return next(each for each in DIMENSIONS if set(getattr(self, each)) <= self.axis.values.keys())

    def settings(self, profile: str, num_seeds: int | None = None) -> dict[Setting, dict[Dimension, str]]:
        """Return the part's settings, in order, each with the part's names for its scenario and profile."""
        whole = known_names("profiles")
        named = {
            name: name if name in whole else profile if name == BASE else f"{profile}+{name}" for name in self.profiles
        }
        return {
            Setting(scenario_for_profile(scenario, named[name]), named[name], num_seeds): {
                "scenarios": scenario, "profiles": name
            }
            for scenario in self.scenarios
            for name in self.profiles
        }  # fmt: skip

    def axis_value(self, names: Mapping[Dimension, str], method: str) -> float | None:
        """Return a method's number on the axis in a setting with these names; None without an axis."""
        if self.axis is None or self.varied_dimension is None:
            return None
        return self.axis.values[names.get(self.varied_dimension, method)]


class Study(Model):
    """Parts that answer one question together; `seeds` is the number of seeds, by default each scenario's own."""

    name: Name
    title: str
    seeds: Count | None = None
    parts: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Study":
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError(f"parts: expected distinct names, got {names}")
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of all parts, in order."""
        return tuple(dict.fromkeys(method for part in self.parts for method in part.methods))

    def subset(
        self, *, parts: Collection[str] = (), methods: Collection[str] = (), seeds: int | None = None
    ) -> "Study":
        """Return the study with only these parts and methods (default: all) and the baselines, and so many seeds.

        Parts with no method left besides their baseline are dropped.

        Raises:
            UserError: the study does not have a part or method, or nothing is left.
        """
        check_known(f"study {self.name}", "--part", parts, [part.name for part in self.parts])
        check_known(f"study {self.name}", "methods", methods, self.methods)
        chosen = [part for part in self.parts if not parts or part.name in parts]
        if methods:
            kept = [(part, [m for m in part.methods if m in methods or m == part.baseline]) for part in chosen]
            chosen = [part.model_copy(update={"methods": tuple(names)}) for part, names in kept if len(names) > 1]
        if not chosen:
            raise UserError(f"study {self.name}: {', '.join(methods)}: only baselines are left. Select more methods.")
        return self.model_copy(update={"parts": tuple(chosen), "seeds": seeds or self.seeds})

    def settings(self, profile: str) -> dict[Setting, tuple[str, ...]]:
        """Return every setting of any part with its methods."""
        found: dict[Setting, dict[str, None]] = {}
        for part in self.parts:
            for setting in part.settings(profile, self.seeds):
                found.setdefault(setting, {}).update(dict.fromkeys(part.methods))
        return {setting: tuple(methods) for setting, methods in found.items()}

    def further_methods(self, setting: Setting, profile: str) -> tuple[str, ...]:
        """Return the methods in a setting that the scenario's own targets do not run."""
        own = setting.own_methods()
        return tuple(method for method in self.settings(profile)[setting] if method not in own)


def load_study(name_or_path: str | Path) -> Study:
    """Load a study by name (`pipelines/studies/<name>.yaml`) or from a file.

    Raises:
        UserError: no such study, or the file is invalid; names file, field, what was expected, what to do.
    """
    return load_file(Study, "studies", str(name_or_path))
