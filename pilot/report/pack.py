"""Packing of finished runs for keeping and passing on: what was measured, without states, data and features.

A pack is a `tar.xz` of run folders below `<profile>/<scenario>/`: settings, records of rounds, bytes, times, and scores
by example of the last round's models, and of each scenario the images that test examples share (`images.json`). It is
what `compare`, `study`, `power` and `replication` read, so their results from an unpacked folder are those of the runs
themselves. With all evaluations and answers it is what `tables` and `import` read, and seven times as large. Equal runs
give equal bytes. Files below `entry/` are those of an entry (`pilot.report.entries`), not of a run.
"""

import io
import json
import lzma
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from pilot.errors import UserError
from pilot.io.atomic import create_folder, damaged, replace_file, write_bytes
from pilot.io.layout import EVAL, IMAGES, METRICS, PER_EXAMPLE, SAMPLES
from pilot.report.numbers.load import Run, load_runs
from pilot.report.numbers.summary import image_of_example

RUN_FILES = ("config.json", "ledger.json", "manifest.json", "participation.json", "privacy.json", "rounds.jsonl",
             "timing.json")  # fmt: skip
SCORES = (METRICS, PER_EXAMPLE)
ENTRY = "entry"
"""Folder of a pack with what belongs to no run."""
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Unpacked:
    """Run folders that were written, and those that were there already, with the same manifest."""

    new: tuple[Path, ...]
    known: tuple[Path, ...]


def pack_runs(paths: Sequence[Path | str], file: Path, everything: bool = False) -> int:
    """Write the runs under `paths` to `file`, a `.tar.xz`; return how many there are.

    Args:
        paths: scenario, method or run folders.
        file: the file to write.
        everything: whether to include answers, and all evaluations instead of that of the last round.

    Raises:
        UserError: `file` has another ending, a run is unfinished, unevaluated or damaged, or two of them have the same
            profile, scenario, method and seed.
    """
    _check_ending(file)
    runs = load_runs(paths)
    write_pack(members_of(runs, everything=everything), file)
    return len(runs)


def members_of(runs: Sequence[Run], *, answers: bool = False, everything: bool = False) -> dict[str, bytes]:
    """Return the files of a pack by name.

    Args:
        runs: finished and evaluated runs.
        answers: whether to include the answers of the last round's models.
        everything: whether to include answers, and all evaluations instead of that of the last round.

    Raises:
        UserError: two runs have the same profile, scenario, method and seed.
    """
    members: dict[str, bytes] = {}
    scenarios: dict[Path, list[Run]] = {}
    for run in runs:
        scenarios.setdefault(run.scenario_dir, []).append(run)
    for folder, own in scenarios.items():
        top = folder.parents[1]
        found = [path for run in own for path in files_of_run(run, answers or everything, everything)]
        named = {path.relative_to(top).as_posix(): path.read_bytes() for path in found}
        named[(folder / IMAGES).relative_to(top).as_posix()] = json.dumps(_images(own), sort_keys=True).encode()
        if twice := sorted(members.keys() & named.keys()):
            raise UserError(f"{folder}: {twice[0]} is also in another results folder. Pack each results folder alone.")
        members |= named
    return members


def write_pack(members: Mapping[str, bytes], file: Path) -> None:
    """Write files by name to a `.tar.xz`; raises `UserError` for another ending."""
    _check_ending(file)

    def fill(path: Path) -> None:
        with (
            lzma.open(path, "wb", preset=6) as raw,
            tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name in sorted(members, key=_by_kind):
                entry = tarfile.TarInfo(name)
                entry.size = len(members[name])
                tar.addfile(entry, io.BytesIO(members[name]))

    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, fill)


def unpack_runs(file: Path, results: Path) -> Unpacked:
    """Write the runs of a pack below `results`; keep those that are there with the same manifest.

    Raises:
        UserError: `file` is not a pack or damaged, or `results` has another run of the same name; nothing is written
            then.
    """
    members = {name: data for name, data in read_pack(file).items() if PurePosixPath(name).parts[0] != ENTRY}
    runs: dict[str, dict[str, bytes]] = {}
    for name, data in members.items():
        if (parts := PurePosixPath(name)).name != IMAGES:
            runs.setdefault(_run_of(file, parts), {})[name] = data
    known = {name for name in runs if (results / name).exists()}
    for name in sorted(known):
        here = results / name / _MANIFEST
        if not here.is_file() or here.read_bytes() != runs[name].get(f"{name}/{_MANIFEST}"):
            raise UserError(
                f"{results / name}: another run than that of {file}. Unpack into another folder, with --results."
            )
    for name, data in members.items():
        if PurePosixPath(name).name == IMAGES and not (results / name).exists():
            (results / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(results / name, data)
    for name in sorted(runs.keys() - known):
        create_folder(results / name, partial(_write, name, runs[name]))
    return Unpacked(
        tuple(results / name for name in sorted(runs.keys() - known)), tuple(results / name for name in sorted(known))
    )


def _write(run: str, files: dict[str, bytes], work: Path) -> None:
    for name, data in files.items():
        path = work / PurePosixPath(name).relative_to(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files_of_run(run: Run, answers: bool, everything: bool) -> Iterator[Path]:
    """Yield the files of a run that a pack has; the test set of imported runs is only in their answers."""
    folder = run.path.resolve()
    yield from (folder / name for name in RUN_FILES if (folder / name).is_file())
    for name in (*SCORES, *((SAMPLES,) if answers or run.imported else ())):
        yield from (folder / EVAL).glob(f"**/{name}" if everything else name)


def _images(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Number the images of the examples that runs of a scenario have scores of, by task; digests are sorted alike."""
    found: dict[str, dict[str, str]] = {}
    for task in sorted({task.name for run in runs for task in run.tasks}):
        scored = {
            id for run in runs for (own, _, _), clients in run.per_example.items() if own == task
            for examples in clients.values() for id in examples
        }  # fmt: skip
        images = {id: image for id, image in image_of_example(runs[0].scenario_dir, task).items() if id in scored}
        order = {image: number for number, image in enumerate(sorted(set(images.values())))}
        found[task] = {id: f"{order[image]:06}" for id, image in images.items()}
    return found


def _by_kind(name: str) -> tuple[str, ...]:
    """Sort files of one name together: similar neighbours compress better."""
    parts = PurePosixPath(name).parts
    return (parts[-1], *parts)


def _check_ending(file: Path) -> None:
    if not file.name.endswith(".tar.xz"):
        raise UserError(f"{file}: expected a name that ends in .tar.xz, such as runs.tar.xz.")


def read_pack(file: Path) -> dict[str, bytes]:
    """Return the files of a pack by name; raises `UserError` if it is not one, or damaged."""
    _check_ending(file)
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(file, "r:xz") as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                if content is None:
                    raise damaged(file, f"{entry.name}: expected files only")
                members[entry.name] = content.read()
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file.") from error
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise damaged(file, f"not a pack of `pilot-bench pack` ({error})") from error
    return members


def _run_of(file: Path, name: PurePosixPath) -> str:
    """Return the run's folder of a file's name, `<profile>/<scenario>/[faults/<fault>/]runs/<method>/seed<k>`."""
    parts = name.parts
    for start in (2, 4):
        if len(parts) > start + 3 and parts[start] == "runs" and not name.is_absolute() and ".." not in parts:
            return "/".join(parts[: start + 3])
    raise damaged(file, f"{name}: expected <profile>/<scenario>/runs/<method>/seed<k>/...")
