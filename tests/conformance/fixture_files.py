"""The fixture files as they are, and what several tests need of them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pilot.evaluation import caption, java_tools

FOLDER = Path(__file__).parent / "fixtures"
NO_JAVA = (*caption.BLEU, "ROUGE-L", "CIDEr")

Entry = dict[str, Any]


def load(name: str) -> dict[str, list[Any]]:
    """The tables of a fixture file; `about` is for the reader."""
    tables: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    del tables["about"]
    return tables


def people(counts: Mapping[str, int]) -> list[str]:
    """{answer: number of people} as a list of answers."""
    return [answer for answer, count in counts.items() for _ in range(count)]


def captions_of(images: Iterable[Entry]) -> caption.Captions:
    """Predictions and references by image id."""
    images = list(images)
    predictions = {str(image["id"]): image["prediction"] for image in images}
    assert len(predictions) == len(images), "an id is there twice"
    return predictions, {str(image["id"]): image["references"] for image in images}


def split_at_spaces(sentences: Iterable[str]) -> dict[str, str]:
    """A tokeniser without Java: words between spaces, without punctuation that stands alone."""
    return {text: " ".join(w for w in text.split() if w not in java_tools.PUNCTUATION) for text in sentences}
