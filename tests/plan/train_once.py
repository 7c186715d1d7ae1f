"""Trains one phase of one client on random weights in a process of its own; prints the memory that it took.

Arguments: a JSON object with `profile` (a profile's fields), `method`, `phase` (its name), `round`, `examples`, `text`
(tokens behind the image) and `answers`. The printed JSON has `bytes`, the growth of resident memory from after a step
of the smallest model to the peak, the last `loss`, and `lead`, the tokens before the image.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from pilot.backbone.feature_files import FeatureCache
from pilot.backbone.from_profile import load_backbone
from pilot.config.profile import Profile
from pilot.federation.client import PhaseTask
from pilot.federation.shards import Example
from pilot.federation.trainer import LocalTrainer, TrainSettings
from pilot.io.seeding import generator
from pilot.methods.base import ClientInfo
from pilot.registry import make_method

TASKS = ("one", "two", "three")
STATUS = Path("/proc/self/status")


def memory(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process, in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


def train(wanted: dict[str, object]) -> dict[str, object]:
    """Load and train two steps (AdamW has its moments from the first on); the peak is counted from after loading."""
    profile = Profile.model_validate(wanted["profile"])
    backbone = load_backbone(profile)
    method = make_method(str(wanted["method"]), {})
    info = ClientInfo(0, TASKS[0], TASKS, 0)
    number = int(str(wanted["round"]))
    phase = next(phase for phase in method.phases(number) if phase.name == wanted["phase"])
    size = profile.architecture
    assert size is not None
    num_examples, text, answers = (int(str(wanted[name])) for name in ("examples", "text", "answers"))
    draw = generator("plan", "features")
    values = draw.standard_normal((num_examples, size.num_image_tokens, size.vision_hidden), dtype=np.float32)
    features = FeatureCache([values], "float32", {}, "")
    ids = list(range(10, 10 + text))
    examples = {0: [Example(row, ids[: text - answers], ids[text - answers :]) for row in range(num_examples)]}
    rates = profile.learning_rates_of(method.name)
    settings = TrainSettings(profile.batch_size, rates, 0.03, 0.0, 1.0, profile.accumulation)
    trainer = LocalTrainer(backbone, method, settings, features, examples)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of loading
    trained = trainer.run(PhaseTask(info, phase, number, 0, 2, {}), {})
    return {"loss": trained.report.losses["total"][-1], "lead": backbone.num_prefix_tokens}


def warm_up(wanted: dict[str, object]) -> None:
    """A step of the smallest model: code that is loaded when first used is not what is measured."""
    tiny = {
        "text_layers": 1, "text_hidden": 8, "text_intermediate": 8, "text_heads": 2, "text_kv_heads": 2,
        "vocabulary": 1304, "vision_layers": 2, "vision_hidden": 8, "vision_intermediate": 8, "vision_heads": 2,
        "image_size": 28, "materialise": False,
    }  # fmt: skip
    profile = wanted["profile"]
    assert isinstance(profile, dict)
    train(wanted | {"profile": profile | {"architecture": tiny, "batch_size": 2}, "examples": 2})


def main(wanted: dict[str, object]) -> None:
    """Load, train, print."""
    warm_up(wanted)
    before = memory("VmRSS")
    found = train(wanted)
    peak = memory("VmHWM") - before
    print(json.dumps({"bytes": peak} | found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
