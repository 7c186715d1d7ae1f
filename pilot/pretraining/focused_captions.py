"""Captions for phases 6 and 7 of pre-training: every object of a scene separately, in random order.

The sentences are those of captions.py: names with extents, positions with names, and the list of objects.
"""

import numpy as np

from pilot.data.scenes.scene import Item, Scene
from pilot.pretraining.captions import article, caption, extent, list_objects, percent
from pilot.pretraining.corpus import PublicScene

KIND_PROBABILITIES = (0.2, 0.5, 0.3)
"""Probabilities of starting with the list, with extents, and with positions."""


def focused_caption(public: PublicScene) -> str:
    """Write a focused caption of one scene; scenes without sprites get their usual captions."""
    scene, rng = public.scene, public.rng
    if public.kind != "object":
        return caption(public, 3)
    parts = (_list, _extents, _places)
    first = int(rng.choice(3, p=KIND_PROBABILITIES))
    second = int(rng.choice([i for i in range(3) if i != first]))
    texts = [parts[first](scene, rng), parts[second](scene, rng), caption(public, 1)]
    return " ".join(text for text in texts[: 2 + int(rng.random() < 0.5)] if text)


def _list(scene: Scene, rng: np.random.Generator) -> str:
    return list_objects(scene)


def _extents(scene: Scene, rng: np.random.Generator) -> str:
    names = [item.name for item in scene.objects]
    single = [item for item in scene.objects if names.count(item.name) == 1]
    return " ".join(f"The {item.name} spans {extent(item)}." for item in _shuffled(single, rng))


def _places(scene: Scene, rng: np.random.Generator) -> str:
    return " ".join(_place(item) for item in _shuffled(list(scene.objects), rng))


def _place(item: Item) -> str:
    across, down = (percent(value) for value in item.centre)
    return f"At x{across:02d} y{down:02d}: {article(item.name)}."


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    return [items[int(i)] for i in rng.permutation(len(items))]
