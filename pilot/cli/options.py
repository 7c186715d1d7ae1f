"""Options that several commands share, and the values that options take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from pilot.io.layout import existing_scenario_folder


class BoxFrame(StrEnum):
    """Coordinate frame of boxes in answers; see `pilot.data.frames`."""

    original = "original"
    padded_square = "padded_square"
    thousandths = "thousandths"
    pixels_448 = "pixels_448"


Listing = Literal["methods", "scenarios", "profiles", "tasks", "metrics", "faults", "variants", "studies", "backbones"]
"""Kind of entries that `list` prints."""
ProtocolTable = Literal["curves", "targets", "matrix", "fairness", "unseen", "conditions", "forgetting"]
"""Table of a protocol beyond the headline: `--show` of `compare`."""
TableFormat = Literal["table", "markdown", "latex", "csv", "json"]
"""Output format of `compare`."""
Difference = StrEnum("Difference", ["data", "partition", "backbone", "tests", "budget", "seeds", "frame", "all"])
"""A property in which compared runs may differ; value of `--allow-different`."""
Engine = Literal["local", "flower"]
"""Engine that trains the clients."""
Kind = Literal["vqa", "caption", "ground"]
"""Kind of a task."""
BoxForm = Literal["pixels_xyxy", "pixels_xywh", "fractions_xyxy", "fractions_xywh", "padded_square_xyxy"]
"""Meaning of a box's four numbers; see `pilot.data.rows.BoxForm`."""
QuestionForm = StrEnum("QuestionForm", ["short_answer", "multiple_choice", "open"])
"""Form of a question in LLaVA's files."""
ImportFormat = Literal["lm-eval", "lmms-eval", "vlmevalkit", "jsonl"]
"""Tool whose files `import` reads."""
PublishFormat = Literal["croissant", "ro-crate", "eee", "hf-eval-results"]
"""Format that `publish` writes; see `pilot.report.publish`."""

RecipeOption = Annotated[Literal["tiny-llava", "tiny-idefics3"], typer.Option(help="Name of a backbone's recipe.")]
ResumeOption = Annotated[bool, typer.Option(help="Resume from the last finished round, or start over.")]
FaultOption = Annotated[str | None, typer.Option(help="A fault by name or file; see `pilot-bench list faults`.")]
OnlyMethodsOption = Annotated[
    list[str] | None, typer.Option("--method", "-m", help="Only these methods; repeat the option.")
]
PaperOption = Annotated[
    bool, typer.Option("--paper", help="Also draw figures for papers: PDFs as wide as a column and as the text.")
]
ScenarioDirArgument = Annotated[
    Path, typer.Argument(callback=existing_scenario_folder, help="results/<profile>/<scenario>")
]
ScenarioOption = Annotated[str, typer.Option("--scenario", "-s", help="Scenario name, or a path to its YAML file.")]
ProfileOption = Annotated[str, typer.Option("--profile", "-p", help="Profile name, or a path to its YAML file.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder that holds all results.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BaselineOption = Annotated[str, typer.Option(help="Method that the others are tested against.")]
TestOption = Annotated[
    Literal["training", "these-models"],
    typer.Option(help="What marks say: there after training again, or true of these trained models."),
]
AllowOption = Annotated[
    list[Difference] | None,
    typer.Option(
        "--allow-different", help="Compare although runs differ in this; the output says so. Repeat the option."
    ),
]
