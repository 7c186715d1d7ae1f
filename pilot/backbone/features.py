"""Vision features of a scenario's images: computed once, memory-mapped by every method, seed and round."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pilot.backbone.backbone import Backbone
from pilot.data.record import InstructionRecord
from pilot.errors import UserError
from pilot.io.atomic import read_json, write_bytes, write_json
from pilot.io.digest import sha256_file

CHUNK = 512


@dataclass(frozen=True)
class FeatureCache:
    """`values` (M, N, D) float32, memory-mapped; `row_of` maps an image's sha256 to its row."""

    values: np.ndarray
    row_of: dict[str, int]
    digest: str


def compute_features(
    backbone: Backbone, records: list[InstructionRecord], folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Write `features.npy` and, last, `index.json` (rows by image sha256, digest) to `folder`."""
    images = {record.image_sha256: record.image for record in records}
    names = sorted(images)
    parts = []
    for start in range(0, len(names), CHUNK):
        chunk = [Image.open(io.BytesIO(images[name])) for name in names[start : start + CHUNK]]
        parts.append(backbone.image_features(chunk).numpy())
        progress(min(start + CHUNK, len(names)), len(names))
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate(parts), allow_pickle=False)
    write_bytes(folder / "features.npy", buffer.getvalue())
    index = {"digest": sha256_file(folder / "features.npy"), "rows": {name: row for row, name in enumerate(names)}}
    write_json(folder / "index.json", index)


def open_features(folder: Path) -> FeatureCache:
    """Open what `compute_features` wrote, without reading it into memory."""
    if not (folder / "index.json").is_file():
        raise UserError(f"{folder}: no vision features here. Run `pilot-bench backbone features` for the scenario.")
    index = read_json(folder / "index.json")
    values = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
    return FeatureCache(values, index["rows"], index["digest"])
