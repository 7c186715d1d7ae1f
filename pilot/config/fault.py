"""The faults of `pipelines/faults/`: what goes wrong in a federation, and what its server does about it."""

from pathlib import Path

from pilot.config.base import Model
from pilot.config.federation import FederationConfig
from pilot.config.files import load_file, names_of
from pilot.config.scenario import Name


class Fault(Model):
    """A profile's section `federation` with a name; `title` says in one line what happens."""

    name: Name
    title: str
    federation: FederationConfig


def load_fault(name_or_path: str | Path) -> Fault:
    """The fault of a name (`pipelines/faults/<name>.yaml`) or of a file.

    Raises:
        UserError: no such fault, or the file is wrong; names file, field, what was expected, what to do.
    """
    return load_file(Fault, "faults", str(name_or_path))


def fault_names() -> list[str]:
    """The faults that ship, sorted."""
    return names_of("faults")
