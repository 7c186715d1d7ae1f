"""Check `snakemake --config` and `--configfile` once, before anything runs or is removed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from pilot.config.base import Count, Model
from pilot.config.files import check_known, known_names, validated
from pilot.config.load import load_profile
from pilot.config.scenario import FullName
from pilot.config.study import load_study
from pilot.config.variant import base_name, check_methods
from pilot.errors import UserError
from pilot.methods.catalogue import known_methods

WHERE = "Snakemake's configuration (--config, --configfile)"


def _names(value: Any) -> Any:
    """Split a string at its commas; return lists unchanged."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _folder(value: Any) -> str:
    """Expand `~` and remove redundant parts of a folder's name (`./`, `//`).

    Raises:
        ValueError: Snakemake would read the name as a number or a pattern, or a command would read it as an option.
    """
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"expected a folder's name; Snakemake reads {value!r} as {kind}: write ./{value} for a folder")
    if wrong := [mark for mark in "{}\n\r\0" if mark in value]:
        raise ValueError(
            f"expected a folder's name without {wrong[0]!r} (reserved for Snakemake's patterns), got {value!r}"
        )
    if value.startswith("-") or not value.strip():
        raise ValueError(f"expected a folder's name that is not empty and does not start with '-', got {value!r}")
    try:
        return str(Path(value).expanduser())
    except RuntimeError as error:  # no such user
        raise ValueError(f"expected a folder, got {value!r}: {error}") from error


MethodNames = Annotated[tuple[FullName, ...], BeforeValidator(_names), Field(min_length=1)]


class WorkflowConfig(Model):
    """The workflow's configuration; `read_workflow_config` adds a field `<study>_methods` for every study.

    Fields that name methods exclude all others; None excludes none. `seeds` is the number of seeds of each method, None
    for the scenario's own.
    """

    results: Annotated[str, BeforeValidator(_folder)] = "results"
    profile: str = "embedded"
    figure_methods: MethodNames | None = None
    fault_methods: MethodNames | None = None
    seeds: Count | None = None

    def methods_of(self, study: str) -> tuple[str, ...]:
        """Return the methods selected for a study; empty for all of its methods."""
        return getattr(self, _field(study), None) or ()


def read_workflow_config(values: Mapping[str, Any]) -> WorkflowConfig:
    """Check keys, types and names of Snakemake's configuration.

    Raises:
        UserError: a key, type or name is invalid; the message names the key, what was expected and, for a name close
            to a known one, that one.
    """
    studies: dict[str, Any] = {_field(name): (MethodNames | None, None) for name in known_names("studies")}
    config = validated(create_model("WorkflowConfig", __base__=WorkflowConfig, **studies), WHERE, values)
    check_known(WHERE, "profile", [base_name(config.profile)], known_names("profiles"))
    load_profile(config.profile)
    for field in ("figure_methods", "fault_methods"):
        check_methods(WHERE, field, getattr(config, field) or (), known_methods())
    for name in known_names("studies"):
        if chosen := config.methods_of(name):
            study = load_study(name)
            check_known(WHERE, _field(name), chosen, study.methods)
            study.subset(methods=chosen)
    return config


def check_methods_in_scenario(field: str, scenario: str, names: tuple[str, ...], available: tuple[str, ...]) -> None:
    """Check that a scenario runs all methods of `field`.

    Raises:
        UserError: it does not run one of them; the message lists its methods.
    """
    if missing := [name for name in names if name not in available]:
        raise UserError(
            f"{WHERE}: field {field}: scenario {scenario} has no runs of {', '.join(missing)}. Expected some of: "
            f"{', '.join(available)}. Select among them, or add the method to the scenario's file."
        )


def _field(study: str) -> str:
    return f"{study}_methods"
