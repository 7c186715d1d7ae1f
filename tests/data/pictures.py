"""Pictures and files for the tests of the intake."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def pixels(seed: int, width: int = 48, height: int = 32) -> np.ndarray:
    """Smooth random pixels (H, W, 3): a picture with low frequencies, different for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A PNG file of `pixels`."""
    return encoded(Image.fromarray(pixels(seed, width, height)))


def decoded(data: bytes) -> np.ndarray:
    """The pixels of a file as RGB."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def write_pictures(folder: Path, names: Sequence[str], first_seed: int = 0) -> None:
    """A different picture for every name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(png(first_seed + number))


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A JSON lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
