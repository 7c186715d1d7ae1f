"""scene-ground: unambiguous referring expressions for objects of composed scenes, with a box as answer."""

import numpy as np

from pilot.data import prompts
from pilot.data.record import InstructionRecord
from pilot.data.scenes import wording
from pilot.data.scenes.collect import Draft, Progress, collect
from pilot.data.scenes.referring import draw
from pilot.data.scenes.scene import Scene, object_scene


def make(*, num_train: int, num_test: int, seed: int, progress: Progress) -> list[InstructionRecord]:
    """Make the task's records, with attributes `family` (of the target) and `expression_type`."""
    return collect(
        "scene-ground", "ground", draft, num_train=num_train, num_test=num_test, seed=seed, progress=progress
    )


def draft(rng: np.random.Generator) -> Draft:
    """Draw one scene with an expression; the box is exact, the answer has two decimals."""
    scene, kind, expression, item = draw(rng, _scene)
    answer = wording.box_text(item.box)
    instruction = prompts.GROUND.format(expression=expression)
    attributes = {"expression_type": kind, "family": item.family}
    return Draft(scene, instruction, answer, (answer,), attributes, item.box)


def _scene(rng: np.random.Generator) -> Scene:
    """Draw a scene that repeats objects with probability 0.25, so that a name is not always unambiguous."""
    return object_scene(rng, duplicates=0.25)
