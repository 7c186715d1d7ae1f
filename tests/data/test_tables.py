"""Parquet files that are written and read a part at a time: the bytes of tables in memory, without the memory."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from pilot.bench.scale.measure import measure_cost
from pilot.data import tables
from pilot.data.tables import CHUNK_ROWS, iterate_rows, write_table

LISTS = pyarrow.list_(pyarrow.string())
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("image", pyarrow.binary()),
        ("references", LISTS),
        ("box", pyarrow.list_(pyarrow.float64())),
    ]
)


def rows(number: int, size: int, distinct: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows with images of `size` bytes of noise, lists of one to ten texts, and a box in every third row."""
    rng = np.random.default_rng(0)
    for row in range(number):
        image = rng.bytes(size) if distinct is None else bytes([row % distinct])
        references = [f"answer {rng.integers(50)}" for _ in range(int(rng.integers(1, 11)))]
        yield {
            "id": f"row {row}", "image": image, "references": references,
            "box": None if row % 3 else [0.1, 0.2, float(rng.random()), 1.0],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "size", "distinct"),
    [
        (0, 1, None),
        (1, 50, None),
        (CHUNK_ROWS, 900, None),
        (CHUNK_ROWS + 1, 900, None),
        (2600, 2500, None),
        (2600, 1, 3),
    ],
)
def test_the_bytes_are_those_of_a_table_in_memory(
    number: int, size: int, distinct: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pages of images that end within chunks, images that repeat, and pages that are dropped often."""
    monkeypatch.setattr(tables, "RELEASE_BYTES", 1 << 16)
    expected, given = io.BytesIO(), list(rows(number, size, distinct))
    table = pyarrow.Table.from_pylist(given, schema=SCHEMA)
    parquet.write_table(table, expected, compression="zstd", row_group_size=max(1, number))
    write_table(tmp_path / "rows.parquet", iter(given), SCHEMA)
    assert (tmp_path / "rows.parquet").read_bytes() == expected.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert list(iterate_rows(tmp_path / "rows.parquet", SCHEMA.names)) == given


@pytest.mark.exhaustive
def test_memory_does_not_grow_with_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chunks of images of 32 KiB more: less than a quarter of their bytes more, in writing and in reading."""
    monkeypatch.setattr(tables, "RELEASE_BYTES", 1 << 20)
    pool = pyarrow.default_memory_pool()
    size, peaks = 1 << 15, dict[str, list[int]](write=[], read=[])
    for number in (2 * CHUNK_ROWS, 5 * CHUNK_ROWS):
        path = tmp_path / f"{number}.parquet"
        peaks["write"].append(
            measure_cost(lambda n=number, p=path: write_table(p, rows(n, size), SCHEMA))[1].peak_bytes
        )  # type: ignore[misc]
        held = [pool.bytes_allocated() for _ in iterate_rows(path, ["id", "image"])]
        assert len(held) == number
        peaks["read"].append(max(held))
    for what, (few, many) in peaks.items():
        assert many - few < 3 * CHUNK_ROWS * size / 4, (what, few, many)
