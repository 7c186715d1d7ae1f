"""A run given by names, and its folders: the inputs of training, tuning, deployments and the Flower app."""

from dataclasses import dataclass
from pathlib import Path

from pilot.config.load import load_setting
from pilot.errors import UserError
from pilot.federation.spec import RunSpec
from pilot.io.layout import run_folder


@dataclass(frozen=True)
class RunInputs:
    """Specification and folders of a run.

    Attributes:
        spec: scenario, profile, method and seed; with a fault, the profile has the fault's section `federation`.
        scenario_dir: folder with the scenario's data, partition and features.
        fault: name of the fault; None without one.
    """

    spec: RunSpec
    scenario_dir: Path
    fault: str | None = None

    @classmethod
    def from_names(cls, scenario: str, profile: str, method: str, seed: int, results: Path) -> "RunInputs":
        """Load scenario and profile; the names in them are not checked (see `pilot.runs.inputs`).

        Raises:
            UserError: no such scenario or profile, an invalid file, or a profile with `budget: flops`.
        """
        loaded, sizes, folder = load_setting(scenario, profile, results)
        if sizes.budget == "flops":
            raise UserError(
                f"profile {sizes.name}: field budget: flops is for `pilot-bench train` (also with --engine flower), "
                "which computes a method's local steps. Set budget: steps and the steps that its runs name in "
                "config.json (profile_config.local_steps)."
            )
        return cls(RunSpec(loaded, sizes, method, seed), folder)

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return run_folder(self.scenario_dir, self.spec.method, self.spec.seed, self.fault)
