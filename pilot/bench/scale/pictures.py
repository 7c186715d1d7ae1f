"""A data set of any number of JPEGs of one size, for `bench data`: few different pictures, but no equal files.

A picture is noise over colours, which JPEG compresses about as little as photographs. Its files differ by a comment, so
that making one is a copy. There are so many different pictures that they lie further apart than a compressor looks
back, and files with the images are as large as those of photographs.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pilot.config.scenario import PartitionConfig, Scenario, TaskConfig
from pilot.io.atomic import write_json, write_jsonl
from pilot.io.seeding import generator

NUM_PICTURES = 64
TESTS = 5
"""Every fifth example is for testing."""
_NOISE, _QUALITY = 40, 85
_COMMENT = "picture {:010d}"


@cache
def picture(number: int, width: int, height: int) -> bytes:
    """Return the JPEG of one of the different pictures, with comment 0."""
    rng = generator("bench data", number)
    colours = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-_NOISE, _NOISE + 1, smooth.shape, dtype=np.int16)
    buffer = io.BytesIO()
    image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    image.save(buffer, "JPEG", quality=_QUALITY, comment=_COMMENT.format(0).encode())
    return buffer.getvalue()


def image_file(number: int, width: int, height: int) -> bytes:
    """Return the content of an image file; no other number has the same."""
    content = picture(number % NUM_PICTURES, width, height)
    return content.replace(_COMMENT.format(0).encode(), _COMMENT.format(number).encode(), 1)


def write_images(folder: Path, number: int, size: tuple[int, int], advance: Callable[[int], None]) -> None:
    """Write `<number>.jpg` for every number from 0; `size` is width and height in pixels.

    Raises:
        OSError: the disk is full or fails.
    """
    folder.mkdir()
    for each in range(number):
        (folder / _name(each)).write_bytes(image_file(each, *size))
        advance(each + 1)


def write_scenario(folder: Path, images: Path, number: int) -> Path:
    """Write questions about the first images, and a scenario that reads them; return the scenario's file."""
    questions, name = folder / "questions.jsonl", f"bench-data-{number}"
    write_jsonl(questions, (_question(each) for each in range(number)))
    task = TaskConfig(
        name="questions", kind="vqa", source="own", options={"file": str(questions), "images": str(images)},
        num_train=number - number // TESTS, num_test=number // TESTS, num_clients=3,
        partition=PartitionConfig(kind="iid"), lm_eval_task="pilot_vqa",
    )  # fmt: skip
    scenario = Scenario(
        name=name, title=f"{number} generated images", data_seed=0, partition_seed=0, methods=("fedavg",), seeds=(0,),
        tasks=(task,), validation_fraction=0.0, local_test_fraction=0.0, min_client_examples=1,
    )  # fmt: skip
    write_json(folder / f"{name}.yaml", scenario.model_dump(mode="json"))
    return folder / f"{name}.yaml"


def _question(number: int) -> dict[str, str]:
    split = "test" if number % TESTS == TESTS - 1 else "train"
    return {
        "id": str(number), "image": _name(number), "question": f"What is in picture {number}?",
        "answer": f"colours {number % NUM_PICTURES}", "split": split,
    }  # fmt: skip


def _name(number: int) -> str:
    return f"{number}.jpg"
