"""docs/own-data.md, followed to the letter: its examples are in the files, its commands run, its scenario is used."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.io.atomic import read_json

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/own-data.md"
NUM_IMAGES = 66


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def prepare(folder: Path) -> None:
    """Pictures of several sizes and kinds, and files that begin with the page's examples."""
    (folder / "pictures/kitchen").mkdir(parents=True)
    names = [f"kitchen/{number:03d}.jpg" for number in range(1, NUM_IMAGES + 1)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((90 + number, 70), Image.Resampling.BICUBIC)
        image.convert("CMYK" if number == 5 else "RGB").save(folder / "pictures" / name)
    (questions,), (boxes,) = blocks("jsonl"), blocks("csv")
    rows = [
        {"id": f"more{n}", "image": name, "question": "What colour is the cup?", "answer": "red" if n % 2 else "blue"}
        | {"room": "hall" if n % 3 else "kitchen"}
        for n, name in enumerate(names[2:])
    ]
    (folder / "questions.jsonl").write_text(questions + "".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "boxes.csv").open("w", newline="") as file:
        file.write(boxes)
        table = csv.writer(file)
        table.writerows([name, f"the cup {n}", "10, 10, 60, 50", "hall"] for n, name in enumerate(names[1:]))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    prepare(tmp_path)
    (scenario,) = blocks("yaml")
    assert len(scenario.splitlines()) < 30
    (tmp_path / "my.yaml").write_text(scenario)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PILOT_DATASETS", None)
    printed = ""
    for commands in blocks("sh"):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        printed += result.stdout
    assert 'source: imported\n    options: {records: "my-questions"}' in printed
    table = printed[printed.rindex("lm_eval_task") :]
    assert "pilot" in table and "fedavg" in table
    card = read_json(tmp_path / "results/smoke/my/data/my-questions/card.json")
    assert card["splits"]["train"]["num_records"] == 40 and card["intake"]["quarantined"]["num_rows"] == 0
    imported = read_json(tmp_path / "datasets/my-questions/card.json")
    assert imported["intake"]["image_notes"] == {"mode CMYK converted to RGB": 1}
    text = (tmp_path / "results/smoke/my/tables/main.md").read_text()
    assert "my-questions" in text and "| pilot |" in text and "| fedavg |" in text
