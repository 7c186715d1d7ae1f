"""The public corpus on which tiny-llava is pre-trained: its scenes, and their dense labels.

It shares only the visual vocabulary of the scenarios (sprites, shapes, glyphs): its scenes are drawn from separate
seeds, and its captions (captions.py) contain no question, no instruction and no box in the grounding task's format.
"""

from dataclasses import dataclass

import numpy as np

from pilot.data.scenes import sprites
from pilot.data.scenes.scene import Item, Scene, object_scene, shape_scene, sign_scene
from pilot.io.seeding import generator

KINDS = ("object", "sign", "shape")
KIND_PROBABILITIES = (0.66, 0.19, 0.15)
CLASSES = (
    "nothing", *sprites.OBJECTS, *(f"{colour} {shape}" for shape in sprites.SHAPES for colour in sprites.SHAPE_COLOURS),
    *sprites.GLYPHS,
)  # fmt: skip
CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}


@dataclass(frozen=True)
class PublicScene:
    """A scene of the public corpus, with the random generator for its captions."""

    scene: Scene
    kind: str
    rng: np.random.Generator


def public_scene(seed: int, split: str, index: int) -> PublicScene:
    """Generate scene `index` of the public corpus; `split` (`train` or `held-out`) is part of the seed."""
    rng = generator("public corpus", seed, split, index)
    kind = str(rng.choice(KINDS, p=KIND_PROBABILITIES))
    if kind == "object":
        scene = object_scene(rng, duplicates=0.15)
    else:
        scene = sign_scene(rng) if kind == "sign" else shape_scene(rng)
    return PublicScene(scene, kind, rng)


def class_of(item: Item) -> int:
    """Return the index of an item's dense label."""
    return CLASS_INDEX[f"{item.colour} {item.name}" if item.kind == "shape" else item.name]
