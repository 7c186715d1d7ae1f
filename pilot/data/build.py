"""Builds the data of a scenario: records, data card and contact sheet per task, manifest last."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pilot.config import Scenario, TaskConfig
from pilot.data.card import write_card
from pilot.data.record import write_records
from pilot.data.registry import get_source
from pilot.errors import UserError
from pilot.io.atomic import remove, write_json
from pilot.io.digest import sha256_file

Progress = Callable[[str, int, int], None]
"""Told after every record: task, how many are made, how many there will be."""


def build_data(scenario: Scenario, scenario_dir: Path, progress: Progress) -> None:
    """Write `data/<task>/{records.parquet, card.json, card.md, contact_sheet.png}` and `data/manifest.json`.

    The manifest goes first and comes back last: an interrupted build is never taken for a finished one.

    Raises:
        UserError: an unknown source, a source of another kind than the task's, or an unwritable folder.
    """
    folder = scenario_dir / "data"
    for number, task in enumerate(scenario.tasks):
        _check_source(f"scenario {scenario.name}, field tasks.{number}", task)
    manifest = folder / "manifest.json"
    remove(manifest)
    digests = {}
    for task in scenario.tasks:
        source = get_source(task.source, scenario.name)
        records = source.make(
            num_train=task.num_train,
            num_test=task.num_test,
            seed=scenario.data_seed,
            progress=partial(progress, task.name),
        )
        write_records(folder / task.name / "records.parquet", records)
        write_card(folder / task.name, task.name, source.origin, scenario.data_seed, records)
        digests[task.name] = sha256_file(folder / task.name / "records.parquet")
    write_json(manifest, {"digests": digests})


def _check_source(where: str, task: TaskConfig) -> None:
    kind = get_source(task.source, f"{where}.source").kind
    if kind != task.kind:
        raise UserError(
            f"{where}.kind: source {task.source!r} makes examples of kind {kind!r}, got {task.kind!r}. "
            f"Set kind: {kind}."
        )
