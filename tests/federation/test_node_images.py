"""Folders of nodes hold the images of their records, which are never in memory together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pilot.data.conditions import scenario_images
from pilot.data.record import InstructionRecord, read_records, write_records
from pilot.federation import nodes
from pilot.federation.node_folder import FILES, POOLED, node_name
from pilot.federation.nodes import prepare_nodes
from pilot.federation.shards import read_part
from pilot.io.spool import Spool

from ..small import Small


def test_images_come_from_a_file(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are written have no image of their own, and the files are those of records that have."""
    written = list[Path]()

    def write(path: Path, records: Sequence[InstructionRecord], images: Mapping[str, bytes]) -> None:
        assert isinstance(images, Spool) and not any(record.image for record in records)
        written.append(path)
        write_records(path, records, images)

    monkeypatch.setattr(nodes, "write_records", write)
    prepare_nodes(small.scenario, small.folder, tmp_path / "nodes")
    clients = [*range(len(small.scenario.client_tasks)), POOLED]
    assert written == [tmp_path / "nodes" / node_name(client) / name for client in clients for name in FILES]
    with scenario_images(small.scenario, small.folder) as images:
        for task in small.scenario.tasks:
            for client, records in read_part(
                small.scenario, small.folder, task, "train", frame="original", images=True
            ).items():
                assert all(record.image == images[record.image_sha256] for record in records)
                write_records(tmp_path / "whole.parquet", records)
                found = tmp_path / "nodes" / node_name(client) / FILES[0]
                assert found.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
                assert [record.image for record in read_records(found)] == [record.image for record in records]
