"""Small parquet files with the columns and feature types of the hub's tables."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Features, List, Value
from PIL import Image as Pillow
from pyarrow import parquet

from pilot.data.readers.hub.reader import Options

TEXT, TEXTS = Value("string"), List(Value("string"))
ANSWERS = List({"answer": TEXT, "answer_confidence": TEXT, "answer_id": Value("int64")})


def png(shade: int = 0) -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Pillow.new("L", (2, 2), shade).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, features: Mapping[str, Any], *rows: Mapping[str, Any]) -> None:
    """A parquet file with the feature types that the hub's file has; images are written as their bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    filled = [dict.fromkeys(features) | row for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(filled, schema=Features(dict(features)).arrow_schema), path)


def local(kind: Any, dataset: str, **options: Any) -> Options:
    """Options that read `train.parquet` and `test.parquet`."""
    return Options(kind=kind, dataset=dataset, train_files=("train.parquet",), test_files=("test.parquet",), **options)


def image(shade: int = 0) -> dict[str, Any]:
    """An image feature's value."""
    return {"bytes": png(shade), "path": "x.png"}
