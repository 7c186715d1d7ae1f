"""Results of a study's part: each method in each setting, its primary metrics, and its difference to the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pilot.config.study import Part, Setting
from pilot.errors import UserError
from pilot.methods.catalogue import family_of
from pilot.report.numbers.comparable import check_comparable
from pilot.report.numbers.headline import Cell, Headline, Line, build_headlines
from pilot.report.numbers.load import Task, load_runs
from pilot.report.numbers.statistics import holm
from pilot.report.numbers.summary import Group, group_runs


@dataclass(frozen=True)
class StudyRow:
    """One line of a part's CSV file: a method's primary metric on one task (personalised); None is an empty field.

    `family` is the method's. `difference` is the difference to the part's baseline in the same setting, `p_holm` is
    corrected over all tests of the part, and `axis` is the value of the number that the part sweeps.
    """

    scenario: str
    profile: str
    method: str
    family: str
    axis: float | None
    task: str
    metric: str
    mean: float | None
    std: float | None
    num_seeds: int
    ci_low: float | None
    ci_high: float | None
    difference: float | None
    p_holm: float | None
    megabytes: float | None
    trainable_parameters: float | None
    teraflops: float | None
    status: str


@dataclass(frozen=True)
class PartTable:
    """A part, and the methods' groups and the grid of each setting.

    `rows` go by setting, task and method, in the order of the study's file.
    """

    part: Part
    tasks: tuple[Task, ...]
    groups: dict[Setting, dict[str, Group]]
    grids: dict[Setting, Headline]
    rows: tuple[StudyRow, ...]

    def row(self, setting: Setting, method: str, task: Task) -> StudyRow:
        """Return the row of a method and task in a setting."""
        key = setting.scenario, setting.profile, method, task.name
        return next(row for row in self.rows if (row.scenario, row.profile, row.method, row.task) == key)


def load_part(study: str, part: Part, profile: str, results: Path, num_seeds: int | None = None) -> PartTable:
    """Load the runs of a part and build its table.

    Args:
        study: name of the study, for messages.
        part: the part to load.
        profile: the profile that the study was run with.
        results: the folder of all results.
        num_seeds: of each method; by default the scenario's own.

    Raises:
        UserError: runs are missing, not scored, or cannot be compared within a setting; the seeds of a method have
            different hyperparameters; or the tasks of the settings differ.
    """
    settings = part.settings(profile, num_seeds)
    _require(study, part, list(settings), results)
    groups, grids = {}, {}
    for setting in settings:
        groups[setting], grids[setting] = _grid(part, setting, results)
    tasks = {setting: [(task.name, task.metric) for task in grid.tasks] for setting, grid in grids.items()}
    if len({tuple(named) for named in tasks.values()}) > 1:
        raise UserError(
            f"study {study}, part {part.name}: field scenarios: their tasks differ. Define a part for each."
        )
    first = next(iter(grids.values()))
    return PartTable(part, first.tasks, groups, grids, tuple(_rows(part, profile, _corrected(grids), num_seeds)))


def _require(study: str, part: Part, settings: Sequence[Setting], results: Path) -> None:
    runs = [run for setting in settings for run in setting.runs(results, part.methods)]
    missing = [
        run for run in runs if not all((run / name).is_file() for name in ("manifest.json", "eval/metrics.json"))
    ]
    if missing:
        raise UserError(
            f"study {study}, part {part.name}: {len(missing)} of {len(runs)} runs are missing or not scored, first "
            f"{missing[0]}. Run `snakemake --cores all {study}`, which also writes "
            f"results/<profile>/studies/{study}/index.md."
        )


def _grid(part: Part, setting: Setting, results: Path) -> tuple[dict[str, Group], Headline]:
    runs = load_runs(setting.runs(results, part.methods))
    allowed = check_comparable(runs)
    groups = group_runs(runs)
    (grid,) = build_headlines(groups, part.baseline, allowed)
    lines = {line.method: line for line in grid.lines}
    return {group.label: group for group in groups}, replace(
        grid, lines=tuple(lines[method] for method in part.methods)
    )


def _corrected(grids: dict[Setting, Headline]) -> dict[Setting, Headline]:
    """Replace the Holm correction within each grid by one over the tests of all grids."""
    tests = [cell.against for grid in grids.values() for line in grid.lines for cell in line.cells if cell.against]
    adjusted = iter(holm([test.p_value for test in tests]))

    def cell(old: Cell) -> Cell:
        return replace(old, against=replace(old.against, p_holm=next(adjusted))) if old.against else old

    def line(old: Line) -> Line:
        return replace(old, cells=tuple(cell(each) for each in old.cells))

    return {setting: replace(grid, lines=tuple(line(each) for each in grid.lines)) for setting, grid in grids.items()}


def _rows(part: Part, profile: str, grids: dict[Setting, Headline], num_seeds: int | None) -> list[StudyRow]:
    names = part.settings(profile, num_seeds)
    return [
        _row(setting, line, number, part.axis_value(names[setting], line.method))
        for setting, grid in grids.items()
        for number in range(len(grid.tasks))
        for line in grid.lines
    ]


def _row(setting: Setting, line: Line, number: int, axis: float | None) -> StudyRow:
    cell = line.cells[number]
    row, against = cell.row, cell.against
    assert row is not None, "every method has a row of every primary metric, if only to say that it is missing"
    cost = line.cost
    return StudyRow(
        setting.scenario, setting.profile, line.method, family_of(line.method), axis, row.task, row.metric, row.mean,
        row.std, row.num_seeds, row.ci_low, row.ci_high, against.difference if against else None,
        against.p_holm if against else None, cost.megabytes, cost.trainable_parameters, cost.teraflops, row.status,
    )  # fmt: skip
