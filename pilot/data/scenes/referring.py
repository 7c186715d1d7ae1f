"""Referring expressions for one object of a scene, each certain to mean that object and no other."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from pilot.data.scenes.relations import (
    CORNERS,
    DIRECTIONS,
    SIDES,
    closest_to_edge,
    extreme_in_size,
    in_corner,
    lies,
    the_one,
)
from pilot.data.scenes.scene import Item, Scene

Options = list[tuple[str, Item]]
"""(expression, what it refers to) pairs."""

CORNER = "the {head} in the {corner} corner"
EDGE = "the {head} closest to the {side} edge"
RELATION = "the {head} {direction} the {anchor}"
SIZES = {"the largest {head}": True, "the smallest {head}": False}


def by_name(scene: Scene) -> Options:
    """`the dog`, where there is one."""
    names = [item.name for item in scene.objects]
    return [(f"the {item.name}", item) for item in scene.objects if names.count(item.name) == 1]


def by_family(scene: Scene) -> Options:
    """`the animal`, the only one among several objects."""
    families = [item.family for item in scene.objects]
    several = len(families) > 1
    return [(f"the {i.family}", i) for i in scene.objects if several and families.count(i.family) == 1]


def by_corner(scene: Scene) -> Options:
    """`the object in the top left corner`."""
    options = []
    for head, items in heads(scene).items():
        for corner in CORNERS:
            if len(items) > 1 and (item := the_one(items, partial(in_corner, corner=corner))):
                options.append((CORNER.format(head=head, corner=corner), item))
    return options


def by_edge(scene: Scene) -> Options:
    """`the food closest to the left edge`, of at least two."""
    options = []
    for head, items in heads(scene).items():
        for side in SIDES:
            if len(items) > 1 and (item := the_one(items, partial(closest_to_edge, items=items, side=side))):
                options.append((EDGE.format(head=head, side=side), item))
    return options


def by_size(scene: Scene) -> Options:
    """`the largest object`, `the smallest animal`, of at least two."""
    options = []
    for head, items in heads(scene).items():
        for template, largest in SIZES.items():
            relation = partial(extreme_in_size, items=items, largest=largest)
            if len(items) > 1 and (item := the_one(items, relation)):
                options.append((template.format(head=head), item))
    return options


def by_relation(scene: Scene) -> Options:
    """`the animal to the left of the apple`; of twins also `the dog above the apple`."""
    names = [item.name for item in scene.objects]
    options = []
    for anchor in (item for item in scene.objects if names.count(item.name) == 1):
        for head, items in heads(scene).items():
            others = [item for item in items if item is not anchor]
            for direction in DIRECTIONS:
                if item := the_one(others, partial(lies, direction=direction, anchor=anchor)):
                    phrase = RELATION.format(head=head, direction=direction, anchor=anchor.name)
                    options.append((phrase, item))
    return options


def heads(scene: Scene) -> dict[str, list[Item]]:
    """Nouns that may mean several objects, with these: `object`, families, names that occur twice."""
    found: dict[str, list[Item]] = {"object": list(scene.objects)}
    for item in scene.objects:
        found.setdefault(item.family, []).append(item)
        found.setdefault(item.name, []).append(item)
    names = {item.name for item in scene.objects}
    return {head: items for head, items in found.items() if head not in names or len(items) > 1}


TYPES: Mapping[str, tuple[Callable[[Scene], Options], float]] = {
    "name": (by_name, 0.35), "family": (by_family, 0.15), "corner": (by_corner, 0.12),
    "edge": (by_edge, 0.14), "size": (by_size, 0.10), "relation": (by_relation, 0.14),
}  # fmt: skip
"""Expression types with their shares."""


def draw(
    rng: np.random.Generator, scene_for: Callable[[np.random.Generator], Scene], attempts: int = 400
) -> tuple[Scene, str, str, Item]:
    """A scene and one expression: (scene, expression type, expression, what it refers to)."""
    name = str(rng.choice(list(TYPES), p=[share for _, share in TYPES.values()]))
    for _ in range(attempts):
        scene = scene_for(rng)
        if options := TYPES[name][0](scene):
            expression, item = options[int(rng.integers(len(options)))]
            return scene, name, expression, item
    raise RuntimeError(f"no scene allows an expression of type {name!r} in {attempts} attempts")
