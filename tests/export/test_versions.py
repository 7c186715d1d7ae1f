"""An export computes the same with the newest transformers 4 and 5, each in an environment that is thrown away."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.export.write import export_model
from pilot.io.seeding import generator

from ..small import Small

VERSIONS = {
    "4": ("transformers<5", "huggingface_hub<1", "tokenizers>=0.22,<0.23"),
    "5": ("transformers>=5,<6",),
}
"""What is installed over this environment, whose PyTorch stays."""
LOAD = Path(__file__).parent / "stock_load.py"


def loaded(version: str, export: Path, picture: Path, folder: Path) -> dict[str, np.ndarray]:
    """What an export gives with the newest release of a version."""
    packages, output = folder / "packages", folder / "output.npz"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    subprocess.run([*pip, *VERSIONS[version]], check=True)
    environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, LOAD, export, picture, output]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"transformers {version}."), done.stdout
    print(done.stdout, end="")  # pytest -rP shows it
    with np.load(output) as values:
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
