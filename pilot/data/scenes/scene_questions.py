"""Questions about a scene, each with one short answer that follows from the ground truth.

A question type lists all its questions about a scene with their answers; an answer is drawn first and a question
with that answer second, so that yes and no, and the counts, are balanced. Questions about positions keep a margin
(see `relations`). The wording differs from the public corpus on purpose.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from pilot.data.scenes import sprites
from pilot.data.scenes.relations import CORNERS, DIRECTIONS, OPPOSITE, SIDES, closest_to_edge, in_corner, lies, the_one
from pilot.data.scenes.scene import Scene
from pilot.data.scenes.wording import FAMILY_PLURALS, article

Options = list[tuple[str, str]]
"""(question, answer) pairs."""
ATTEMPTS = 400

EXISTENCE = "Is there {thing} in the picture?"
COUNTING = "How many {things} are there?"
BACKGROUND = "What color is the background?"
CORNER = "What is in the {corner} corner?"
EDGE = "Which object is closest to the {side} edge?"
RELATION = "Is the {thing} {direction} the {other}?"
FAMILY = "What kind of thing is the {thing}?"
WRITTEN = "What is written on the sign?"
FIRST = "What is the first character on the sign?"
LAST = "What is the last character on the sign?"
LENGTH = "How many characters are on the sign?"


def existence(scene: Scene) -> Options:
    """List questions on whether a named object is in the scene."""
    present = {item.name for item in scene.objects}
    answers = [(name, "yes" if name in present else "no") for name in sprites.OBJECTS]
    return [(EXISTENCE.format(thing=article(name)), answer) for name, answer in answers]


def counting(scene: Scene) -> Options:
    """List questions on the number of objects, or of objects of a family; repeated objects count each time."""
    families = [item.family for item in scene.objects]
    options = [(COUNTING.format(things=FAMILY_PLURALS[f]), str(families.count(f))) for f in sprites.FAMILIES]
    return [*options, (COUNTING.format(things="objects"), str(len(families)))]


def background(scene: Scene) -> Options:
    """Return the question on the background's colour."""
    return [(BACKGROUND, scene.background)]


def corner(scene: Scene) -> Options:
    """List questions on the object in a corner, for corners with exactly one object."""
    found = [(name, the_one(scene.objects, partial(in_corner, corner=name))) for name in CORNERS]
    return [(CORNER.format(corner=name), item.name) for name, item in found if item]


def edge(scene: Scene) -> Options:
    """List questions on which of two or more objects is closest to a side of the image."""
    if len(scene.objects) < 2:
        return []
    items = scene.objects
    found = [(side, the_one(items, partial(closest_to_edge, items=items, side=side))) for side in SIDES]
    return [(EDGE.format(side=side), item.name) for side, item in found if item]


def relation(scene: Scene) -> Options:
    """List questions on the direction of one object from another; if the answer is no, the opposite one is true."""
    options = []
    for item in scene.objects:
        for other in scene.objects:
            for direction in DIRECTIONS:
                if item is not other and lies(item, direction, other):
                    names = {"thing": item.name, "other": other.name}
                    options.append((RELATION.format(direction=direction, **names), "yes"))
                    options.append((RELATION.format(direction=OPPOSITE[direction], **names), "no"))
    return options


def family(scene: Scene) -> Options:
    """List questions on the family of an object in the image."""
    return [(FAMILY.format(thing=item.name), item.family) for item in scene.objects]


def written(scene: Scene) -> Options:
    """Return the question on all characters of the sign."""
    return [(WRITTEN, scene.sign)]


def first(scene: Scene) -> Options:
    """Return the question on the sign's first character; not for "A", since official normalisation deletes articles."""
    return [(FIRST, scene.sign[0])] if scene.sign[0] != "A" else []


def last(scene: Scene) -> Options:
    """Return the question on the sign's last character; not for "A" (see `first`)."""
    return [(LAST, scene.sign[-1])] if scene.sign[-1] != "A" else []


def length(scene: Scene) -> Options:
    """Return the question on the number of characters on the sign."""
    return [(LENGTH, str(len(scene.sign)))]


QuestionType = Callable[[Scene], Options]
SCENE_TYPES: Mapping[str, tuple[QuestionType, float]] = {
    "existence": (existence, 0.20), "counting": (counting, 0.18), "background": (background, 0.12),
    "corner": (corner, 0.14), "edge": (edge, 0.14), "relation": (relation, 0.12), "family": (family, 0.10),
}  # fmt: skip
"""Question types about object scenes, with their shares."""
SIGN_TYPES: Mapping[str, tuple[QuestionType, float]] = {
    "written": (written, 0.35), "first": (first, 0.25), "last": (last, 0.25), "length": (length, 0.15),
}  # fmt: skip
"""Question types about signs, with their shares."""


def draw(
    rng: np.random.Generator,
    types: Mapping[str, tuple[QuestionType, float]],
    scene_for: Callable[[np.random.Generator, str], Scene],
) -> tuple[Scene, str, str, str]:
    """Draw a scene and one question about it; return (scene, question type, question, answer).

    The type is drawn first, then scenes until one allows a question of that type, so that types keep their shares.
    """
    name = str(rng.choice(list(types), p=[share for _, share in types.values()]))
    for _ in range(ATTEMPTS):
        scene = scene_for(rng, name)
        if options := types[name][0](scene):
            question, answer = pick(rng, options)
            return scene, name, question, answer
    raise RuntimeError(f"no scene allows a question of type {name!r} in {ATTEMPTS} attempts")


def pick(rng: np.random.Generator, options: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Draw an answer, all with equal probability, then a question with this answer."""
    answers = sorted({answer for _, answer in options})
    answer = answers[int(rng.integers(len(answers)))]
    questions = [question for question, other in options if other == answer]
    return questions[int(rng.integers(len(questions)))], answer
