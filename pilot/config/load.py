"""Loading of scenarios and profiles by name."""

from pathlib import Path

from pilot.config.files import known_names, load_file, validated
from pilot.config.profile import Profile
from pilot.config.scenario import Scenario
from pilot.config.variant import base_name, load_variant
from pilot.io.layout import setting_folder

OWN_BACKBONES = ("tiny-llava", "smol")
"""Backbones for which the embedded scenarios are meant."""


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Load a scenario by name (`pipelines/scenarios/<name>.yaml`), from a `.yaml` file, or as `base+variant`.

    Raises:
        UserError: no such scenario or variant, or an invalid file; names file, field, what was expected, what to do.
    """
    name = str(name_or_path)
    scenario, variant = load_file(Scenario, "scenarios", base_name(name)), load_variant("scenario", name)
    if variant is None or variant.scenario is None:
        return scenario
    whole = {"name": f"{scenario.name}+{variant.name}", "title": f"{scenario.title}; {variant.title}"}
    return validated(Scenario, f"scenario {name}", variant.scenario.apply_to(scenario.model_dump(mode="json")) | whole)


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a profile by name (`pipelines/profiles/<name>.yaml`), file or `base+variant`; raises as `load_scenario`."""
    name = str(name_or_path)
    profile, variant = load_file(Profile, "profiles", base_name(name)), load_variant("profile", name)
    if variant is None or variant.profile is None:
        return profile
    undumped = {"tracking": profile.tracking, "keep_messages": profile.keep_messages}
    patched = undumped | variant.profile.apply_to(profile.model_dump(mode="json"))
    return validated(Profile, f"profile {name}", patched | {"name": f"{profile.name}+{variant.name}"})


def load_setting(scenario: str, profile: str, results: Path) -> tuple[Scenario, Profile, Path]:
    """Load a scenario and a profile; return both and their folder below `results`. Raises as `load_scenario`."""
    loaded, sizes = load_scenario(scenario), load_profile(profile)
    return loaded, sizes, setting_folder(results, sizes.name, loaded.name)


def scenario_for_profile(scenario: str, profile: str) -> str:
    """Map `scenario2` to `llava-scenario2` (public data), if that ships, for profiles with a published backbone."""
    own, backbone = f"llava-{scenario}", load_profile(profile).backbone
    published = backbone not in OWN_BACKBONES and not backbone.endswith("-random")
    return own if published and base_name(own) in known_names("scenarios") else scenario
