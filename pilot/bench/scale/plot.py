"""Figure `federation`: memory and time over the number of clients, and recall over the number of candidates."""

from collections.abc import Mapping, Sequence
from typing import Any

from pilot.matplotlib_import import Axes, Figure
from pilot.report.plots.style import GREY, MARKERS, OKABE_ITO, legend_below, new_figure

MEBIBYTE = 2**20
_LINE: dict[str, Any] = {"lw": 1.4, "ms": 5.5, "mec": "white", "mew": 0.6}


def draw(report: Mapping[str, Any]) -> Figure:
    """Draw three panels from the content of `results/bench/federation.json`."""
    figure = new_figure(9.6, 4.0)
    panels = figure.subplots(1, 3)
    for axes, panel in zip(panels, (_memory, _time, _recall), strict=True):
        panel(axes, report)
        axes.grid(color="#E5E5E5", lw=0.6)
    handles = {handle.get_label(): handle for axes in panels for handle in axes.get_legend_handles_labels()[0]}
    legend_below(figure, list(handles.values()))
    return figure


def _memory(axes: Axes, report: Mapping[str, Any]) -> None:
    averaging, ata = report["averaging"], report["ata"]
    bound = ata[0]["memory_bound"] / MEBIBYTE
    axes.axhline(bound, color=GREY, ls="--", lw=1.0, label=f"bound of ATA, {bound:.0f} MiB")
    for rows, name, colour, marker in _lines(averaging, ata):
        memory = _of(rows, "peak_bytes", MEBIBYTE)
        axes.plot(_of(rows, "clients"), memory, marker, color=colour, ls="-", label=name, **_LINE)
    axes.set_ylim(0, 1.1 * max(bound, *_of([*averaging, *ata], "peak_bytes", MEBIBYTE)))
    _over_clients(axes, [*averaging, *ata])
    axes.set_ylabel("server's peak memory (MiB)")
    axes.set_title("Memory")


def _time(axes: Axes, report: Mapping[str, Any]) -> None:
    averaging, ata = report["averaging"], report["ata"]
    for rows, name, colour, marker in _lines(averaging, ata):
        axes.plot(_of(rows, "clients"), _of(rows, "cpu_seconds"), marker, color=colour, ls="-", label=name, **_LINE)
    last = ata[-1]
    counts = _of(ata, "clients")
    for power, style, name in ((1, ":", "$K$"), (2, "-.", "$K^2$")):
        guide = [last["cpu_seconds"] * (count / last["clients"]) ** power for count in counts]
        axes.plot(counts, guide, color=GREY, ls=style, lw=1.0, label=f"{name} through ATA's last point")
    axes.set_yscale("log")
    _over_clients(axes, [*averaging, *ata])
    axes.set_ylabel("CPU seconds per round, one thread")
    axes.set_title("Time")


def _recall(axes: Axes, report: Mapping[str, Any]) -> None:
    size = report["sizes"]["chosen_size"]
    for index, case in enumerate(report["recall"]):
        rows = sorted((row for row in case["table"] if row["size"] == size), key=lambda row: row["overfetch"])
        kind = "recall, no structure" if case["noise"] is None else f"recall, {case['noise']:.0%} noise"
        axes.plot(
            _of(rows, "overfetch"), _of(rows, "recall"), MARKERS[index % len(MARKERS)], ls="-",
            color=OKABE_ITO[(index + 2) % len(OKABE_ITO)], label=f"{kind}, K = {case['clients']:,}", **_LINE,
        )  # fmt: skip
    axes.axhline(0.95, color=GREY, ls="--", lw=1.0)
    axes.set_xscale("log", base=2)
    overfetches = sorted(report["sizes"]["overfetches"])
    axes.set_xticks(overfetches, [str(number) for number in overfetches])
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("candidates compared exactly, per neighbour")
    axes.set_ylabel("true 3 nearest found (dashed: 0.95)")
    axes.set_title(f"Recall, sketches of {size} numbers")


def _lines(averaging: Sequence[Mapping[str, Any]], ata: Sequence[Mapping[str, Any]]) -> list[tuple[Any, str, str, str]]:
    return [
        (averaging, f"FedAvg, {_millions(averaging)} parameters", OKABE_ITO[0], "s"),
        (ata, f"ATA in blocks, {_millions(ata)} parameters", OKABE_ITO[1], "o"),
    ]


def _millions(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{rows[0]['parameters'] / 1e6:g} M"


def _over_clients(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    counts = sorted({row["clients"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("clients K")


def _of(rows: Sequence[Mapping[str, Any]], name: str, unit: float = 1.0) -> list[float]:
    return [row[name] / unit for row in rows]
