"""Captions for the last phase of pre-training: several short facts about one scene, each decided by looking.

The sentences of captions.py that need more than naming (what is absent, how many, which is furthest, what lies where)
are rare in focused captions and were half forgotten after them. Here a caption is four to six of them, and the same
kind comes more than once, about different things. None is a question or an instruction of a scenario.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pilot.backbone.captions import article, extent, plural
from pilot.backbone.corpus import PublicScene
from pilot.data import sprites
from pilot.data.scene import SIZE, Item, Scene

NUM_FACTS = (4, 5, 6)
LEAST_DIFFERENCE = 4.0
"""Pixels by which an extreme thing must exceed the next."""
LEAST_RATIO = 1.2
"""Of the area of the largest (smallest) thing to the next."""

Fact = Callable[[Scene, np.random.Generator], str]


def fact_caption(public: PublicScene) -> str:
    """Facts about one scene, in random order."""
    scene, rng = public.scene, public.rng
    facts, shares = zip(
        *{"object": _OBJECT_FACTS, "sign": _SIGN_FACTS, "shape": _SHAPE_FACTS}[public.kind], strict=True
    )
    count = int(rng.choice(NUM_FACTS))
    chosen = rng.choice(len(facts), count, p=np.array(shares) / sum(shares))
    sentences = [facts[int(i)](scene, rng) for i in chosen]
    return " ".join(dict.fromkeys(sentence for sentence in sentences if sentence)) or _ground(scene, rng)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _single(scene: Scene) -> list[Item]:
    names = [item.name for item in scene.objects]
    return [item for item in scene.objects if names.count(item.name) == 1]


def _presence(scene: Scene, rng: np.random.Generator) -> str:
    present = sorted({item.name for item in scene.objects})
    true = bool(present) and bool(rng.random() < 0.5)
    name = _choose(rng, present if true else [name for name in sprites.OBJECTS if name not in present])
    return f"With {article(name)}: {_truth(true)}."


def _total(scene: Scene, rng: np.random.Generator) -> str:
    return f"In all {len(scene.objects)}."


def _family_count(scene: Scene, rng: np.random.Generator) -> str:
    families = [item.family for item in scene.objects]
    family = _choose(rng, families if families and rng.random() < 0.7 else list(sprites.FAMILIES))
    return f"In {plural(family)} {families.count(family)}."


def _kind(scene: Scene, rng: np.random.Generator) -> str:
    if not scene.objects:
        return ""
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    return f"The {item.name} shown belongs to {plural(item.family)}."


def _furthest(scene: Scene, rng: np.random.Generator) -> str:
    side = _choose(rng, ("left", "right", "top", "bottom"))
    axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "top") else -1)
    order = sorted(scene.objects, key=lambda item: sign * item.centre[axis])
    if len(order) < 2 or sign * (order[1].centre[axis] - order[0].centre[axis]) < LEAST_DIFFERENCE:
        return ""
    return f"Furthest to the {side}: {_named_or_placed(order[0], rng)}."


def _quarter(scene: Scene, rng: np.random.Generator) -> str:
    vertical, horizontal = _choose(rng, ("top", "bottom")), _choose(rng, ("left", "right"))
    inside = [item for item in scene.objects if _in_quarter(item, vertical, horizontal)]
    if len(inside) == 1:
        return f"To the {vertical} {horizontal}: {_named_or_placed(inside[0], rng)}."
    return "" if inside or rng.random() < 0.7 else f"To the {vertical} {horizontal}: nothing."


def _in_quarter(item: Item, vertical: str, horizontal: str) -> bool:
    x, y = item.centre
    return (x < SIZE / 2) == (horizontal == "left") and (y < SIZE / 2) == (vertical == "top")


def _size(scene: Scene, rng: np.random.Generator) -> str:
    largest = bool(rng.random() < 0.5)
    order = sorted(scene.objects, key=lambda item: -item.area if largest else item.area)
    if len(order) < 2 or max(order[0].area, order[1].area) < LEAST_RATIO * min(order[0].area, order[1].area):
        return ""
    return f"The {'largest' if largest else 'smallest'}: {_named_or_placed(order[0], rng)}."


def _named_or_placed(item: Item, rng: np.random.Generator) -> str:
    return item.name if rng.random() < 0.6 else extent(item)


def _direction(scene: Scene, rng: np.random.Generator) -> str:
    pair = _pair(scene, rng)
    if pair is None:
        return ""
    item, other = pair
    dx, dy = item.centre[0] - other.centre[0], item.centre[1] - other.centre[1]
    across = abs(dx) > abs(dy)
    true = ("left of" if dx < 0 else "right of") if across else ("above" if dy < 0 else "below")
    if rng.random() < 0.4:
        return f"The {item.name} lies {true} the {other.name}."
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[true]
    holds = bool(rng.random() < 0.5)
    return f"With the {item.name} {true if holds else opposite} the {other.name}: {_truth(holds)}."


def _pair(scene: Scene, rng: np.random.Generator) -> tuple[Item, Item] | None:
    single = _single(scene)
    if len(single) < 2:
        return None
    first, second = rng.choice(len(single), 2, replace=False)
    return single[int(first)], single[int(second)]


def _extent(scene: Scene, rng: np.random.Generator) -> str:
    single = _single(scene)
    if not single:
        return ""
    item = single[int(rng.integers(len(single)))]
    return f"The {item.name} spans {extent(item)}."


def _family_extent(scene: Scene, rng: np.random.Generator) -> str:
    families = [item.family for item in scene.objects]
    alone = [item for item in scene.objects if families.count(item.family) == 1]
    if not alone:
        return ""
    item = alone[int(rng.integers(len(alone)))]
    return f"The {item.family} spans {extent(item)}."


def _ground(scene: Scene, rng: np.random.Generator) -> str:
    return f"All on {scene.background}."


def _written(scene: Scene, rng: np.random.Generator) -> str:
    return f"Written: {scene.sign}."


def _mark(scene: Scene, rng: np.random.Generator) -> str:
    position = int(rng.integers(len(scene.sign)))
    return f"Mark {position + 1} of {len(scene.sign)}: {scene.sign[position]}."


def _last_mark(scene: Scene, rng: np.random.Generator) -> str:
    return f"Furthest to the right: {scene.sign[-1]}."


def _first_mark(scene: Scene, rng: np.random.Generator) -> str:
    return f"Furthest to the left: {scene.sign[0]}."


def _sign_length(scene: Scene, rng: np.random.Generator) -> str:
    return f"In all {len(scene.sign)}."


def _shape_name(scene: Scene, rng: np.random.Generator) -> str:
    return f"Drawn: {article(f'{scene.items[0].colour} {scene.items[0].name}')}."


def _shape_colour(scene: Scene, rng: np.random.Generator) -> str:
    return f"The {scene.items[0].name} has the color {scene.items[0].colour}."


def _shape_truth(scene: Scene, rng: np.random.Generator) -> str:
    names, true = (scene.items[0].name, scene.items[0].colour), bool(rng.random() < 0.5)
    choice = _choose(rng, [o for o in (*sprites.SHAPES, *sprites.SHAPE_COLOURS) if (o in names) == true])
    claim = article(choice if choice in sprites.SHAPES else f"{choice} shape")
    return f"With {claim}: {_truth(true)}."


_OBJECT_FACTS: Sequence[tuple[Fact, float]] = (
    (_presence, 4), (_total, 1), (_family_count, 3), (_kind, 1.5), (_furthest, 3), (_quarter, 3), (_size, 1.5),
    (_direction, 3), (_extent, 3), (_family_extent, 1.5), (_ground, 0.5),
)  # fmt: skip
_SIGN_FACTS: Sequence[tuple[Fact, float]] = (
    (_written, 4), (_mark, 2), (_first_mark, 1), (_last_mark, 1), (_sign_length, 1), (_ground, 0.5),
)  # fmt: skip
_SHAPE_FACTS: Sequence[tuple[Fact, float]] = ((_shape_name, 1), (_shape_colour, 1), (_shape_truth, 2))
