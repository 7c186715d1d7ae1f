"""Report of a bench, as a text table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from pilot.bench.kernels.paired import Spread
from pilot.bench.scale.measure import machine

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


@dataclass(frozen=True)
class Row:
    """Measurements of one case.

    Attributes:
        case: settings of the case by name, one column each.
        seconds: times of every side in seconds, by name.
        ratios: paired ratios of times, by name.
        difference: largest relative difference between ours and the reference.
        values: other measurements, by name.
        repeats: number of repetitions that the spreads are computed from.
    """

    case: Mapping[str, Any]
    seconds: Mapping[str, Spread]
    ratios: Mapping[str, Spread]
    difference: float
    repeats: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Rows of a bench with its settings and summary values.

    Attributes:
        name: name of the bench.
        settings: settings chosen by the user or fixed by the bench.
        rows: cases, all with the same columns.
        summary: values of the bench as a whole.
        notes: sentences below the table.
    """

    name: str
    settings: Mapping[str, Any]
    rows: Sequence[Row]
    summary: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all fields, with the machine and package versions."""
        return {
            "bench": self.name,
            "machine": machine() | {name: version(name) for name in ("transformers", "peft")},
            "settings": dict(self.settings),
            "rows": [asdict(row) for row in self.rows],
            "summary": dict(self.summary),
            "notes": list(self.notes),
        }

    def as_text(self) -> str:
        """Format a table of median times and paired ratios with quartiles, and the settings below it."""
        cells = [_header(self.rows[0]), *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        report = self.to_json()
        below = [f"{name}: {_number(value)}" for name, value in self.summary.items()]
        for name in ("settings", "machine"):
            below.append(f"{name}: " + ", ".join(f"{key} {value}" for key, value in report[name].items()))
        return "\n".join([*table, *below, *self.notes])


def _header(row: Row) -> list[str]:
    return [*row.case, *row.seconds, *row.ratios, "differ", *row.values, "n"]


def _cells(row: Row) -> list[str]:
    return [
        *(str(value) for value in row.case.values()),
        *(_time(spread.median) for spread in row.seconds.values()),
        *(f"{spread.median:.2f} [{spread.lower:.2f}, {spread.upper:.2f}]" for spread in row.ratios.values()),
        f"{row.difference:.0e}",
        *(_number(value) for value in row.values.values()),
        str(row.repeats),
    ]


def _time(seconds: float) -> str:
    scale, unit = next((pair for pair in UNITS if seconds >= pair[0]), UNITS[-1])
    return f"{seconds / scale:.2f} {unit}"


def _number(value: float) -> str:
    return f"{value:.4g}"
