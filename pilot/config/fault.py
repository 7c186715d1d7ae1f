"""The faults of `pipelines/faults/`: simulated failures in a federation and the server's countermeasures."""

from pathlib import Path

from pilot.config.base import Model
from pilot.config.federation import FederationConfig
from pilot.config.files import load_file
from pilot.config.scenario import Name


class Fault(Model):
    """A profile's section `federation` with a name; `title` describes the fault in one line."""

    name: Name
    title: str
    federation: FederationConfig


def load_fault(name_or_path: str | Path) -> Fault:
    """Load a fault by name (`pipelines/faults/<name>.yaml`) or from a file.

    Raises:
        UserError: no such fault, or the file is invalid; names file, field, what was expected, what to do.
    """
    return load_file(Fault, "faults", str(name_or_path))
