"""Files of a bench with a figure: the report and the figure."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.io.atomic import write_json

if TYPE_CHECKING:
    from pilot.matplotlib_import import Figure

Draw = Callable[[Mapping[str, Any]], "Figure"]


def write_with_figure(report: Mapping[str, Any], draw: Draw, results: Path, name: str) -> list[Path]:
    """Write `bench/<name>.json` and its figure below `results`; return the files.

    Raises:
        UserError: the folder cannot be written to.
    """
    from pilot.report.plots.style import save, style_context

    folder = results / "bench"
    write_json(folder / f"{name}.json", report)
    with style_context():
        return [folder / f"{name}.json", *save(draw(report), folder, name)]
