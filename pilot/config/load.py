"""Scenarios and profiles by name."""

from pathlib import Path

from pilot.config.files import load_file, names_of, validated
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.config.variant import base_name, load_variant


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


def scenario_names() -> list[str]:
    """The scenarios that ship, sorted."""
    return names_of("scenarios")


def profile_names() -> list[str]:
    """The profiles that ship, sorted."""
    return names_of("profiles")


def scenario_for_profile(scenario: str, profile: str) -> str:
    """What a profile means by a scenario: with the real model, its twin over public data (`llava-scenario2`)."""
    own = f"llava-{scenario}"
    return own if load_profile(profile).backbone == "llava-1.5-7b" and base_name(own) in scenario_names() else scenario
