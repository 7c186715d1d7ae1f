"""Loading the models of a finished run."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pilot.backbone.backbone import Backbone
from pilot.backbone.from_profile import load_backbone
from pilot.backbone.sources import backbone_digest
from pilot.errors import UserError
from pilot.federation.client import ClientModel
from pilot.federation.spec import RunSpec, finished_config, scenario_digests
from pilot.federation.training import client_models
from pilot.io.atomic import read_json

Models = Mapping[tuple[int, ...], Callable[[], ClientModel]]


def run_spec(run_dir: Path) -> RunSpec:
    """Read the specification of the run in a finished run directory.

    Raises:
        UserError: it is not a finished run directory, one of its files is missing or altered, or another version wrote
            it.
    """
    config = finished_config(run_dir)
    version = read_json(run_dir / "manifest.json").get("versions", {}).get("pilot-bench", "of unknown version")
    return RunSpec.from_config(config, f"{run_dir / 'config.json'} (of pilot-bench {version})")


def check_same_data(run_dir: Path, scenario_dir: Path) -> None:
    """Refuse data or a partition that are missing, damaged, or not those that the run was trained on.

    Raises:
        UserError: one of these holds; the message says what to do.
    """
    if not (scenario_dir / "data").is_dir():
        raise UserError(
            f"{run_dir}: expected the scenario's data in {scenario_dir / 'data'} (a run's folder is "
            "<scenario folder>/runs/<method>/seed<k>). Move the run into its scenario's folder."
        )
    here, trained = scenario_digests(scenario_dir), finished_config(run_dir)["digests"]
    if other := [name for name in ("data", "partition") if here[name] != trained[name]]:
        raise UserError(
            f"{scenario_dir}: {' and '.join(other)} are not those that {run_dir} was trained on. Restore them, or "
            "train the run again."
        )


def load_run(run_dir: Path, *, lean: bool = False) -> tuple[Backbone, Models]:
    """Load the backbone; return it with a loader for each of the run's models; `lean` as in `load_backbone`.

    Raises:
        UserError: as in `run_spec` and `client_models`, or the backbone is not the one that the run was trained on.
    """
    backbone = load_backbone_of(run_dir, lean=lean)
    return backbone, client_models(run_spec(run_dir), backbone, run_dir)


def load_backbone_of(run_dir: Path, *, lean: bool = True) -> Backbone:
    """Load the backbone of a run; `lean` as in `load_backbone`; raises as `load_run`."""
    spec = run_spec(run_dir)
    trained, here = finished_config(run_dir)["digests"]["backbone"], backbone_digest(spec.profile)
    if trained != here:
        raise UserError(
            f"{run_dir}: trained on the backbone {trained[:12]}, but profile {spec.profile.name} loads {here[:12]}. "
            "Restore the checkpoint that it was trained on, or train again."
        )
    return load_backbone(spec.profile, lean=lean)
