"""`pilot-bench bench data`: memory of building data, splitting them and computing features, over the number of images.

Each stage is the command that users run, in a fresh process. With more images, memory should not grow by theirs: the
growth per image is the slope of a line through the sizes, whose value at full size is an extrapolation.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilot.bench.scale.command import CommandCost, measure_command
from pilot.bench.scale.measure import machine
from pilot.bench.scale.pictures import TESTS, image_file, write_images, write_scenario
from pilot.config.load import load_profile
from pilot.errors import UserError
from pilot.io.layout import setting_folder

Advance = Callable[[int, int], None]
STAGES = {"data build": "data", "partition": "partition", "backbone features": "features"}
"""Command -> the folder that it writes."""
FULL_SIZE = 90_000
MEMORY = {"peak_bytes": "peak", "anonymous_bytes": "anonymous", "file_bytes": "file-backed"}
COPIES = 4
"""At most this many copies of an image are on the disk: the user's, one in records, and two in temporary files."""
MEBIBYTE = 2**20
_PROGRAM = (sys.executable, "-c", "from pilot.cli.main import main; main()")


@dataclass(frozen=True)
class Sizes:
    """Sizes to measure: numbers of images, and their width and height in pixels (COCO's, by default)."""

    images: tuple[int, ...] = (5_000, 20_000)
    width: int = 640
    height: int = 480


QUICK = Sizes((6, 12), 64, 48)
"""Sizes that take seconds: a smoke test, not a measurement."""


def bench_data(
    sizes: Sizes,
    profile: str,
    work: Path | None,
    advance: Advance,
    measure: Callable[[Sequence[str], Path], CommandCost] = measure_command,
) -> dict[str, Any]:
    """Measure all stages at all sizes; return the report that `--json` prints.

    Args:
        sizes: sizes to measure.
        profile: name or YAML file; it chooses the backbone.
        work: folder for temporary data, which are removed; the system's by default.
        advance: called with the number of images that were written or went through a stage, and the total.
        measure: runs a command with a folder for its output.

    Raises:
        UserError: fewer than two numbers of images, or too few images; an unknown profile; too little disk space; a
            command failed.
    """
    numbers, name = _check_numbers(sizes.images), load_profile(profile).name
    rows, done, total = [], numbers[-1], numbers[-1] + len(STAGES) * sum(numbers)
    with _temporary_folder(work) as folder:
        images = folder / "images"
        _make_images(images, numbers[-1], (sizes.width, sizes.height), lambda written: advance(written, total))
        for number in numbers:
            scenario, results = write_scenario(folder, images, number), folder / "results"
            options = ("--scenario", str(scenario), "--profile", profile, "--results", str(results))
            for command, made in STAGES.items():
                cost = measure((*_PROGRAM, *command.split(), *options), folder / f"{number}-{made}")
                kept = _num_bytes(setting_folder(results, name, scenario.stem) / made)
                rows.append({"stage": command, "images": number, **asdict(cost), "kept_bytes": kept})
                done += number
                advance(done, total)
            shutil.rmtree(results)
        files = [path.stat().st_size for path in images.iterdir()]
    return {
        "machine": machine(), "profile": name, "sizes": asdict(sizes), "full_size": FULL_SIZE,
        "image_bytes": {"least": min(files), "most": max(files)}, "rows": rows,
        "fits": {stage: _fit([row for row in rows if row["stage"] == stage]) for stage in STAGES},
    }  # fmt: skip


def as_text(report: Mapping[str, Any]) -> str:
    """Format all measurements as a table, with the growth per image, the value at full size, and the machine."""
    sizes, files = report["sizes"], report["image_bytes"]
    head = ("images", "seconds", "CPU s", *MEMORY.values(), "written", "kept")
    lines = [
        f"Profile {report['profile']}: JPEGs of {sizes['width']} x {sizes['height']}, {files['least'] / 1000:.0f} to "
        f"{files['most'] / 1000:.0f} kB; largest resident memory, and bytes written and kept, in MiB",
        f"{'':<18}" + "".join(f"{name:>12}" for name in head),
    ]
    for row in report["rows"]:
        values = [row[name] / MEBIBYTE for name in (*MEMORY, "written_bytes", "kept_bytes")]
        lines.append(
            f"{row['stage']:<18}{row['images']:>12}{row['seconds']:>12.1f}{row['cpu_seconds']:>12.1f}"
            + "".join(f"{value:>12.1f}" for value in values)
        )
    full = f"at {report['full_size']}"
    lines += ["", "Bytes of memory per further image, and MiB extrapolated from the line through the sizes"]
    lines.append(f"{'':<18}" + "".join(f"{name:>12}{full:>12}" for name in MEMORY.values()))
    for stage, fit in report["fits"].items():
        lines.append(
            f"{stage:<18}"
            + "".join(f"{fit[name]['slope']:>12.0f}{fit[name]['full_size'] / MEBIBYTE:>12.0f}" for name in MEMORY)
        )
    lines += ["", "machine: " + ", ".join(f"{name} {value}" for name, value in report["machine"].items())]
    return "\n".join(lines)


def _check_numbers(images: Sequence[int]) -> list[int]:
    """Return the numbers of images in ascending order."""
    numbers = sorted(set(images))
    if len(numbers) < 2 or numbers[0] < TESTS:
        raise UserError(
            f"bench data: --images: expected two or more different numbers of at least {TESTS}, got "
            f"{', '.join(map(str, images))}. Repeat the option for every number."
        )
    return numbers


@contextmanager
def _temporary_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a folder in `parent`, or where the system has temporary files, and remove it."""
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=parent, prefix="pilot-bench-data-")
    except OSError as error:
        raise UserError(f"--work {parent}: cannot write here ({error.strerror}). Choose another folder.") from error
    with made as name:
        yield Path(name).resolve()


def _make_images(folder: Path, number: int, size: tuple[int, int], advance: Callable[[int], None]) -> None:
    """Write the images if the disk has space for them and for what the stages make of them."""
    needed, free = COPIES * number * len(image_file(0, *size)), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{folder}: {number} images and copies of them take {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB "
            "are free. Choose another --work, or fewer --images."
        )
    try:
        write_images(folder, number, size, advance)
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror}). Choose another --work.") from error


def _fit(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit a line to each part of the memory; return its slope in bytes per image, and its value at full size."""
    fits = {}
    for name in MEMORY:
        slope, start = np.polyfit([row["images"] for row in rows], [row[name] for row in rows], 1)
        fits[name] = {"slope": float(slope), "full_size": float(start + slope * FULL_SIZE)}
    return fits


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
