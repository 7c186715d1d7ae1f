"""Tables of a scenario's tuning, `tuning/tuning.csv` and `tuning.md`, with every trial to show the equal budgets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilot.errors import UserError
from pilot.io.atomic import read_json, write_text
from pilot.report.numbers.order import sort_methods
from pilot.report.tables.render import column_names, markdown_table, to_csv


@dataclass(frozen=True)
class Trial:
    """One line of `tuning.csv`: a trial of a method; `phases` and `options` are JSON, empty if there are none."""

    method: str
    trial: int
    text_adapter: float
    connector: float
    phases: str
    options: str
    validation_loss: float
    best: bool


def write_tuning(scenario_dir: Path, methods: Sequence[str] | None = None) -> list[Path]:
    """Write the tables of `tuning/<method>.json`; return the files written.

    Args:
        scenario_dir: `results/<profile>/<scenario>`.
        methods: the methods to list; by default all that were tuned.

    Raises:
        UserError: nothing was tuned, a named method was not tuned, or the numbers of trials or the seeds differ.
    """
    folder = scenario_dir / "tuning"
    names = sort_methods(methods or [path.stem for path in folder.glob("*.json")])
    missing = [name for name in names if not (folder / f"{name}.json").is_file()]
    if missing or not names:
        raise UserError(
            f"{folder}: no {', '.join(f'{name}.json' for name in missing) or 'tuned method'}. Run `pilot-bench tune "
            f"--scenario {scenario_dir.name} --method M`, or `snakemake --cores all tuning` for everything."
        )
    tuned = {name: read_json(folder / f"{name}.json", {"trials": list, "seed": int}) for name in names}
    for what, values in {
        "numbers of trials": {name: len(each["trials"]) for name, each in tuned.items()},
        "tuning seeds": {name: each["seed"] for name, each in tuned.items()},
    }.items():
        if len(set(values.values())) > 1:
            found = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UserError(f"{folder}: {what} differ: {found}. Methods get equal budgets; tune them again.")
    trials = [trial for name, each in tuned.items() for trial in _trials(name, each)]
    texts = {"tuning.csv": to_csv(trials, column_names(Trial)), "tuning.md": _markdown(scenario_dir.name, trials)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _trials(method: str, tuned: dict[str, Any]) -> list[Trial]:
    """Return a method's trials in the order of the grid; the best is the first with the lowest loss."""
    losses = [trial["validation_loss"] for trial in tuned["trials"]]
    best = losses.index(min(losses))
    return [
        Trial(
            *(method, number, trial["learning_rates"]["text_adapter"], trial["learning_rates"]["connector"]),
            *(_json(trial["learning_rates"].get("phases")), _json(trial.get("options", tuned.get("options")))),
            *(trial["validation_loss"], number == best),
        )
        for number, trial in enumerate(tuned["trials"])
    ]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if value else ""


def _markdown(scenario: str, trials: Sequence[Trial]) -> str:
    titles = ["method", "trial", "text adapter", "connector", "phases", "options", "validation loss"]
    lines = []
    for trial in trials:
        loss = f"{trial.validation_loss:.4f}"
        rates = [f"{trial.text_adapter:g}", f"{trial.connector:g}", trial.phases, trial.options]
        lines.append([trial.method, str(trial.trial), *rates, f"**{loss}**" if trial.best else loss])
    num_trials = max(trial.trial for trial in trials) + 1
    notes = [
        f"Every method: {num_trials} trials, one seed, different from the runs' seeds. Bold: the lowest loss.",
        "Validation loss: cross-entropy per answer token on each client's own validation part with its own model, mean "
        "over clients. Test data are not used.",
    ]
    out = [f"## {scenario}: tuning", "", *markdown_table(titles, lines), ""]
    return "\n".join([*out, *(f"- {note}" for note in notes)]) + "\n"
