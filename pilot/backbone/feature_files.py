"""Vision features on disk: memory-mapped shards, and an index that is written last.

`features-<number>.npy` holds rows (rows, N, D); bfloat16 is stored as its bits in uint16, which NumPy supports. Next to
each shard is `features-<number>.json` with its digest and a key of what it was computed from, so that finished shards
are not computed again. `index.json` names the shards, their digests, the row of each image and the type; without it the
folder has no valid features.
"""

import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pilot.config.model import FeatureType
from pilot.errors import UserError
from pilot.io.atomic import damaged, read_json, remove, replace_file, write_json
from pilot.io.digest import digest_json, sha256_file
from pilot.io.sealed import read_sealed, write_sealed
from pilot.io.spool import Spool
from pilot.io.verified import check_digest

SHARD_BYTES = 256 << 20
CHUNK = 512
"""Images computed between two progress reports; shards of more than one chunk hold whole chunks."""
_ENTRY = ("file", "rows", "sha256", "key")
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class FeatureLayout:
    """Size of stored features: images, tokens per image, width and type."""

    count: int
    tokens: int
    width: int
    dtype: FeatureType

    @property
    def row_bytes(self) -> int:
        """Bytes of one image: N x D x bytes of the type."""
        return self.tokens * self.width * TYPES[self.dtype].itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return self.count * self.row_bytes

    def rows_per_shard(self, shard_bytes: int) -> int:
        """Return the number of images per shard: as many as fit, at least one."""
        rows = max(1, shard_bytes // self.row_bytes)
        return rows - rows % CHUNK if rows >= CHUNK else rows

    def describe(self) -> str:
        """Describe count, shape, type and size for users."""
        shape = f"{self.count} x {self.tokens} x {self.width} {self.dtype}"
        return f"vision features: {shape}, {self.bytes / 1e9:.3f} GB on disk"


@dataclass(frozen=True)
class FeatureCache:
    """Memory-mapped shards (rows, N, D) in order; `row_of` maps an image's sha256 to its row."""

    shards: Sequence[np.ndarray]
    dtype: FeatureType
    row_of: dict[str, int]
    digest: str

    def take(self, rows: Sequence[int]) -> Tensor:
        """Copy the features (len(rows), N, D) of some rows, in their type on disk.

        The copy is in PyTorch's memory, which is aligned to 64 bytes, NumPy's to 16: a BLAS may sum in another order.
        """
        ends = np.cumsum([len(shard) for shard in self.shards]).tolist()
        places = [bisect_right(ends, row) for row in rows]
        if len(set(places)) <= 1:
            shard = places[0] if places else 0
            start = ends[shard] - len(self.shards[shard])
            values = self.shards[shard][[row - start for row in rows]]
        else:
            starts = [end - len(shard) for end, shard in zip(ends, self.shards, strict=True)]
            values = np.stack([self.shards[p][row - starts[p]] for p, row in zip(places, rows, strict=True)])
        flat = torch.from_numpy(values).clone()
        return flat.view(torch.bfloat16) if self.dtype == "bfloat16" else flat


def write_features(
    folder: Path,
    names: Sequence[str],
    layout: FeatureLayout,
    made_of: str,
    compute: Callable[[Sequence[str]], Tensor],
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the features of images shard by shard, then the index; keep finished shards of the same content.

    Memory holds one chunk; the others of a shard are in a temporary file in `folder` until it is complete.

    Args:
        folder: target folder.
        names: sha256 of each image, in row order.
        layout: shape and type of the features.
        made_of: digest of everything that the features depend on besides the images.
        compute: returns the features (M, N, D) of at most `CHUNK` named images.
        progress: called with the number of finished images and the total.
        shard_bytes: maximum bytes of a shard; a single image may exceed it.

    Raises:
        UserError: the disk has too little space or cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove(folder / "index.json")
    rows = layout.rows_per_shard(shard_bytes)
    parts = [names[start : start + rows] for start in range(0, len(names), rows)]
    keys = [digest_json({"made_of": made_of, "type": layout.dtype, "names": list(part)}) for part in parts]
    shards = [_read_finished_shard(folder, number, key) for number, key in enumerate(keys)]
    missing = sum(len(part) for part, shard in zip(parts, shards, strict=True) if shard is None)
    _check_disk_space(folder, layout, missing * layout.row_bytes)
    done = 0
    for number, part in enumerate(parts):
        if shards[number] is None:
            with Spool(folder) as kept:
                advance = partial(_shift_progress, progress, done, len(names))
                chunks = _compute_shard(part, layout, compute, kept, advance)
                written = replace(layout, count=len(part))
                shards[number] = _write_shard(folder, number, written, (kept[chunk] for chunk in chunks), keys[number])
        done += len(part)
        progress(done, len(names))
    _remove_stale(folder, len(parts))
    entries = [{name: shard[name] for name in ("file", "rows", "sha256")} for shard in shards if shard]
    index = {"shards": entries, "dtype": layout.dtype, "rows": {name: row for row, name in enumerate(names)}}
    write_sealed(folder / "index.json", index | {"digest": digest_json({"shards": entries, "dtype": layout.dtype})})


def read_index(folder: Path) -> dict[str, Any]:
    """Read `index.json`: `shards`, `dtype`, `rows` and `digest`.

    Raises:
        UserError: the index is missing or damaged.
    """
    if not (folder / "index.json").is_file():
        raise UserError(f"{folder}: no vision features here. Run `pilot-bench backbone features` for the scenario.")
    return read_sealed(folder / "index.json", {"shards": list, "dtype": str, "rows": dict, "digest": str})


def open_features(folder: Path) -> FeatureCache:
    """Memory-map what `write_features` wrote, after checking every shard against its recorded digest.

    Raises:
        UserError: there is no index, or a shard is missing or altered.
    """
    index = read_index(folder)
    for shard in index["shards"]:
        check_digest(folder / shard["file"], shard["sha256"])
    try:
        shards = [np.load(folder / shard["file"], mmap_mode="r", allow_pickle=False) for shard in index["shards"]]
    except (OSError, ValueError) as error:
        raise damaged(folder / "index.json", f"a shard cannot be memory-mapped: {error}") from error
    return FeatureCache(shards, index["dtype"], index["rows"], index["digest"])


def _shift_progress(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _check_disk_space(folder: Path, layout: FeatureLayout, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {layout.describe()}; {needed / 1e9:.3f} GB remain to be written, but only {free / 1e9:.3f} GB "
            "are free. Free disk space, choose another --results, use fewer examples, or a feature_dtype of 16 bits."
        )


def _compute_shard(
    names: Sequence[str],
    layout: FeatureLayout,
    compute: Callable[[Sequence[str]], Tensor],
    kept: Spool,
    progress: Callable[[int], None],
) -> list[str]:
    """Compute the rows of one shard; keep each chunk in its format on disk, and return the digests in order."""
    digests = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        digests.append(kept.add(_as_stored(compute(chunk), replace(layout, count=len(chunk)))))
        progress(start + len(chunk))
    return digests


def _as_stored(values: Tensor, layout: FeatureLayout) -> memoryview:
    """Return the bytes of features in their format on disk."""
    assert values.shape == (layout.count, layout.tokens, layout.width), "compute returns the features of each image"
    typed = values.to(TYPES[layout.dtype]).contiguous()
    flat = typed.view(torch.uint16) if layout.dtype == "bfloat16" else typed
    return flat.numpy().data.cast("B")


def _write_shard(folder: Path, number: int, layout: FeatureLayout, chunks: Iterable[bytes], key: str) -> dict[str, Any]:
    """Write a shard and its entry; the bytes are those of `np.save` with all rows in memory."""
    name = f"features-{number:05d}.npy"
    stored = np.dtype("uint16" if layout.dtype == "bfloat16" else layout.dtype)
    header = {
        "descr": np.lib.format.dtype_to_descr(stored), "fortran_order": False,
        "shape": (layout.count, layout.tokens, layout.width),
    }  # fmt: skip

    def fill(part: Path) -> str:
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.writelines(chunks)
        return sha256_file(part)

    entry = {"file": name, "rows": layout.count, "sha256": replace_file(folder / name, fill), "key": key}
    write_json(folder / f"features-{number:05d}.json", entry)
    return entry


def _read_finished_shard(folder: Path, number: int, key: str) -> dict[str, Any] | None:
    """Return the entry of a shard that is complete and has this content; None otherwise."""
    try:
        entry: dict[str, Any] = read_json(folder / f"features-{number:05d}.json", dict.fromkeys(_ENTRY, (str, int)))
    except UserError:  # absent or damaged: the shard is computed again
        return None
    file = folder / f"features-{number:05d}.npy"
    whole = {"file": file.name, "key": key}.items() <= entry.items() and file.is_file()
    return entry if whole and sha256_file(file) == entry["sha256"] else None


def _remove_stale(folder: Path, count: int) -> None:
    keep = {f"features-{number:05d}" for number in range(count)}
    for path in [*folder.glob("features-*.npy"), *folder.glob("features-*.json")]:
        if path.stem not in keep:
            remove(path)
