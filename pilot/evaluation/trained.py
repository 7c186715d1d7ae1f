"""Loading the models of a finished run."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.sources import backbone_digest
from pilot.errors import UserError
from pilot.federation.client import ClientModel
from pilot.federation.spec import RunSpec, finished_config
from pilot.federation.training import client_models

Models = Mapping[tuple[int, ...], Callable[[], ClientModel]]


def run_spec(run_dir: Path) -> RunSpec:
    """Read the specification of the run in a finished run directory.

    Raises:
        UserError: it is not a finished run directory, or one of its files is missing or altered.
    """
    return RunSpec.from_config(finished_config(run_dir))


def load_run(run_dir: Path, *, lean: bool = False) -> tuple[Backbone, Models]:
    """Load the backbone; return it with a loader for each of the run's models; `lean` as in `load_backbone`.

    Raises:
        UserError: as in `run_spec` and `client_models`, or the backbone is not the one that the run was trained on.
    """
    backbone = load_backbone_of(run_dir, lean=lean)
    return backbone, client_models(run_spec(run_dir), backbone, run_dir)


def load_backbone_of(run_dir: Path, *, lean: bool = True) -> Backbone:
    """Load the backbone of a run; `lean` as in `load_backbone`; raises as `load_run`."""
    config = finished_config(run_dir)
    spec = RunSpec.from_config(config)
    trained, here = config["digests"]["backbone"], backbone_digest(spec.profile)
    if trained != here:
        raise UserError(
            f"{run_dir}: trained on the backbone {trained[:12]}, but profile {spec.profile.name} loads {here[:12]}. "
            "Restore the checkpoint that it was trained on, or train again."
        )
    return load_backbone(spec.profile, lean=lean)
