"""Options that several commands share, and the values that options take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Listing(StrEnum):
    """Kind of entries that `list` prints."""

    methods = "methods"
    scenarios = "scenarios"
    profiles = "profiles"
    tasks = "tasks"
    metrics = "metrics"
    faults = "faults"
    variants = "variants"
    studies = "studies"
    backbones = "backbones"


class TableFormat(StrEnum):
    """Output format of `compare`."""

    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


class Difference(StrEnum):
    """A property in which compared runs may differ; value of `--allow-different`."""

    data = "data"
    partition_ = "partition"  # `str` has a method named `partition`
    backbone = "backbone"
    tests = "tests"
    budget = "budget"
    seeds = "seeds"
    frame = "frame"
    all = "all"


class Engine(StrEnum):
    """Engine that trains the clients."""

    local = "local"
    flower = "flower"


class BoxFrame(StrEnum):
    """Coordinate frame of boxes in answers; see `pilot.data.frames`."""

    original = "original"
    padded_square = "padded_square"
    thousandths = "thousandths"
    pixels_448 = "pixels_448"


class Kind(StrEnum):
    """Kind of a task."""

    vqa = "vqa"
    caption = "caption"
    ground = "ground"


class BoxForm(StrEnum):
    """Meaning of a box's four numbers; see `pilot.data.rows.BoxForm`."""

    pixels_xyxy = "pixels_xyxy"
    pixels_xywh = "pixels_xywh"
    fractions_xyxy = "fractions_xyxy"
    fractions_xywh = "fractions_xywh"
    padded_square_xyxy = "padded_square_xyxy"


class QuestionForm(StrEnum):
    """Form of a question in LLaVA's files."""

    short_answer = "short_answer"
    multiple_choice = "multiple_choice"
    open = "open"


class ImportFormat(StrEnum):
    """Tool whose files `import` reads."""

    lm_eval = "lm-eval"
    lmms_eval = "lmms-eval"
    vlmevalkit = "vlmevalkit"
    jsonl = "jsonl"


ResumeOption = Annotated[bool, typer.Option(help="Resume from the last finished round, or start over.")]
FaultOption = Annotated[str | None, typer.Option(help="A fault by name or file; see `pilot-bench list faults`.")]
OnlyMethodsOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", help="Only these methods; repeat the option.")
]
PaperOption = Annotated[
    bool, typer.Option("--paper", help="Also draw figures for papers: PDFs as wide as a column and as the text.")
]
ScenarioDirArgument = Annotated[Path, typer.Argument(help="results/<profile>/<scenario>")]
ScenarioOption = Annotated[str, typer.Option("--scenario", "-s", help="Scenario name, or a path to its YAML file.")]
ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="Profile name, or a path to its YAML file.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder that holds all results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BaselineOption = Annotated[str, typer.Option(help="Method that the others are tested against.")]
AllowOption = Annotated[
    list[Difference] | None,
    typer.Option(
        "--allow-different", help="Compare although runs differ in this; the output says so. Repeat the option."
    ),
]
