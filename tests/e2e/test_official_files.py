"""From official files to a comparison: the shipped scenario over COCO images, cut to sixty, on `llava-random`.

The commands are those of docs/llava.md. The files have the official formats and default places; pictures and answers
are made up, so scores mean nothing.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pilot.io.atomic import read_json, read_jsonl

from ..command_line import call
from ..data.readers.python2 import pickled

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TRAIN, TEST = range(1, 61), range(101, 113)
COLOURS = ("red", "blue", "green")


def write(path: Path, document: Any) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def pictures(root: Path) -> None:
    """One per image id: JPEGs of different sizes."""
    for folder, ids in (("train2014", [*TRAIN, *TEST]), ("val2014", TEST)):
        (root / "coco" / folder).mkdir(parents=True)
        for key in ids:
            pixels = np.random.default_rng(key).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((64 + key % 9, 60), Image.Resampling.BICUBIC)
            image.save(root / "coco" / folder / f"COCO_{folder}_{key:012d}.jpg")


def questions(root: Path) -> None:
    """VQAv2: ten answers each, not all the same."""
    for name, ids in (("train", TRAIN), ("val", TEST)):
        asked, answered = [], []
        for key in ids:
            best, other = COLOURS[key % 3], COLOURS[(key + 1) % 3]
            answers = [
                {"answer": best if n < 8 else other, "answer_confidence": "yes", "answer_id": n} for n in range(10)
            ]
            asked.append({"image_id": key, "question": "What colour is it?", "question_id": 10 * key})
            answered.append(
                {
                    "question_id": 10 * key,
                    "image_id": key,
                    "question_type": "what color",
                    "multiple_choice_answer": best,
                }
                | {"answer_type": ("other", "number")[key % 2], "answers": answers}
            )
        folder = root / "vqav2"
        write(folder / f"v2_OpenEnded_mscoco_{name}2014_questions.json", {"questions": asked})
        write(folder / f"v2_mscoco_{name}2014_annotations.json", {"annotations": answered})


def captions_and_boxes(root: Path) -> None:
    """Karpathy's captions, COCO's instances, and RefCOCO's references as Python 2 pickled them."""
    categories = [
        {"id": 1, "name": "cup", "supercategory": "kitchen"},
        {"id": 2, "name": "dog", "supercategory": "animal"},
    ]
    instances: dict[str, dict[str, Any]] = {}
    images, refs = [], []
    for name, ids, split in (("train2014", TRAIN, "train"), ("val2014", TEST, "test")):
        known = [
            {"id": key, "file_name": f"COCO_{name}_{key:012d}.jpg", "width": 64 + key % 9, "height": 60} for key in ids
        ]
        boxes = [
            {
                "id": 1000 + key,
                "image_id": key,
                "category_id": 1 + key % 2,
                "bbox": [5, 6.5, 30, 20 + key % 7],
                "area": 600,
            }
            for key in ids
        ]
        instances[name] = {"images": known, "annotations": boxes, "categories": categories}
        write(root / f"coco/annotations/instances_{name}.json", instances[name])
        for key in ids:
            sentences = [{"raw": f"A {COLOURS[key % 3]} thing number {key}, seen {n} times."} for n in range(5)]
            images.append({"filepath": name, "filename": f"COCO_{name}_{key:012d}.jpg", "cocoid": key, "split": split})
            images[-1]["sentences"] = sentences
    for key in (*TRAIN, *TEST):
        sentence = {"sent_id": key, "sent": f"thing {key}", "raw": f"Thing {key}", "tokens": ["thing", str(key)]}
        refs.append(
            {"ref_id": key, "ann_id": 1000 + key, "image_id": key, "category_id": 1 + key % 2, "sent_ids": [key]}
        )
        refs[-1] |= {"split": "train" if key in TRAIN else ("testA", "testB")[key % 2], "sentences": [sentence]}
        refs[-1]["file_name"] = f"COCO_train2014_{key:012d}_{1000 + key}.jpg"
    write(root / "karpathy/dataset_coco.json", {"images": images, "dataset": "coco"})
    every = {"annotations": [*instances["train2014"]["annotations"], *instances["val2014"]["annotations"]]}
    known = [image for each in instances.values() for image in each["images"]]
    in_train = [image | {"file_name": image["file_name"].replace("val2014", "train2014")} for image in known]
    every |= {"images": in_train, "categories": categories}
    write(root / "refcoco/instances.json", every)
    (root / "refcoco/refs(unc).p").write_bytes(pickled(refs))


def run(*arguments: str) -> str:
    """One command of the package; its standard output."""
    done = call(*arguments, PILOT_DATASETS="datasets", PILOT_MODELS="models")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.exhaustive
def test_official_files_to_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "datasets"
    for make in (pictures, questions, captions_and_boxes):
        make(root)
    broken = root / "coco/train2014" / f"COCO_train2014_{TRAIN[0]:012d}.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    scenario = yaml.safe_load((ROOT / "pipelines/scenarios/llava-scenario2.yaml").read_text())
    scenario |= {"name": "cut", "seeds": [0], "min_client_examples": 4}
    for task in scenario["tasks"]:
        task |= {"num_train": 54, "num_test": 8, "num_clients": 2, "max_quarantine": 0.05}
        task["partition"] |= {"alpha": 50.0}
    (tmp_path / "cut.yaml").write_text(yaml.safe_dump(scenario))
    options = ("--scenario", "cut.yaml", "--profile", "llava-random")
    run("data", "build", *options)
    folder = tmp_path / "results/llava-random/cut"
    assert set(read_json(folder / "data/manifest.json")["source_files"]["refcoco"]) == {
        "refcoco/refs(unc).p", "refcoco/instances.json",
    }  # fmt: skip
    quarantined = [row for path in folder.glob("data/*/quarantine.jsonl") for row in read_jsonl(path)]
    assert [(row["field"], row["reason"]) for row in quarantined] == [("image", "damaged or truncated (OSError)")] * 3
    run("partition", *options)
    run("backbone", "features", *options)
    for method in ("pilot", "fedavg"):
        run("train", *options, "--method", method, "--seed", "0")
        run("evaluate", str(folder / "runs" / method / "seed0"))
    rows = [json.loads(line) for line in (folder / "runs/pilot/seed0/eval/samples.jsonl").read_text().splitlines()]
    assert {len(row["references"]) for row in rows if row["kind"] == "vqa"} == {10}
    table = run("compare", str(folder), "--format", "markdown")
    assert "vqav2 vqa_official" in table and "exact_match" not in table and "coco-caption CIDEr" in table
    cells = "".join(line for line in table.splitlines() if line.startswith("|"))
    assert "unavailable" not in cells and "missing" not in cells
    assert table.count("Quarantined rows of") == 3
