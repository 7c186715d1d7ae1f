"""Grid search of learning rates and options: same number of candidates, seed and validation data for every method.

Test data are never read. The candidates are the profile's `tuning_grid`, or the method's own in `tuning_grids`.

The criterion is the cross-entropy on the validation parts of the clients' own shards, each client with its own model,
averaged over the examples' answer tokens within a client, then over clients. The seed is none of the scenario's seeds.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilot.backbone.feature_files import open_features
from pilot.backbone.from_profile import load_backbone
from pilot.errors import UserError
from pilot.federation.shards import load_examples
from pilot.federation.spec import RunSpec
from pilot.federation.training import client_models, train_run
from pilot.federation.validation import validate
from pilot.io.atomic import write_json
from pilot.runs.inputs import check_trainable, load_run_inputs

DIGITS = 6
BATCH = 64


def tune_method(scenario: str, profile: str, method: str, results: Path, progress: Callable[[int, int], None]) -> Path:
    """Train `method` with every candidate of the profile's grid; return the file with all trials and the best one.

    Raises:
        UserError: the method trains nothing, there is no grid, the tuning seed is one of the scenario's seeds, or a
            validation loss is not finite.
    """
    inputs = load_run_inputs(scenario, profile, method, results)
    check_trainable(method, "tuned", "Choose another method.")
    loaded, sizes, scenario_dir = inputs.spec.scenario, inputs.spec.profile, inputs.scenario_dir
    sizes = sizes.model_copy(update={"evaluate_every": None, "forgetting": ()})
    candidates = sizes.trials_of(method)
    if not candidates:
        raise UserError(f"profile {sizes.name}: field tuning_grid: empty. Add the learning rates to try.")
    if sizes.tuning_seed in loaded.seeds:
        raise UserError(
            f"profile {sizes.name}: field tuning_seed: {sizes.tuning_seed} is among the seeds of scenario "
            f"{loaded.name}. Choose another number."
        )
    trials: list[dict[str, Any]] = []
    for number, trial in enumerate(candidates):
        spec = RunSpec(loaded, sizes, method, sizes.tuning_seed, trial.rates, trial.options)
        run_dir = scenario_dir / "tuning" / method / f"trial{number}"
        train_run(spec, scenario_dir, run_dir, True, lambda done, total: None, replace=True)
        losses = validation_losses(spec, scenario_dir, run_dir)
        mean = sum(losses.values()) / len(losses)
        if not math.isfinite(mean):
            raise UserError(f"{run_dir}: the validation loss is {mean}. Remove {trial.rates} from the profile's grid.")
        trials.append({
            "learning_rates": trial.rates.model_dump(), "options": dict(trial.options),
            "validation_loss": round(mean, DIGITS), "clients": losses,
        })  # fmt: skip
        progress(number + 1, len(candidates))
    best = min(trials, key=lambda trial: trial["validation_loss"])
    target = scenario_dir / "tuning" / f"{method}.json"
    options = sizes.options_of(method)
    result: dict[str, Any] = {"method": method, "seed": sizes.tuning_seed, "options": options, "trials": trials}
    write_json(target, result | {"best": {name: best[name] for name in ("learning_rates", "options")}})
    return target


def validation_losses(spec: RunSpec, scenario_dir: Path, run_dir: Path) -> dict[str, float]:
    """Compute each client's cross-entropy on its validation part, by client id."""
    backbone = load_backbone(spec.profile, lean=True)
    features = open_features(scenario_dir / "features")
    examples = load_examples(spec.scenario, scenario_dir, backbone, features, "validation", frame=spec.profile.frame)
    losses = {}
    for clients, load in client_models(spec, backbone, run_dir).items():
        model = load()
        for client in clients:
            measured = validate(backbone, model.connector, features, examples[client], BATCH)
            losses[str(client)] = round(measured.loss, DIGITS)
    return losses
