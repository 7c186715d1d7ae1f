"""Cost of a run: bytes, parameters, steps, tokens and FLOPs (`cost.csv`), time and memory (`timing.csv`)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pilot.report.numbers.load import Run
from pilot.report.numbers.summary import Group

_COUNTS = (
    *("trainable_parameters", "activated_parameters"),
    *("optimiser_steps", "training_tokens", "training_flops"),
)
_TIMES = (
    *(("wall_seconds", "s"), ("train_seconds", "s"), ("exchange_seconds", "s"), ("aggregate_seconds", "s")),
    *(("checkpoint_seconds", "s"), ("peak_memory_mb", "MB"), ("client_peak_memory_mb", "MB")),
)


@dataclass(frozen=True)
class CostRow:
    """One line of `cost.csv`: `round` and `component` are None for totals over them."""

    scenario: str
    method: str
    seed: int
    quantity: str
    direction: str | None
    round: int | None
    component: str | None
    value: int


@dataclass(frozen=True)
class TimingRow:
    """One line of `timing.csv`, the only table that differs between reruns."""

    scenario: str
    method: str
    seed: int
    quantity: str
    unit: str
    value: float


@dataclass(frozen=True)
class CostSummary:
    """Cost of one method, mean over its seeds; None if no run recorded it."""

    megabytes: float | None
    trainable_parameters: float | None
    teraflops: float | None
    wall_seconds: float | None


def cost_rows(groups: Sequence[Group]) -> list[CostRow]:
    """Return the lines of `cost.csv`.

    These are bytes per round, direction and component with their totals, parameters, steps, tokens and FLOPs.
    """
    rows: list[CostRow] = []
    for group in groups:
        for run in group.runs:
            start = (group.scenario, group.label, run.seed)
            rows += _byte_rows(run, start)
            rows += [
                CostRow(*start, "parameters", None, None, component, int(count))
                for component, count in sorted(run.ledger.get("parameters", {}).items())
            ]
            rows += [
                CostRow(*start, name, None, None, None, int(run.ledger[name]))
                for name in _COUNTS
                if run.ledger.get(name) is not None
            ]
    return rows


def timing_rows(groups: Sequence[Group]) -> list[TimingRow]:
    """Return the lines of `timing.csv`: wall time and its parts, peak memory of server and clients, per run."""
    return [
        TimingRow(group.scenario, group.label, run.seed, name, unit, float(run.timing[name]))
        for group in groups
        for run in group.runs
        for name, unit in _TIMES
        if run.timing.get(name) is not None
    ]


def summarise(group: Group) -> CostSummary:
    """Average over seeds: megabytes sent, parameters, TFLOPs of training, wall time.

    Megabytes are 10^6 bytes, up and down; they and TFLOPs are of all clients and rounds.
    """
    flops = mean_of_known([run.ledger.get("training_flops") for run in group.runs])
    totals = [run.ledger["totals"] for run in group.runs if "totals" in run.ledger]
    return CostSummary(
        megabytes=mean_of_known([(total["bytes_up"] + total["bytes_down"]) / 1e6 for total in totals]),
        trainable_parameters=mean_of_known([run.ledger.get("trainable_parameters") for run in group.runs]),
        teraflops=None if flops is None else flops / 1e12,
        wall_seconds=mean_of_known([run.timing.get("wall_seconds") for run in group.runs]),
    )


def _byte_rows(run: Run, start: tuple[str, str, int]) -> list[CostRow]:
    cells: dict[tuple[str, int, str], int] = defaultdict(int)
    components: dict[tuple[str, str], int] = defaultdict(int)
    for message in run.ledger.get("messages", ()):
        for component, size in message["groups"].items():
            cells[message["direction"], message["round"], component] += size
            components[message["direction"], component] += size
    totals = run.ledger.get("totals", {})
    return [
        *(CostRow(*start, "bytes", way, number, name, cells[way, number, name]) for way, number, name in sorted(cells)),
        *(CostRow(*start, "bytes", way, None, name, components[way, name]) for way, name in sorted(components)),
        *(CostRow(*start, "bytes", way, None, None, int(totals[f"bytes_{way}"])) for way in ("down", "up") if totals),
    ]


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Average the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
