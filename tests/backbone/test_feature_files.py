"""Features on disk: their stated size, shards, what is kept of an interrupted computation, and types."""

import io
import shutil
import weakref
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pilot.backbone.feature_files import CHUNK, FeatureLayout, open_features, write_features
from pilot.config.model import FeatureType
from pilot.errors import UserError
from pilot.io.atomic import read_json

NAMES = [f"{number:02d}" for number in range(7)]
Usage = namedtuple("Usage", "total used free")


class Source:
    """Features that follow from an image's name; remembers what was asked."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fail_after = fail_after

    def __call__(self, names: Sequence[str]) -> Tensor:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += names
        return torch.stack([torch.full((3, 4), int(name) + 1 / 3) for name in names])


def layout(dtype: FeatureType = "float32") -> FeatureLayout:
    """Seven images of 3 x 4 numbers."""
    return FeatureLayout(len(NAMES), 3, 4, dtype)


def test_size_is_the_product() -> None:
    """LLaVA-1.5 of 1,000 images in 16 bits: 1,000 x 576 x 1,024 x 2 bytes = 1,179,648,000."""
    large = FeatureLayout(1000, 576, 1024, "bfloat16")
    assert large.bytes == 1_179_648_000
    assert large.describe() == "vision features: 1000 x 576 x 1024 bfloat16, 1.180 GB on disk"
    assert large.rows_per_shard(256 << 20) == 227  # 268,435,456 / 1,179,648 = 227.6
    assert FeatureLayout(1, 25, 128, "float32").rows_per_shard(256 << 20) == 40 * CHUNK  # 20,971 rounded down to chunks
    assert large.rows_per_shard(10) == 1


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_shards_give_back_what_was_written(tmp_path: Path, dtype: FeatureType, size: int) -> None:
    """Three images of 12 numbers fit into a shard of 40 numbers; seven need three shards."""
    write_features(tmp_path, NAMES, layout(dtype), "x", Source(), shard_bytes=40 * size)
    cache = open_features(tmp_path)
    assert [len(shard) for shard in cache.shards] == [3, 3, 1]
    rows = [cache.row_of[name] for name in ("05", "00", "06", "03")]
    expected = Source()(["05", "00", "06", "03"]).to(getattr(torch, dtype))
    assert cache.take(rows).dtype == expected.dtype and torch.equal(cache.take(rows), expected)
    assert torch.equal(cache.take([4, 3]), expected.new_tensor([[[4 + 1 / 3] * 4] * 3, [[3 + 1 / 3] * 4] * 3]))
    held = [cache.take([row]) for row in range(7) for _ in range(8)]
    assert all(each.data_ptr() % 64 == 0 for each in held), "NumPy's memory is aligned to 16 bytes only"
    total = sum((tmp_path / f"features-{n:05d}.npy").stat().st_size for n in range(3))
    assert total == layout(dtype).bytes + 3 * 128  # NumPy's headers


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_shard_is_what_numpy_saves_and_one_chunk_is_held(tmp_path: Path, dtype: FeatureType) -> None:
    """Three chunks; the features of one are gone when the next ones are asked for."""
    values = torch.randn(2 * CHUNK + 5, 3, 4, generator=torch.Generator().manual_seed(0))
    names, held = [f"{row:04d}" for row in range(len(values))], list[weakref.ref[Tensor]]()

    def compute(chunk: Sequence[str]) -> Tensor:
        assert not [each for each in held if each() is not None]
        made = values[[int(name) for name in chunk]]
        held.append(weakref.ref(made))
        return made

    write_features(tmp_path, names, FeatureLayout(len(names), 3, 4, dtype), "x", compute)
    typed, expected = values.to(getattr(torch, dtype)), io.BytesIO()
    np.save(expected, (typed.view(torch.uint16) if dtype == "bfloat16" else typed).numpy())
    assert (tmp_path / "features-00000.npy").read_bytes() == expected.getvalue() and len(held) == 3


def test_finished_shards_are_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path, NAMES, layout(), "x", Source(fail_after=6), shard_bytes=160)
    with pytest.raises(UserError, match="no vision features here"):
        open_features(tmp_path)
    (tmp_path / "features-00000.npy").write_bytes(b"damaged")
    rest = Source()
    write_features(tmp_path, NAMES, layout(), "x", rest, shard_bytes=160)
    assert rest.asked == ["00", "01", "02", "06"], "shard 1 was whole"
    write_features(tmp_path / "again", NAMES, layout(), "x", Source(), shard_bytes=160)
    assert read_json(tmp_path / "index.json") == read_json(tmp_path / "again/index.json")


@pytest.mark.parametrize("change", ["made_of", "names", "dtype"])
def test_shards_of_other_content_are_made_again(tmp_path: Path, change: str) -> None:
    write_features(tmp_path, NAMES, layout(), "x", Source(), shard_bytes=160)
    names = NAMES[1:] if change == "names" else NAMES
    dtype: FeatureType = "float16" if change == "dtype" else "float32"
    source = Source()
    new = FeatureLayout(len(names), 3, 4, dtype)
    write_features(tmp_path, names, new, "y" if change == "made_of" else "x", source, shard_bytes=160)
    assert source.asked == names
    assert len(list(tmp_path.glob("features-*.npy"))) == len(open_features(tmp_path).shards)


def test_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """336 bytes are needed (7 x 12 x 4), 100 are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1000, 900, 100))
    with pytest.raises(UserError, match=r"7 x 3 x 4 float32, 0.000 GB on disk; .* Free disk space, choose another"):
        write_features(tmp_path, NAMES, layout(), "x", Source())
    assert list(tmp_path.iterdir()) == []


def test_missing_shard_is_named(tmp_path: Path) -> None:
    write_features(tmp_path, NAMES, layout(), "x", Source(), shard_bytes=160)
    (tmp_path / "features-00001.npy").unlink()  # in no scenario's folder, so that no stage is named
    with pytest.raises(UserError, match=r"features-00001.npy: missing\. "):
        open_features(tmp_path)
