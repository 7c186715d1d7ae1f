"""Partition of each task's training examples over its clients (flwr-datasets), and its heterogeneity."""

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilot.config.scenario import Scenario, TaskConfig
from pilot.data.conditions import seen_images_file, write_seen_images
from pilot.data.manifest import check_data
from pilot.data.tables import read_table, write_table
from pilot.errors import UserError
from pilot.io.atomic import remove
from pilot.io.digest import sha256_file
from pilot.io.sealed import write_sealed
from pilot.io.seeding import generator, seed_for

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

PARTS = ("train", "validation", "local_test")
UNLABELLED = "all"
"""Only label of a task that is partitioned without an attribute."""

Example = dict[str, str]
"""Keys: id, image_sha256, label."""
Row = dict[str, Any]


def partition_data(scenario: Scenario, scenario_dir: Path) -> None:
    """Write `partition/assignment.parquet`, then `partition/heterogeneity.json` with the former's digest.

    If clients have their own imaging conditions, also the images as they see them (`pilot.data.conditions`).

    Each training example of a task goes to exactly one client and part, except for the questions that the scenario
    keeps out of training. Labels are counted over the clients' training parts.

    Raises:
        UserError: missing or altered data, a missing column or attribute, more clients than examples, an empty shard,
            or a Dirichlet split that does not reach the minimum size.
    """
    folder = scenario_dir / "partition"
    remove(folder / "heterogeneity.json")
    check_data(scenario_dir / "data")
    rows: list[Row] = []
    labels: dict[str, dict[str, str]] = {}
    for task in scenario.tasks:
        examples = _read_examples(scenario_dir / "data" / task.name / "records.parquet", scenario, task)
        labels[task.name] = {example["id"]: example["label"] for example in examples}
        shards = split_over_clients(scenario, task, examples)
        for client, shard in zip(scenario.all_clients_of(task.name), shards, strict=True):
            rows += _assign(scenario, task, client, shard)
    _write_assignment(folder / "assignment.parquet", rows)
    made = {"assignment": sha256_file(folder / "assignment.parquet")}
    seen = seen_images_file(scenario_dir)
    remove(seen)
    if scenario.conditions is not None:
        write_seen_images(seen, scenario, scenario_dir / "data", rows)
        made |= {"images": sha256_file(seen)}
    write_sealed(folder / "heterogeneity.json", heterogeneity(scenario, rows, labels) | made)


def split_over_clients(scenario: Scenario, task: TaskConfig, examples: Sequence[Example]) -> list[list[Example]]:
    """Split a task's examples into one shard per client, each in the data's order.

    Raises:
        UserError: see `partition_data`.
    """
    where = f"scenario {scenario.name}, task {task.name}"
    if task.num_clients > len(examples):
        raise UserError(
            f"{where}, field num_clients: {task.num_clients} clients are more than the {len(examples)} "
            "training examples. Lower num_clients or raise num_train."
        )
    chosen = _choose(scenario, task, examples)
    for client, shard in zip(scenario.all_clients_of(task.name), chosen, strict=True):
        if len(shard) < scenario.min_client_examples:
            raise UserError(
                f"{where}, client {client}: shard of {len(shard)} examples, expected at least "
                f"{scenario.min_client_examples} (min_client_examples). Raise num_train or lower one of them."
            )
    return [[examples[position] for position in shard] for shard in chosen]


def split_in_parts(scenario: Scenario, task: TaskConfig, client: int, shard: Sequence[Example]) -> list[str]:
    """Return the part of each example of a client's shard; examples of one image share a part.

    Raises:
        UserError: no image is left for training.
    """
    rng = generator("partition", scenario.partition_seed, task.name, client)
    images = sorted({example["image_sha256"] for example in shard})
    order = [images[int(position)] for position in rng.permutation(len(images))]
    num_test = _share(scenario.local_test_fraction, len(images))
    num_held_out = num_test + _share(scenario.validation_fraction, len(images))
    if num_held_out >= len(images):
        raise UserError(
            f"scenario {scenario.name}, task {task.name}, client {client}: {len(images)} images leave an "
            "empty training shard after validation and local test. Raise num_train or lower num_clients."
        )
    part = {image: "train" for image in order}
    part |= dict.fromkeys(order[:num_held_out], "validation") | dict.fromkeys(order[:num_test], "local_test")
    return [part[example["image_sha256"]] for example in shard]


