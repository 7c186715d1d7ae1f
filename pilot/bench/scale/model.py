"""`pilot-bench bench llava-random`: memory and speed of a Pilot round of both stages on random weights of any size.

See `pilot.bench.scale.random_round` for the round. Peak memory includes loading.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError

from pilot.backbone.from_profile import load_backbone
from pilot.backbone.sources import RANDOM
from pilot.bench.scale.random_round import RandomRound, Workload, batch_features, memory_mb
from pilot.config.load import load_profile
from pilot.config.model import RandomModel
from pilot.config.profile import Profile
from pilot.errors import UserError
from pilot.provenance import package_versions


def bench_model(profile: Profile, work: Workload, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Load the model, compute image features, train one round; return the report that `--json` prints.

    Raises:
        UserError: the profile requires a GPU and there is none.
    """
    began = time.perf_counter()
    backbone = load_backbone(profile)
    device = backbone.numerics.device
    loaded = time.perf_counter() - began
    features, pictures_per_second = batch_features(backbone, profile)
    after_features = memory_mb(device)
    trained = RandomRound(backbone, profile, work, features)
    trained.run(progress)
    stages = trained.report()
    config = profile.model_dump(mode="json")
    return {
        "architecture": profile.architecture.model_dump() if profile.architecture else None,
        "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "settings": {name: config.get(name, getattr(profile, name)) for name in (
            "precision", "attention", "gradient_checkpointing", "batch_size", "accumulation", "lora",
        )},
        "sequence_length": backbone.num_prefix_tokens + backbone.feature_shape[0] + work.text_tokens,
        "workload": asdict(work),
        "load_seconds": round(loaded, 2),
        "pictures_per_second": round(pictures_per_second, 2),
        "memory_mb_after_features": after_features,
        "peak_memory_mb": max(after_features, *(stage.peak_memory_mb for stage in stages.values())),
        "memory_is": "torch.cuda.max_memory_allocated" if device.type == "cuda" else "largest resident set (ru_maxrss)",
        "stages": {name: asdict(stage) for name, stage in stages.items()},
        "versions": package_versions(),
    }  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{report['parameters'] / 1e6:.1f} M parameters on {report['device']}, sequences of "
        f"{report['sequence_length']} tokens, batch {report['settings']['batch_size']} x "
        f"{report['settings']['accumulation']}, {report['settings']['precision']}",
        f"peak memory {report['peak_memory_mb']:.0f} MB ({report['memory_is']})",
        f"vision tower {report['pictures_per_second']:.2f} images/s",
    ]
    lines += [
        f"{name}: {stage['samples_per_second']:.2f} samples/s, {stage['tokens_per_second']:.0f} tokens/s"
        for name, stage in report["stages"].items()
    ]
    return "\n".join(lines)


def resize_profile(profile: Profile, changes: dict[str, Any]) -> Profile:
    """Return the profile with changed fields, of the profile or of its architecture; None leaves a field unchanged.

    Raises:
        UserError: the profile's backbone is not `llava-random`, or a value is invalid.
    """
    if profile.architecture is None:
        raise UserError(f"profile {profile.name}: field backbone: expected llava-random, got {profile.backbone}.")
    given = {name: value for name, value in changes.items() if value is not None}
    inside = {name: given.pop(name) for name in list(given) if name in RandomModel.model_fields}
    values = profile.model_dump() | {"architecture": profile.architecture.model_dump() | inside}
    try:
        return Profile.model_validate(values | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"bench llava-random: {first['loc']}: {first['msg']}. Correct this option.") from error


def full_size_profile(profile: Profile) -> Profile:
    """Return profile `llava` with random weights of LLaVA-1.5-7B's size, made on the device, with `profile`'s name."""
    llava = load_profile("llava")
    changes = {"name": profile.name, "backbone": RANDOM, "architecture": RandomModel(materialise=False)}
    return llava.model_copy(update=changes)
