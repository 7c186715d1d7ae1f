"""Imaging conditions of clients: what a client's camera does to every image, and the images as clients see them.

A scenario may give each task's clients their own conditions (field `conditions`). They change pixels, never geometry,
so answers and boxes stay true. Lengths are shares of the image's shorter side, so a condition means the same for
every size. `partition/images.parquet` holds each client's images under its own conditions, and each test image under
the conditions of every client.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pilot.config.scenario import Condition, Scenario, TaskConfig
from pilot.data.missing import plain_picture
from pilot.data.record import InstructionRecord, iterate_records
from pilot.data.tables import iterate_rows, write_table
from pilot.errors import UserError
from pilot.io.digest import sha256_bytes
from pilot.io.sealed import read_sealed
from pilot.io.seeding import generator
from pilot.io.spool import Spool

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.int64]
"""RGB values 0..255, shape (height, width, 3)."""
CAST_PERCENT = (112, 96, 72)
LIGHT_PERCENT = 85
BLUR_SHARE, DETAIL_SHARE, TEXTURE_SHARE = 0.025, 0.3, 0.05
TEXTURE_AMPLITUDE = 48
NOISE_PARTS, NOISE_AMPLITUDE = 4, 26
"""Noise is the sum of so many uniform values up to this amplitude: a standard deviation of 31 of 255."""
FILE = "images.parquet"


@dataclass(frozen=True)
class SeenImage:
    """An image as a client sees it; `image` is empty if only its digest was read."""

    sha256: str
    image: bytes = b""

    def replace_in(self, record: InstructionRecord) -> InstructionRecord:
        """Return the record with this image."""
        return replace(record, image=self.image, known_sha256=self.sha256)


def render(image: bytes, conditions: Sequence[Condition], rng: np.random.Generator) -> bytes:
    """Apply conditions to an image file, in order; return a PNG file, or the same file without conditions."""
    from PIL import Image

    if not conditions:
        return image
    pixels = Image.open(io.BytesIO(image)).convert("RGB")
    for name in conditions:
        pixels = TRANSFORMS[name](pixels, rng)
    buffer = io.BytesIO()
    pixels.save(buffer, format="PNG")
    return buffer.getvalue()


def _colour_cast(image: "Image", rng: np.random.Generator) -> "Image":
    """Weight the colours as warm lamplight does."""
    return _image(_pixels(image) * np.array(CAST_PERCENT) // 100)


def _low_light(image: "Image", rng: np.random.Generator) -> "Image":
    return _image(_pixels(image) * LIGHT_PERCENT // 100)


def _blur(image: "Image", rng: np.random.Generator) -> "Image":
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(BLUR_SHARE * min(image.size)))


def _low_resolution(image: "Image", rng: np.random.Generator) -> "Image":
    from PIL import Image

    width, height = (max(1, round(side * DETAIL_SHARE)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _texture(image: "Image", rng: np.random.Generator) -> "Image":
    """Lay a woven pattern over the image; its phase and direction are the image's own."""
    width, height = image.size
    period = max(2, round(TEXTURE_SHARE * min(image.size)))
    start_x, start_y, slope = (int(value) for value in rng.integers(0, (period, period, 3)))
    across = (np.arange(width)[None, :] + start_x + slope * np.arange(height)[:, None] // 2) // period
    down = (np.arange(height)[:, None] + start_y) // period
    woven = ((across + down) % 2 * 2 - 1) * TEXTURE_AMPLITUDE
    return _image(_pixels(image) + woven[:, :, None])


def _noise(image: "Image", rng: np.random.Generator) -> "Image":
    width, height = image.size
    parts = rng.integers(-NOISE_AMPLITUDE, NOISE_AMPLITUDE + 1, (NOISE_PARTS, height, width, 3))
    return _image(_pixels(image) + parts.sum(axis=0))


TRANSFORMS: Mapping[Condition, Callable[["Image", np.random.Generator], "Image"]] = {
    "colour-cast": _colour_cast, "low-light": _low_light, "blur": _blur, "low-resolution": _low_resolution,
    "texture": _texture, "noise": _noise,
}  # fmt: skip


def _pixels(image: "Image") -> Pixels:
    return np.asarray(image).astype(np.int64)


def _image(pixels: Pixels) -> "Image":
    from PIL import Image

    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_seen_images(path: Path, scenario: Scenario, data: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Render the images of clients under their own conditions, and test images under each; write them to `path`.

    Args:
        path: the file, with columns task, id, condition (its place in the scenario's field), image, image_sha256.
        scenario: has `conditions`.
        data: folder with the tasks' records.
        rows: the assignment: task, id and client of each training record.
    """
    import pyarrow

    types = {"condition": pyarrow.int64(), "image": pyarrow.binary()}
    names = ("task", "id", "condition", "image", "image_sha256")
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in names])
    write_table(path, _seen_rows(scenario, data, rows), schema)


def _seen_rows(scenario: Scenario, data: Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    assert scenario.conditions is not None
    for task in scenario.tasks:
        client_of = {row["id"]: row["client"] for row in rows if row["task"] == task.name}
        for record in iterate_records(data / task.name / "records.parquet"):
            own = [scenario.condition_of(client_of[record.id])] if record.id in client_of else []
            for place in range(len(scenario.conditions)) if record.split == "test" else own:
                names = scenario.conditions[place]
                rng = generator("conditions", scenario.data_seed, *names, record.image_sha256)
                image = render(record.image, names, rng)
                yield {
                    "task": task.name, "id": record.id, "condition": place, "image": image,
                    "image_sha256": sha256_bytes(image),
                }  # fmt: skip


def read_seen_images(
    path: Path, task: str, *, ids: Collection[str] | None = None, images: bool = True
) -> dict[tuple[str, int], SeenImage]:
    """Read a task's images as clients see them, by record id and place of the condition.

    Args:
        path: the file.
        task: name of the task.
        ids: records whose images are read; all by default.
        images: whether to read images; without them, there are digests only.

    Raises:
        UserError: the file is missing or damaged.
    """
    _require_seen_images(path)
    columns = ["task", "id", "condition", "image_sha256", *(["image"] if images else [])]
    return {
        (row["id"], row["condition"]): SeenImage(row["image_sha256"], row.get("image", b""))
        for row in iterate_rows(path, columns)
        if row["task"] == task and (ids is None or row["id"] in ids)
    }


def _require_seen_images(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, but the scenario has conditions. Run `pilot-bench partition` again.")


def scenario_images(scenario: Scenario, scenario_dir: Path, folder: Path | None = None) -> Spool:
    """Return every image that a run of the scenario may see, by sha256.

    Args:
        scenario: the scenario.
        scenario_dir: its folder, with data.
        folder: place of the temporary file that holds the images; `scenario_dir` by default.

    Raises:
        UserError: the scenario has conditions, and its data were not split over the clients yet.
    """
    images, seen = Spool(folder or scenario_dir), seen_images_file(scenario_dir)
    if scenario.conditions is not None:
        _require_seen_images(seen)
    for task in scenario.tasks:
        for record in iterate_records(scenario_dir / "data" / task.name / "records.parquet"):
            if scenario.conditions is None or record.split == "test":
                images.add(record.image)
    if scenario.conditions is not None:
        for row in iterate_rows(seen, ["image"]):
            images.add(row["image"])
    if scenario.missing is not None:
        images.add(plain_picture())
    return images


def seen_images_file(scenario_dir: Path) -> Path:
    """Return the path of a scenario's images as clients see them."""
    return scenario_dir / "partition" / FILE


def as_clients_see(
    shards: Mapping[int, Sequence[InstructionRecord]],
    scenario: Scenario,
    scenario_dir: Path,
    task: TaskConfig,
    *,
    images: bool,
) -> dict[int, list[InstructionRecord]]:
    """Return clients' records with their images under each client's own conditions; digests only without `images`.

    Raises:
        UserError: see `read_seen_images`; the images were rendered under other conditions, or one is missing.
    """
    path = seen_images_file(scenario_dir)
    _check_conditions(path.with_name("heterogeneity.json"), scenario, shards)
    seen = read_seen_images(path, task.name, images=images)
    try:
        return {
            client: [seen[record.id, place].replace_in(record) for record in records]
            for client, records in shards.items()
            for place in [scenario.condition_of(client)]
        }
    except KeyError as error:
        name = error.args[0][0]
        raise UserError(f"{path}: no image of record {name!r}. Run `pilot-bench partition` again.") from error


def _check_conditions(path: Path, scenario: Scenario, clients: Iterable[int]) -> None:
    """Refuse images that were rendered before the scenario's conditions were changed."""
    assert scenario.conditions is not None
    rendered = {each["client"]: each.get("conditions") for each in read_sealed(path, {"clients": list})["clients"]}
    for client in clients:
        wanted, got = list(scenario.conditions[scenario.condition_of(client)]), rendered.get(client)
        if got != wanted:
            raise UserError(
                f"{path}: client {client}, field conditions: expected {wanted} as in scenario {scenario.name}, got "
                f"{got}. Run `pilot-bench partition` again."
            )
