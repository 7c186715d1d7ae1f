"""An export computes the same with the newest transformers 4 and 5, each in an environment that is thrown away."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.backbone.families.table import family_of
from pilot.backbone.random_model import chat_tokenizer
from pilot.export.processor import save_own_processor
from pilot.export.write import export_model
from pilot.io.seeding import generator

from ..backbone.test_families import RANDOM, size
from ..small import Small

VERSIONS = {
    "4": ("transformers<5", "huggingface_hub<1", "tokenizers>=0.22,<0.23"),
    "5": ("transformers>=5,<6",),
}
"""What is installed over this environment, whose PyTorch stays."""
LOAD = Path(__file__).parent / "stock_load.py"


TOKENS = """
import sys, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
print(f"transformers {transformers.__version__}:", sorted(tokenizer(sys.argv[2]).items()))
"""
"""Prints what a tokenizer gives for a text."""


def run_with(version: str, folder: Path, *command: str | Path) -> str:
    """What a Python command says with the newest release of a version, which is installed below `folder` first."""
    packages = folder / "packages"
    if not packages.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        subprocess.run([*pip, *VERSIONS[version]], check=True)
    environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"transformers {version}."), done.stdout
    print(done.stdout, end="")  # pytest -rP shows it
    return done.stdout


def loaded(version: str, export: Path, picture: Path, folder: Path) -> dict[str, np.ndarray]:
    """What an export gives with the newest release of a version."""
    run_with(version, folder, LOAD, export, picture, folder / "output.npz")
    with np.load(folder / "output.npz") as values:
        return dict(values)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_newest_transformers_4_and_5_agree(small: Small, tmp_path: Path) -> None:
    export = export_model(small.run("fedavg"), 1, tmp_path / "model")
    pixels = generator("picture", "versions").integers(0, 256, (60, 110, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    found = {}
    for version in VERSIONS:
        (tmp_path / version).mkdir()
        found[version] = loaded(version, export, tmp_path / "picture.png", tmp_path / version)
    assert np.abs(found["5"]["logits"]).max() > 1
    for name in ("ids", "pixels", "answer"):
        assert np.array_equal(found["4"][name], found["5"][name]), name
    assert np.allclose(found["4"]["logits"], found["5"]["logits"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_tokenizers_of_every_family_agree(tmp_path: Path) -> None:
    """Their models are loaded with this environment's version only."""
    text = "<|im_start|>user\n<image> Is there a dog?<|im_end|>"
    for version in VERSIONS:
        (tmp_path / version).mkdir()
    for family in RANDOM:
        backbone = type("Stub", (), {"family": family_of(family), "tokenizer": chat_tokenizer(family)})()
        backbone.processor = family_of(family).random_processor(size(family))
        save_own_processor(backbone, tmp_path / family)
        said = [run_with(version, tmp_path / version, "-c", TOKENS, tmp_path / family, text) for version in VERSIONS]
        found = {each.split(":", 1)[1] for each in said}
        assert len(found) == 1 and "token_type_ids" not in found.pop()
