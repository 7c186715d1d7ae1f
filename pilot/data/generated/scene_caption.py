"""scene-caption: captions of all objects from left to right and of the background, in five wordings per image."""

import numpy as np

from pilot.data import prompts
from pilot.data.record import InstructionRecord
from pilot.data.scenes import wording
from pilot.data.scenes.collect import Draft, Progress, collect
from pilot.data.scenes.scene import Scene, object_scene

WORDINGS = (
    "{objects} on a {colour} background.",
    "A {colour} background with {objects}.",
    "The picture shows {objects} in front of {colour}.",
    "From left to right there is {objects} against {colour}.",
    "On a plain {colour} ground we see {objects}.",
)
ORDER_MARGIN = 4
"""Minimum horizontal distance in pixels between neighbours; below it, "from left to right" is unclear."""
FIVE = len(WORDINGS)


def make(*, num_train: int, num_test: int, seed: int, progress: Progress) -> list[InstructionRecord]:
    """Make the task's records, with attributes `family` and `num_objects`; the answer is one of the five references."""
    return collect(
        "scene-caption",
        "caption",
        draft,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
        progress=progress,
    )


def draft(rng: np.random.Generator) -> Draft:
    """Draw one scene with its captions; `family` is that of the leftmost object."""
    scene = object_scene(rng)
    while not _ordered(scene):
        scene = object_scene(rng)
    references = captions(scene)
    attributes = {"family": scene.objects[0].family, "num_objects": str(len(scene.objects))}
    return Draft(scene, prompts.CAPTION, references[int(rng.integers(FIVE))], references, attributes)


def captions(scene: Scene) -> tuple[str, ...]:
    """Return the five captions of a scene."""
    objects = wording.enumeration([wording.article(item.name) for item in scene.objects])
    texts = (wording.format(objects=objects, colour=scene.background) for wording in WORDINGS)
    return tuple(text[0].upper() + text[1:] for text in texts)


def _ordered(scene: Scene) -> bool:
    across = [item.centre[0] for item in scene.objects]
    return all(b - a >= ORDER_MARGIN for a, b in zip(across, across[1:], strict=False))