def heterogeneity(scenario: Scenario, rows: Sequence[Row], labels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return sizes, label counts and pairwise Jensen-Shannon distances (base 2) of the clients' training parts.

    Labels are the values of the task's partition attribute and are distinct between tasks, so that clients of different
    tasks are at distance 1. The distance is the square root of the divergence (Endres and Schindelin 2003). Clients
    that take no part in training are marked `unseen`.
    """
    tasks = [task.name for task in (*scenario.client_tasks, *scenario.unseen_tasks)]
    counts: dict[int, Counter[str]] = {client: Counter() for client in range(len(tasks))}
    for row in rows:
        if row["part"] == "train":
            counts[row["client"]][labels[row["task"]][row["id"]]] += 1
    distribution = {}
    for task in scenario.tasks:
        names = sorted(set(labels[task.name].values()))
        of_clients = [[counts[k][name] for name in names] for k in scenario.all_clients_of(task.name)]
        distribution[task.name] = {"labels": names, "counts": of_clients}
    return {
        "clients": [
            {"client": k, "task": tasks[k], "num_examples": sum(counts[k].values())}
            | ({"unseen": True} if k >= len(scenario.client_tasks) else {})
            | ({"conditions": list(scenario.conditions[scenario.condition_of(k)])} if scenario.conditions else {})
            for k in counts
        ],
        "attribute": {task.name: task.partition.attribute or UNLABELLED for task in scenario.tasks},
        "label_distribution": distribution,
        "js_distance": [
            [js_distance(counts[j], counts[k]) if tasks[j] == tasks[k] else 1.0 for k in counts] for j in counts
        ],
    }


def js_distance(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon distance (base 2, 0..1) between two label counts, to six decimals."""
    from scipy.spatial.distance import jensenshannon

    names = sorted(set(first) | set(second))
    p, q = ([counts.get(name, 0) for name in names] for counts in (first, second))
    return 0.0 if first == second else round(float(jensenshannon(p, q, base=2)), 6)


def _read_examples(path: Path, scenario: Scenario, task: TaskConfig) -> list[Example]:
    """Read the training examples, labelled by the task's partition attribute.

    Raises:
        UserError: an attribute is missing, or no example has the value that the scenario keeps out of training.
    """
    attribute = task.partition.attribute
    examples, unseen = [], 0
    for row in read_table(path, ["id", "image_sha256", "attributes", "split"]).to_pylist():
        if row["split"] == "train":
            attributes = json.loads(row["attributes"])
            if scenario.is_unseen_question(task.name, attributes):
                unseen += 1
                continue
            if attribute and attribute not in attributes:
                raise UserError(
                    f"{path}: id {row['id']!r}: attribute {attribute!r} (field partition.attribute of task "
                    f"{task.name}) is missing. Expected one of: {', '.join(sorted(attributes)) or 'none'}."
                )
            label = str(attributes[attribute]) if attribute else UNLABELLED
            examples.append({"id": row["id"], "image_sha256": row["image_sha256"], "label": label})
    held = scenario.unseen.questions if scenario.unseen else None
    if held is not None and held.task == task.name and not unseen:
        raise UserError(
            f"{path}: no training example has {held.attribute} {held.value!r} (scenario {scenario.name}, field "
            "unseen.questions). Name an attribute and a value of the data, which their card lists."
        )
    return examples


def _choose(scenario: Scenario, task: TaskConfig, examples: Sequence[Example]) -> list[list[int]]:
    """Return the positions of each client's examples in ascending order."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from datasets import Dataset

    # Shuffle first: the partitioners cut the data, or each label's data, into contiguous runs.
    rng = generator("partition", scenario.partition_seed, task.name)
    positions = [int(position) for position in rng.permutation(len(examples))]
    partitioner = _partitioner(scenario, task)
    partitioner.dataset = Dataset.from_dict(
        {"position": positions, "label": [examples[position]["label"] for position in positions]}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [sorted(partitioner.load_partition(k)["position"]) for k in range(task.num_clients)]
    except ValueError as error:
        raise UserError(
            f"scenario {scenario.name}, task {task.name}, field partition.alpha: no "
            f"Dirichlet({task.partition.alpha}) split over {task.num_clients} clients gave each "
            f"at least {scenario.min_client_examples} of {len(examples)} examples. Raise partition.alpha or "
            "num_train, lower min_client_examples, or change partition_seed."
        ) from error


def _partitioner(scenario: Scenario, task: TaskConfig) -> "Partitioner":
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    if task.partition.kind == "iid":
        return IidPartitioner(num_partitions=task.num_clients)
    assert task.partition.alpha is not None
    return DirichletPartitioner(
        num_partitions=task.num_clients,
        partition_by="label",
        alpha=float(task.partition.alpha),
        min_partition_size=scenario.min_client_examples,
        seed=seed_for("partition", scenario.partition_seed, task.name),
    )


def _assign(scenario: Scenario, task: TaskConfig, client: int, shard: Sequence[Example]) -> list[Row]:
    parts = split_in_parts(scenario, task, client, shard)
    return [
        {"task": task.name, "id": example["id"], "client": client, "part": part}
        for example, part in zip(shard, parts, strict=True)
    ]


def _write_assignment(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow

    types = {"client": pyarrow.int64()}
    names = ("task", "id", "client", "part")
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in names])
    write_table(path, rows, schema)


def _share(fraction: float, number: int) -> int:
    """Return the rounded share of `number`, at least one for a fraction above 0."""
    return max(1, round(fraction * number)) if fraction > 0 else 0
