"""The memory estimate beside what training takes on random weights, at three sizes, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilot.config.load import load_profile
from pilot.config.profile import Profile
from pilot.plan.architecture import architecture_of
from pilot.plan.memory import Settings, training_memory

from .asked import planned

SCRIPT = Path(__file__).with_name("train_once.py")
TOLERANCE = 0.15
TEXT, ANSWERS = 40, 12
VISION = {"vision_layers": 4, "vision_hidden": 512, "vision_intermediate": 1024, "vision_heads": 8}
SMALL = VISION | {
    "text_layers": 4, "text_hidden": 512, "text_intermediate": 1376, "text_heads": 8, "text_kv_heads": 8,
    "vocabulary": 8000, "image_size": 112,
}  # fmt: skip
MEDIUM = VISION | {
    "text_layers": 8, "text_hidden": 768, "text_intermediate": 2064, "text_heads": 12, "text_kv_heads": 12,
    "vocabulary": 8000, "image_size": 168,
}  # fmt: skip
LARGE = VISION | {
    "text_layers": 12, "text_hidden": 1280, "text_intermediate": 3440, "text_heads": 20, "text_kv_heads": 20,
    "vocabulary": 16000, "image_size": 168,
}  # fmt: skip
LLAVA = {"precision": "bfloat16", "attention": "sdpa", "gradient_checkpointing": True, "accumulation": 2}
PLAIN = {"precision": "float32", "attention": "sdpa", "gradient_checkpointing": False, "accumulation": 1}
EAGER = PLAIN | {"attention": "eager"}
CASES = [
    pytest.param(SMALL, LLAVA, "token", ("pilot", "stage2"), 8, id="small-llava", marks=pytest.mark.exhaustive),
    pytest.param(MEDIUM, LLAVA, "token", ("pilot", "stage2"), 6, id="medium-llava", marks=pytest.mark.exhaustive),
    pytest.param(LARGE, LLAVA, "token", ("pilot", "stage2"), 4, id="large-llava", marks=pytest.mark.exhaustive),
    pytest.param(SMALL, EAGER, "weight", ("pilot", "stage1"), 8, id="small-embedded", marks=pytest.mark.exhaustive),
    pytest.param(MEDIUM, PLAIN, "token", ("pilot", "stage2"), 6, id="medium-float32", marks=pytest.mark.exhaustive),
    pytest.param(SMALL, PLAIN, "token", ("flora", "train"), 8, id="offsets", marks=pytest.mark.exhaustive),
    pytest.param(SMALL, PLAIN, "token", ("feddat", "shared"), 8, id="teacher", marks=pytest.mark.exhaustive),
]


def make_profile(size: dict[str, int], how: dict[str, Any], space: str, batch_size: int) -> Profile:
    """`llava-random` of another size; its LoRA has LLaVA's rank."""
    values = load_profile("llava-random").model_dump(mode="json") | how
    values |= {
        "architecture": size | {"materialise": False}, "batch_size": batch_size, "feature_dtype": "float32",
        "lora": {"rank": 64, "alpha": 128, "space": space},
    }  # fmt: skip
    return Profile.model_validate(values)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "how", "space", "trained", "batch_size"), CASES)
def test_estimate(
    size: dict[str, int], how: dict[str, Any], space: str, trained: tuple[str, str], batch_size: int
) -> None:
    """Growth of resident memory, freed blocks of 256 kB and more being given back at once.

    glibc otherwise keeps a few hundred MB of them, which depends on the order in which sizes come.
    """
    method, phase = trained
    profile = make_profile(size, how, space, batch_size)
    wanted = {
        "profile": profile.model_dump(mode="json"), "method": method, "phase": phase, "round": 1,
        "examples": 2 * batch_size, "text": TEXT, "answers": ANSWERS,
    }  # fmt: skip
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), json.dumps(wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    architecture = architecture_of(profile)
    settings = Settings.from_profile(profile, measured["lead"] + architecture.image_tokens + TEXT, ANSWERS)
    phases = planned(method, architecture, profile.lora.rank).phases(1)
    asked = next(each for each in phases if each.name == phase)
    estimate = training_memory(architecture, settings, asked, on_gpu=False).peak
    print(f"measured {measured['bytes'] / 1e6:.0f} MB, estimate {estimate / 1e6:.0f} MB")
    assert estimate == pytest.approx(measured["bytes"], rel=TOLERANCE)
    assert measured["bytes"] > 100e6
