"""Sizes of the check of a GPU: LLaVA-1.5-7B's, and a small one that takes seconds on a CPU."""

from dataclasses import dataclass
from typing import Any

from pilot.bench.scale.model import full_size_profile, resize_profile
from pilot.bench.scale.random_round import Workload
from pilot.config.load import load_profile
from pilot.config.profile import Profile

SMALL = "llava-random"


@dataclass(frozen=True)
class Sizes:
    """Sizes of a check.

    Attributes:
        profile: the profile whose batch is trained.
        small: the profile whose losses are compared; its weights are drawn on the CPU.
        work: sequences and steps of the rounds.
        matrix: side of the square matrices whose product gives the rate, and how many products are timed.
        new_tokens: tokens of an answer.
        image_batches: batches of images whose features are timed.
        compared: sequences and steps of the rounds whose losses are compared.
    """

    profile: Profile
    small: Profile
    work: Workload = Workload(128, 32, 3)
    matrix: tuple[int, int] = (8192, 20)
    new_tokens: int = 64
    image_batches: int = 4
    compared: Workload = Workload(16, 4, 2)


def full_sizes(device: str | None = None) -> Sizes:
    """Return the sizes with which a GPU is checked: those of the profile `llava`, on its device by default.

    Raises:
        UserError: `device` is no device.
    """
    profile = full_size_profile(load_profile(SMALL))
    return Sizes(resize_profile(profile, {"device": device}), _small())


def quick_sizes(device: str | None = None) -> Sizes:
    """Return sizes that take seconds on a CPU.

    Raises:
        UserError: `device` is no device.
    """
    changes: dict[str, Any] = {"device": device, "max_length": None}
    return Sizes(resize_profile(_small(), changes), _small(), Workload(16, 4, 1), (256, 3), 4, 1, Workload(8, 2, 1))


def _small() -> Profile:
    return resize_profile(load_profile(SMALL), {"materialise": False})
