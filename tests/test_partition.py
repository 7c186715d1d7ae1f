"""Partition: every training example once, the same twice, and clear refusals."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pilot.config.load import load_scenario
from pilot.config.scenario import Scenario
from pilot.data.partition import js_distance, partition_data, split_in_parts
from pilot.errors import UserError
from pilot.io.atomic import read_json, write_json
from pilot.io.digest import sha256_file

LABELS = ("animal", "food", "vehicle", "tool")


def scenario(**changes: Any) -> Scenario:
    """The smoke scenario; `partition`, `num_clients` and `attribute` change its tasks."""
    base = load_scenario("smoke")
    fields = {key: changes.pop(key) for key in ("num_clients",) if key in changes}
    if "partition" in changes:
        fields["partition"] = base.tasks[0].partition.model_copy(update=changes.pop("partition"))
    else:
        fields["partition"] = base.tasks[0].partition.model_copy(update={"attribute": "label"})
    tasks = tuple(task.model_copy(update=fields) for task in base.tasks)
    return base.model_copy(update={"tasks": tasks, **changes})


def write_data(folder: Path, number: int = 60, images: int | None = None) -> None:
    """Records of the three tasks: only the columns that the partition reads."""
    for task in load_scenario("smoke").tasks:
        rows = [
            {
                "id": f"{task.name}-{n}",
                "image_sha256": f"{n % (images or number + 5)}",
                "attributes": json.dumps({"label": LABELS[n % 4]}),
                "split": "train" if n < number else "test",
            }
            for n in range(number + 5)
        ]
        path = folder / "data" / task.name / "records.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    """The data's digests as they are now."""
    digests = {path.parent.name: sha256_file(path) for path in folder.glob("data/*/records.parquet")}
    write_json(folder / "data" / "manifest.json", {"digests": digests})


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The assignment."""
    rows: list[dict[str, Any]] = parquet.read_table(folder / "partition/assignment.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("partition", [{"attribute": "label"}, {"kind": "iid", "alpha": None, "attribute": None}])
def test_every_training_example_once(tmp_path: Path, partition: dict[str, Any]) -> None:
    write_data(tmp_path)
    chosen = scenario(partition=partition)
    partition_data(chosen, tmp_path)
    first = (tmp_path / "partition/assignment.parquet").read_bytes()
    partition_data(chosen, tmp_path)
    assert (tmp_path / "partition/assignment.parquet").read_bytes() == first
    rows = read_rows(tmp_path)
    assert Counter(row["id"] for row in rows) == Counter(f"{task.name}-{n}" for task in chosen.tasks for n in range(60))
    for client, task in enumerate(chosen.client_tasks):
        shard = [row for row in rows if row["client"] == client]
        assert {row["task"] for row in shard} == {task.name} and len(shard) >= 10
        parts = Counter(row["part"] for row in shard)
        assert parts["validation"] == parts["local_test"] == max(1, round(0.1 * len(shard)))
        assert parts["train"] == len(shard) - 2 * parts["validation"]


def test_another_seed_another_split(tmp_path: Path) -> None:
    write_data(tmp_path)
    partition_data(scenario(), tmp_path)
    rows = read_rows(tmp_path)
    partition_data(scenario(partition_seed=1), tmp_path)
    assert read_rows(tmp_path) != rows


def test_heterogeneity_report(tmp_path: Path) -> None:
    write_data(tmp_path)
    partition_data(scenario(), tmp_path)
    report = read_json(tmp_path / "partition/heterogeneity.json")
    train = [row for row in read_rows(tmp_path) if row["part"] == "train"]
    assert [client["client"] for client in report["clients"]] == list(range(6))
    for client in report["clients"]:
        mine = [row for row in train if row["client"] == client["client"]]
        assert client["num_examples"] == len(mine)
        place = [c["client"] for c in report["clients"] if c["task"] == client["task"]].index(client["client"])
        distribution = report["label_distribution"][client["task"]]
        labels = Counter(LABELS[int(row["id"].rsplit("-", 1)[1]) % 4] for row in mine)
        assert distribution["counts"][place] == [labels[name] for name in distribution["labels"]]
    assert report["attribute"] == dict.fromkeys(["scene-vqa", "scene-caption", "scene-ground"], "label")
    distance = report["js_distance"]
    for j in range(6):
        assert distance[j][j] == 0.0
        for k in range(6):
            assert distance[j][k] == distance[k][j]
            assert distance[j][k] == 1.0 if j // 2 != k // 2 else 0 <= distance[j][k] <= 1


def test_js_distance() -> None:
    # P = (1, 0), Q = (1/2, 1/2), M = (3/4, 1/4):
    # KL(P|M) = log2(4/3) = 0.415037; KL(Q|M) = (log2(2/3) + log2(2)) / 2 = 0.207519; mean 0.311278;
    # its root 0.557923.
    assert js_distance({"a": 3}, {"a": 2, "b": 2}) == pytest.approx(0.557923, abs=1e-6)
    assert js_distance({"a": 3}, {"b": 1}) == 1.0
    assert js_distance({"a": 1, "b": 2}, {"a": 2, "b": 4}) == pytest.approx(0, abs=1e-6)
    assert not math.isnan(js_distance({"a": 7, "b": 3}, {"a": 70, "b": 30}))


def test_examples_of_one_image_share_their_part() -> None:
    shard = [{"id": f"{n}", "image_sha256": f"{n % 20}", "label": "x"} for n in range(60)]
    chosen = scenario()
    parts = split_in_parts(chosen, chosen.tasks[0], 0, shard)
    assert Counter(parts) == {"train": 48, "validation": 6, "local_test": 6}
    assert all(len({parts[n] for n in range(60) if n % 20 == image}) == 1 for image in range(20))
    fewer = split_in_parts(chosen, chosen.tasks[0], 0, shard[:59])
    assert fewer == parts[:59]


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        (
            {"num_clients": 9},
            8,
            r"smoke, task scene-vqa, field num_clients: 9 clients are more than the 8 training",
        ),
        (
            {"min_client_examples": 31},
            60,
            r"partition.alpha: no Dirichlet\(0.5\) split .*31 of 60.*partition_seed",
        ),
        (
            {"min_client_examples": 31, "partition": {"kind": "iid", "alpha": None, "attribute": None}},
            60,
            r"client 0: shard of 30 examples, expected at least 31 \(min_client_examples\). Raise num_train",
        ),
        (
            {"num_clients": 30, "min_client_examples": 1, "partition": {"kind": "iid", "alpha": None}},
            60,
            r"client 0: 2 images leave an empty training shard",
        ),
        (
            {"partition": {"attribute": "colour"}},
            60,
            r"attribute 'colour' .*is missing. Expected one of: label",
        ),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], number: int, message: str) -> None:
    if changes.get("partition", {}).get("kind") == "iid":
        changes = changes | {"partition": changes["partition"] | {"attribute": "label"}}
    write_data(tmp_path, number)
    with pytest.raises(UserError, match=message):
        partition_data(scenario(**changes), tmp_path)
    assert not (tmp_path / "partition").exists()


def test_missing_data_and_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data/manifest\.json: missing\. Run `pilot-bench data build"):
        partition_data(scenario(), tmp_path)
    write_data(tmp_path)
    path = tmp_path / "data/scene-vqa/records.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns(["attributes"]), path)
    with pytest.raises(UserError, match=r"scene-vqa/records\.parquet: damaged .*Run `pilot-bench data build"):
        partition_data(scenario(), tmp_path)
    write_manifest(tmp_path)
    with pytest.raises(UserError, match=r"scene-vqa/records\.parquet: column 'attributes' is missing"):
        partition_data(scenario(), tmp_path)
