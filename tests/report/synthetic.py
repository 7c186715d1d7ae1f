"""Test fixture: made-up runs in the formats of `results/`. Nothing here was trained or measured.

Every number is an arithmetic function of method, seed, client and example, so that the folder is the same
bytes every time and tests can state what tables must say.
"""

import atexit
import hashlib
import io
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pilot.config.scenario import Condition
from pilot.data.conditions import render
from pilot.data.tables import read_table
from pilot.io.atomic import read_json, write_json, write_jsonl, write_text
from pilot.io.digest import digest_json, sha256_file
from pilot.io.layout import scenario_folder
from pilot.io.sealed import write_sealed
from pilot.report.numbers.files import DIGEST_FIELDS

TASKS: list[dict[str, Any]] = [
    {"name": "scene-vqa", "kind": "vqa", "clients": [0, 1, 2]},
    {"name": "scene-caption", "kind": "caption", "clients": [3, 4, 5]},
    {"name": "scene-ground", "kind": "ground", "clients": [6, 7, 8]},
]
METRICS = {
    "vqa": ["exact_match"],
    "caption": ["CIDEr", "BLEU-4", "SPICE"],
    "ground": ["acc@0.5[original]", "mean_iou[original]", "parse_failure_rate"],
}
SKILL = {
    **{"pilot": 0.74, "fedavg": 0.45, "fedprox": 0.50, "fedmoe": 0.55, "local": 0.72, "central": 0.85},
    **{"untuned": 0.1, "majority": 0.2},
}
ZOO = (
    *("fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "feddyn", "ditto", "fedper", "pfedme", "feddat"),
    *("fedmosaic", "fedit", "ffa_lora", "fedsa_lora", "flora", "flexlora", "fedex_lora", "hetlora", "taskavg"),
    *("clustered", "pilot_exact_ata", "pilot_shared_a", "pilot_task_text", "pilot_momentum"),
)
"""With the core methods and references, 32 methods."""
PERSONAL = ("pilot", "local")
CONDITIONS: list[list[Condition]] = [["low-light"], ["blur"], ["noise"]]
SEEN = {"condition-1": 0.5, "condition-2": 0.8, "condition-3": 0.7}
"""How often models are right on test images under a condition, as a share of the usual."""
REFERENCES = ("untuned", "majority")
NUM_EXAMPLES = 40
BUDGET = {"rounds": 3, "local_steps": 8, "batch_size": 4, "num_clients": 9, "total_steps": 216}


def build_scenario(
    folder: Path, methods: Sequence[str] = tuple(SKILL), seeds: Sequence[int] = (0, 1, 2), protocols: bool = False
) -> Path:
    """Write a fake `results/embedded/scenario2` under `folder` and return it; with `protocols` all evaluations.

    A process makes each kind once, and copies it from then on.
    """
    made = _made(tuple(methods), tuple(seeds), protocols)
    return Path(shutil.copytree(made, folder / "embedded" / "scenario2", dirs_exist_ok=True))


@cache
def _made(methods: tuple[str, ...], seeds: tuple[int, ...], protocols: bool) -> Path:
    scenario = Path(tempfile.mkdtemp()) / "scenario2"
    atexit.register(shutil.rmtree, scenario.parent, ignore_errors=True)
    for task in TASKS:
        _data(scenario, task["name"], task["kind"])
    digests = {path.parent.name: sha256_file(path) for path in scenario.glob("data/*/records.parquet")}
    write_json(scenario / "data" / "manifest.json", {"digests": digests})
    _partition(scenario, protocols)
    for method in methods:
        for seed in (0,) if method in REFERENCES else seeds:
            build_run(scenario / "runs" / method / f"seed{seed}", method, seed, protocols)
    return scenario


def build_run(folder: Path, method: str, seed: int, protocols: bool = False, **config: Any) -> Path:
    """Write one fake run; `config` replaces top-level fields of `config.json`; `protocols` as in `build_scenario`."""
    names = ("partition", "backbone", "features", "source", "scenario")
    data = scenario_folder(folder) / "data" / "manifest.json"
    own = digest_json(read_json(data)["digests"]) if data.is_file() else "d" * 64
    digests = {name: name[0] * 64 for name in names} | {"data": own}
    reference = {"reference": True} if method in REFERENCES else {}
    write_json(
        folder / "config.json",
        {
            **{
                "scenario": "scenario2",
                "profile": "embedded",
                "method": method,
                "seed": seed,
                "tasks": TASKS,
            },
            **{"hyperparameters": {}, "budget": BUDGET, "digests": digests, "one_model": method not in PERSONAL},
            **{"scenario_config": {"targets": 0.9} | ({"conditions": CONDITIONS} if protocols else {})},
            **reference,
            **config,
        },
    )
    _evaluation(folder / "eval", method, seed)
    if protocols:
        _protocols(folder / "eval", method, seed)
    rounds = [] if method in REFERENCES else _rounds(method, seed)
    write_jsonl(folder / "rounds.jsonl", rounds)
    write_json(folder / "ledger.json", _ledger(method, rounds))
    write_json(
        folder / "timing.json",
        {
            "wall_seconds": 60.5 + seed,
            "train_seconds": 50.0,
            "exchange_seconds": 0.25,
            "aggregate_seconds": 1.5,
            "checkpoint_seconds": 0.75,
            "peak_memory_mb": 900.0,
            "client_peak_memory_mb": 880.0,
        },
    )
    write_json(folder / "manifest.json", {"files": {"participation.json": "0" * 64}})
    return folder


def _protocols(folder: Path, method: str, seed: int) -> None:
    """Write every further evaluation of a run."""
    if method not in REFERENCES:
        for number in (1, 2):
            _evaluation(folder / f"round-{number}", method, seed, factor=0.4 + 0.2 * number)
        for name, factor in (("post-fit", 1.05), ("unseen-clients-fit", 0.8)):
            _evaluation(folder / name, method, seed, factor)
    seen = SEEN if method in ("pilot", "fedavg", "untuned") else {}
    for name, factor in (("unseen-clients", 0.6), ("unseen-questions", 0.5), *seen.items()):
        _evaluation(folder / name, method, seed, factor)
    _evaluation(folder / "forgetting", method, seed, factor=0.9 if method in REFERENCES else 0.7)
    if method in PERSONAL:
        _evaluation(folder / "cross-task", method, seed, factor=0.3)


@lru_cache(maxsize=None, typed=True)
def unit(*key: object) -> float:
    """A number in [0, 1) that depends on `key` only."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def skill(method: str) -> float:
    """How often a method is right, about."""
    return SKILL[method] if method in SKILL else round(0.35 + 0.4 * unit("skill", method), 3)


def example_id(task: str, number: int) -> str:
    """Id of a fake test example."""
    return f"{task}-{number:03d}"


def _score(metric: str, method: str, seed: int, task: str, client: int, number: int, factor: float) -> float:
    model = client if method in PERSONAL else -1
    right = unit(task, number) < factor * skill(method) + 0.1 * unit(method, seed, model, task, number) - 0.05
    if metric == "CIDEr":
        return round(4 * factor * skill(method) * unit(method, seed, model, number), 6)
    if metric == "mean_iou[original]":
        return round((0.5 + 0.5 * unit(number, seed)) if right else 0.2 * unit(number), 6)
    if metric == "parse_failure_rate":
        return float(not right and unit("parse", number) < 0.2)
    return float(right)


def _evaluation(folder: Path, method: str, seed: int, factor: float = 1.0) -> None:
    """Write an evaluation of models that are right `factor` times as often as those of the last round."""
    entries, per_example, samples = [], [], []
    skills = [{"name": "public-captions", "kind": "caption", "clients": list(range(9))}]
    skills += [{"name": "public-facts", "kind": "vqa", "clients": list(range(9))}]
    for place, task in enumerate(skills if folder.name == "forgetting" else TASKS):
        protocols, clients = ("personalised", "local"), task["clients"]
        if folder.name == "cross-task":
            protocols, clients = ("cross-task",), [client for client in range(9) if client not in clients]
        elif folder.name == "forgetting":
            protocols = ("personalised",)
        elif folder.name == "unseen-questions":
            protocols, clients = ("personalised",), clients if place == 0 else []
        elif folder.name.startswith("unseen-clients"):
            clients = [9 + place]
        for protocol in protocols:
            for client in clients:
                ids = [example_id(task["name"], n) for n in range(NUM_EXAMPLES)]
                ids = ids if protocol != "local" else [f"{id}-of-{client}" for id in ids[:10]]
                for metric in METRICS[task["kind"]]:
                    scores = [_score(metric, method, seed, task["name"], client, n, factor) for n in range(len(ids))]
                    start = {"task": task["name"], "protocol": protocol, "client": client, "metric": metric}
                    lost = metric == "SPICE"
                    value = None if lost else round(sum(scores) / len(scores) * (0.9 if "BLEU" in metric else 1), 9)
                    status = "unavailable" if lost else "ok"
                    reason = "no CoreNLP jars" if lost else ""
                    more = {"kind": task["kind"], "value": value, "status": status, "reason": reason}
                    entries.append({**start, **more, "num_examples": len(ids)})
                    if not lost:
                        pairs = zip(ids, scores, strict=True)
                        per_example += [{**start, "id": id, "value": value} for id, value in pairs]
        samples += [] if folder.name == "cross-task" else _samples(task, method, seed)
    write_jsonl(folder / "per_example.jsonl", per_example)
    write_jsonl(folder / "samples.jsonl", samples)
    write_metrics(folder, {"test_digest": "t" * 64, "entries": entries})


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write the `metrics.json` of an evaluation with the digests of the files that lie beside it."""
    digests = {field: sha256_file(folder / name) for field, name in DIGEST_FIELDS.items()}
    write_json(folder / "metrics.json", metrics | digests)


def reseal(run: Path) -> None:
    """Make files of `eval/` that were edited those of the metrics beside them."""
    write_metrics(run / "eval", read_json(run / "eval" / "metrics.json"))


def _samples(task: dict[str, Any], method: str, seed: int) -> list[dict[str, Any]]:
    groups = [[client] for client in task["clients"]] if method in PERSONAL else [task["clients"]]
    rows = []
    for clients in groups:
        for number in range(NUM_EXAMPLES):
            references, box = _truth(task["kind"], number)
            prediction = references[0] if unit(method, seed, number) < skill(method) else "a red boat"
            if box:
                shift = 0.4 * (1 - skill(method)) * unit(method, seed, number)
                prediction = "[" + ", ".join(f"{min(1.0, value + shift):.2f}" for value in box) + "]"
            row = {"task": task["name"], "kind": task["kind"], "protocol": "personalised", "clients": clients}
            more = {
                "id": example_id(task["name"], number),
                "prediction": prediction,
                "references": references,
            }
            rows.append({**row, **more, "box": box, "attributes": {}})
    return rows


def _truth(kind: str, number: int) -> tuple[list[str], list[float] | None]:
    left, top = round(0.5 * unit("x", number), 2), round(0.5 * unit("y", number), 2)
    box = [left, top, round(left + 0.35, 2), round(top + 0.35, 2)]
    if kind == "ground":
        return [str(box)], box
    if kind == "caption":
        return [f"a tiny violin beside {n} green apples on a pale blue background" for n in range(2, 7)], None
    return [("yes", "no", "three", "violin")[number % 4]], None


def _data(scenario: Path, task: str, kind: str) -> None:
    import pandas
    from PIL import Image, ImageDraw

    questions = {
        "vqa": "What is to the left of the green apple? Answer the question using a single word or phrase.",
        "caption": "Describe the picture in one sentence.",
        "ground": "Please provide the bounding box coordinate of the region this sentence describes: "
        "the large violin above the apple.",
    }
    rows = []
    for number in range(NUM_EXAMPLES):
        references, box = _truth(kind, number)
        image = Image.new("RGB", (64, 64), (int(120 * unit("r", number)) + 100, 160, 190))
        corners = [64 * value for value in box or (0.2, 0.2, 0.6, 0.7)]
        ImageDraw.Draw(image).ellipse(corners, fill=(200, int(255 * unit("g", number)), 40))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        start = {
            "id": example_id(task, number),
            "task": kind,
            "source": "fixture",
            "image": buffer.getvalue(),
        }
        more = {
            "image_sha256": digest,
            "instruction": questions[kind],
            "answer": references[0],
        }
        rows.append({**start, **more, "references": references, "box": box, "attributes": "{}", "split": "test"})
    path = scenario / "data" / task / "records.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(rows).to_parquet(path, index=False)


def _partition(scenario: Path, conditions: bool) -> None:
    kinds = {"scene-vqa": ["existence", "counting", "background", "what", "relation"]}
    kinds |= {
        "scene-caption": ["animal", "food", "vehicle", "tool"],
        "scene-ground": ["animal", "food", "vehicle", "tool"],
    }
    clients, distribution, rows = [], {}, []
    for task in TASKS:
        labels = kinds[task["name"]]
        counts = [[int(20 + 200 * unit(label, client) ** 3) for label in labels] for client in task["clients"]]
        distribution[task["name"]] = {"labels": labels, "counts": counts}
        for client, row in zip(task["clients"], counts, strict=True):
            seen = {"conditions": CONDITIONS[client % len(CONDITIONS)]} if conditions else {}
            clients.append({"client": client, "task": task["name"], "num_examples": sum(row)} | seen)
            rows.append((task["name"], [count / sum(row) for count in row]))
    distances = [[_js(a, b) if s == t else 1.0 for t, b in rows] for s, a in rows]
    attribute = {"scene-vqa": "question_type", "scene-caption": "family", "scene-ground": "family"}
    write_sealed(
        scenario / "partition" / "heterogeneity.json",
        {
            "clients": clients,
            "attribute": attribute,
            "label_distribution": distribution,
            "js_distance": distances,
        },
    )
    write_text(scenario / "partition" / "README.txt", "test fixture\n")
    if conditions:
        _seen_images(scenario)


def _seen_images(scenario: Path) -> None:
    """Write every test image under each condition."""
    import pandas

    rows = []
    for task in TASKS:
        for record in read_table(scenario / "data" / task["name"] / "records.parquet", ["id", "image"]).to_pylist():
            for place, names in enumerate(CONDITIONS):
                image = render(record["image"], names, np.random.default_rng(place))
                seen = {"condition": place, "image": image, "image_sha256": hashlib.sha256(image).hexdigest()}
                rows.append({"task": task["name"], "id": record["id"], **seen})
    pandas.DataFrame(rows).to_parquet(scenario / "partition" / "images.parquet")


def _js(p: Sequence[float], q: Sequence[float]) -> float:
    def part(a: float, b: float) -> float:
        return a * math.log2(2 * a / (a + b))

    return round(math.sqrt(sum(part(a, b) + part(b, a) for a, b in zip(p, q, strict=True)) / 2), 4)


def _phases(method: str) -> list[tuple[int, str, int]]:
    if method == "pilot":
        return [(1, "stage1", 4), (1, "stage2", 4), (2, "stage2", 8), (3, "stage2", 8)]
    return [(number, "train", 8) for number in (1, 2, 3)]


def _rounds(method: str, seed: int) -> list[dict[str, Any]]:
    lines, done = [], 0
    for number, phase, steps in _phases(method):
        clients = []
        for task in TASKS:
            for client in task["clients"]:
                losses = [
                    3 * math.exp(-0.12 * (done + s)) + 0.3 * unit(method, seed, client, done + s) for s in range(steps)
                ]
                row = {"client": client, "task": task["name"], "num_examples": 400, "steps": steps}
                row |= {"losses": {"cross_entropy": losses, "total": [loss + 0.1 for loss in losses]}}
                row |= {"diagnostics": _diagnostics(method, phase, task["name"], seed, client)}
                clients.append(row)
        aggregation = _distances(seed, number) if method == "pilot" else {}
        start = {"round": number, "phase": phase, "clients": clients, "excluded": [], "skipped": False}
        drift = {"drift": round(0.1 * number + 0.01 * seed + (0.5 if phase == "stage1" else 0), 6)}
        lines.append({**start, "aggregation": aggregation, **({} if method in ("local", "central") else drift)})
        done += steps
    return lines


def _diagnostics(method: str, phase: str, task: str, seed: int, client: int) -> dict[str, Any]:
    if method != "pilot" or phase != "stage2":
        return {}
    raw = [(2.0 if other["name"] == task else 0.6) + 0.3 * unit(seed, client, other["name"]) for other in TASKS]
    return {"router_probabilities": [value / sum(raw) for value in raw]}


def _distances(seed: int, number: int) -> dict[str, Any]:
    same = [[0.0 if i == j else (0.8 if i // 3 == j // 3 else 1.6) for j in range(9)] for i in range(9)]
    table = [
        [round(v + 0.3 * unit(seed, number, min(i, j), max(i, j)), 4) if v else 0.0 for j, v in enumerate(row)]
        for i, row in enumerate(same)
    ]
    chosen = {str(i): sorted(sorted((j for j in range(9) if j != i), key=lambda j: table[i][j])[:3]) for i in range(9)}
    return {"clients": list(range(9)), "distances": table, "neighbours": chosen, "weights": {}}


def _ledger(method: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    exchanged = method not in ("local", "central", *REFERENCES)
    sizes = {"text_adapter": 400_000, "connector": 100_000} | ({"task_adapter": 100_000} if method == "pilot" else {})
    messages = [
        {"round": line["round"], "phase": line["phase"], "client": client, "direction": way, "groups": sizes}
        for line in (rounds if exchanged else [])
        for client in range(9)
        for way in ("up", "down")
    ]
    total = sum(sizes.values()) * len(messages) // 2
    trained = 0 if method in REFERENCES else 125_000
    return {
        **{"parameters": {"text_adapter": 100_000, "connector": 25_000}, "messages": messages},
        **{"trainable_parameters": trained, "activated_parameters": 1_000_000, "training_tokens": 5_000},
        **{"optimiser_steps": 0 if method in REFERENCES else 216, "training_flops": 10**12 if trained else 0},
        "totals": {"bytes_up": total, "bytes_down": total},
    }
