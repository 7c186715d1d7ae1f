"""Referring expressions for one object of a scene, each certain to refer to that object only."""

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
"""(expression, referent) pairs."""

CORNER = "the {head} in the {corner} corner"
EDGE = "the {head} closest to the {side} edge"
RELATION = "the {head} {direction} the {anchor}"
SIZES = {"the largest {head}": True, "the smallest {head}": False}


def by_name(scene: Scene) -> Options:
    """List expressions such as `the dog` for names that occur once."""
    names = [item.name for item in scene.objects]
    return [(f"the {item.name}", item) for item in scene.objects if names.count(item.name) == 1]


def by_family(scene: Scene) -> Options:
    """List expressions such as `the animal` for families that occur once among several objects."""
    families = [item.family for item in scene.objects]
    several = len(families) > 1
    return [(f"the {i.family}", i) for i in scene.objects if several and families.count(i.family) == 1]


def by_corner(scene: Scene) -> Options:
    """List expressions such as `the object in the top left corner`, for one of at least two."""
    options = []
    for head, items in heads(scene).items():
        for corner in CORNERS:
            if len(items) > 1 and (item := the_one(items, partial(in_corner, corner=corner))):
                options.append((CORNER.format(head=head, corner=corner), item))
    return options


def by_edge(scene: Scene) -> Options:
    """List expressions such as `the food closest to the left edge`, for one of at least two."""
    options = []
    for head, items in heads(scene).items():
        for side in SIDES:
            if len(items) > 1 and (item := the_one(items, partial(closest_to_edge, items=items, side=side))):
                options.append((EDGE.format(head=head, side=side), item))
    return options


def by_size(scene: Scene) -> Options:
    """List expressions such as `the largest object` or `the smallest animal`, for one of at least two."""
    options = []
    for head, items in heads(scene).items():
        for template, largest in SIZES.items():
            relation = partial(extreme_in_size, items=items, largest=largest)
            if len(items) > 1 and (item := the_one(items, relation)):
                options.append((template.format(head=head), item))
    return options


def by_relation(scene: Scene) -> Options:
    """List expressions such as `the animal to the left of the apple`; for repeated names, `the dog above the apple`."""
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
    """Return nouns that may refer to several objects, with these objects: `object`, families, repeated names."""
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
    """Draw a scene and one expression; return (scene, expression type, expression, referent)."""
    name = str(rng.choice(list(TYPES), p=[share for _, share in TYPES.values()]))
    for _ in range(attempts):
        scene = scene_for(rng)
        if options := TYPES[name][0](scene):
            expression, item = options[int(rng.integers(len(options)))]
            return scene, name, expression, item
    raise RuntimeError(f"no scene allows an expression of type {name!r} in {attempts} attempts")
