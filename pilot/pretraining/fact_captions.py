"""Captions for the last phase of pre-training: several short facts about one scene, each decided by the image.

The sentences of captions.py that need more than naming (what is absent, how many, which is furthest, in which
direction) are rare in focused captions, and only half learned after them. A fact has a lead, which names its subject
and which no image decides, and an ending, which the image decides; only endings are learned. Leads have several
wordings, and many are followed by words that are unrelated to the fact, so that a skill is tied neither to one wording
nor to the position right before the ending. Leads begin with a word that is one token. None is a question or an
instruction of a scenario.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pilot.data.scenes import sprites
from pilot.data.scenes.scene import SIZE, Item, Scene
from pilot.pretraining.captions import article, extent, plural
from pilot.pretraining.corpus import PublicScene
from pilot.pretraining.general_text import STATEMENTS

MIN_FACTS, MAX_FACTS = 6, 9
"""Range of the number of facts drawn for a caption; those that a scene does not allow are left out."""
FILLER_SHARE = 0.5
"""Share of facts with unrelated words between lead and ending."""
MAX_FILLER_WORDS = 16
MIN_DISTANCE = 4.0
"""Pixels by which an extreme item must exceed the next, and two items must differ to have a direction."""
MIN_AREA_RATIO = 1.2
"""Minimum ratio of areas between the largest (smallest) item and the next."""
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_FILLER_WORDS = tuple(" ".join(STATEMENTS).lower().replace("?", ".").split())

Fact = tuple[str, str]
"""Lead and ending, both without surrounding spaces."""
Maker = Callable[[Scene, np.random.Generator], Fact | None]


def fact_caption(public: PublicScene) -> list[Fact]:
    """Generate distinct facts about one scene, in random order; at least one."""
    scene, rng = public.scene, public.rng
    makers = MAKERS[public.kind]
    shares = np.array([share for _, share in makers])
    number = int(rng.integers(MIN_FACTS, MAX_FACTS + 1))
    facts = [makers[int(i)][0](scene, rng) for i in rng.choice(len(makers), number, p=shares / shares.sum())]
    distinct = list(dict.fromkeys(fact for fact in facts if fact)) or [_fallback_fact(scene, rng)]
    return [(_append_filler(lead, rng), ending) for lead, ending in distinct]


def _append_filler(lead: str, rng: np.random.Generator) -> str:
    """Append a few words of the general statements to the lead, half of the time."""
    if rng.random() >= FILLER_SHARE:
        return lead
    start, number = int(rng.integers(len(_FILLER_WORDS))), int(rng.integers(1, MAX_FILLER_WORDS + 1))
    return " ".join([lead, *_FILLER_WORDS[start : start + number]])


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _truth(value: bool) -> str:
    return "true." if value else "false."


def _presence(scene: Scene, rng: np.random.Generator) -> Fact:
    present = sorted({item.name for item in scene.objects})
    true = bool(present) and bool(rng.random() < 0.5)
    name = _choose(rng, present if true else [name for name in sprites.OBJECTS if name not in present])
    return _claim(article(name), rng), _truth(true)


def _claim(thing: str, rng: np.random.Generator) -> str:
    """Claim that `thing`, which includes its article, is in the scene."""
    start, _, noun = thing.partition(" ")
    leads = (f"With {thing}:", f"In it {thing}:", f"{start.capitalize()} {noun} seen:", f"The scene has {thing},")
    return _choose(rng, leads)


def _total(scene: Scene, rng: np.random.Generator) -> Fact:
    return _choose(rng, ("In all", "All objects:", "The number of objects is")), f"{len(scene.objects)}."


def _family_count(scene: Scene, rng: np.random.Generator) -> Fact:
    families = [item.family for item in scene.objects]
    family = _choose(rng, families if families and rng.random() < 0.6 else list(sprites.FAMILIES))
    names = plural(family)
    return _choose(rng, (f"In {names}", f"All {names}:", f"The number of {names} is")), f"{families.count(family)}."


def _kind(scene: Scene, rng: np.random.Generator) -> Fact | None:
    if not scene.objects:
        return None
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    leads = (f"The {item.name}, a kind of", f"The kind of the {item.name}:", f"All know the {item.name} as")
    if rng.random() < 0.3:
        return f"The {item.name} shown belongs to", f"{plural(item.family)}."
    return _choose(rng, leads), f"{item.family}."


def _furthest(scene: Scene, rng: np.random.Generator) -> Fact | None:
    side = _choose(rng, ("left", "right", "top", "bottom"))
    axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "top") else -1)
    order = sorted(scene.objects, key=lambda item: sign * item.centre[axis])
    if len(order) < 2 or sign * (order[1].centre[axis] - order[0].centre[axis]) < MIN_DISTANCE:
        return None
    return _name_or_extent(
        _choose(rng, (f"Furthest to the {side}", f"At the {side} edge", f"All along the {side}, first")), order[0], rng
    )


def _quarter(scene: Scene, rng: np.random.Generator) -> Fact | None:
    vertical, horizontal = _choose(rng, ("top", "bottom")), _choose(rng, ("left", "right"))
    inside = [item for item in scene.objects if _in_quarter(item, vertical, horizontal)]
    if len(inside) != 1:
        return None
    place = f"the {vertical} {horizontal}"
    leads = (f"In {place}", f"At {place}", f"The {vertical} {horizontal} part has", f"Seen in {place}")
    return _name_or_extent(_choose(rng, leads), inside[0], rng)


def _in_quarter(item: Item, vertical: str, horizontal: str) -> bool:
    x, y = item.centre
    return (x < SIZE / 2) == (horizontal == "left") and (y < SIZE / 2) == (vertical == "top")


def _size(scene: Scene, rng: np.random.Generator) -> Fact | None:
    largest = bool(rng.random() < 0.5)
    order = sorted(scene.objects, key=lambda item: -item.area if largest else item.area)
    if len(order) < 2 or max(order[0].area, order[1].area) < MIN_AREA_RATIO * min(order[0].area, order[1].area):
        return None
    return _name_or_extent(f"The {'largest' if largest else 'smallest'}", order[0], rng)


def _name_or_extent(lead: str, item: Item, rng: np.random.Generator) -> Fact:
    return (f"{lead}:", f"{item.name}.") if rng.random() < 0.8 else (f"{lead} spans", f"{extent(item)}.")


def _direction(scene: Scene, rng: np.random.Generator) -> Fact | None:
    single = _single(scene)
    if len(single) < 2:
        return None
    item, other = (single[int(i)] for i in rng.choice(len(single), 2, replace=False))
    dx, dy = item.centre[0] - other.centre[0], item.centre[1] - other.centre[1]
    if max(abs(dx), abs(dy)) < MIN_DISTANCE:
        return None
    true = ("left of" if dx < 0 else "right of") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
    a, b = f"the {item.name}", f"the {other.name}"
    if rng.random() < 0.4:
        leads = (f"The {item.name}, seen from {b}, lies", f"From {b} {a} is", f"The {item.name} lies, from {b},")
        return _choose(rng, leads), f"{true.split()[0]}."
    holds = bool(rng.random() < 0.5)
    way = true if holds else OPPOSITE[true]
    leads = (f"With {a} {way} {b}:", f"The {item.name} {way} {b}:", f"In it {a} stands {way} {b},")
    return _choose(rng, leads), _truth(holds)


def _single(scene: Scene) -> list[Item]:
    names = [item.name for item in scene.objects]
    return [item for item in scene.objects if names.count(item.name) == 1]


def _extent(scene: Scene, rng: np.random.Generator) -> Fact | None:
    single = _single(scene)
    if not single:
        return None
    item = single[int(rng.integers(len(single)))]
    return f"The {item.name} spans", f"{extent(item)}."


def _family_extent(scene: Scene, rng: np.random.Generator) -> Fact | None:
    families = [item.family for item in scene.objects]
    alone = [item for item in scene.objects if families.count(item.family) == 1]
    if not alone:
        return None
    item = alone[int(rng.integers(len(alone)))]
    return f"The {item.family} spans", f"{extent(item)}."


def _ground(scene: Scene, rng: np.random.Generator) -> Fact:
    return _choose(rng, ("All on", "The background:")), f"{scene.background}."


def _written(scene: Scene, rng: np.random.Generator) -> Fact:
    return _choose(rng, ("Written:", "It reads")), f"{scene.sign}."


def _mark(scene: Scene, rng: np.random.Generator) -> Fact:
    position = int(rng.integers(len(scene.sign)))
    return f"Mark {position + 1} of {len(scene.sign)}:", f"{scene.sign[position]}."


def _end_mark(scene: Scene, rng: np.random.Generator) -> Fact:
    first = bool(rng.random() < 0.5)
    side, order = ("left", "first") if first else ("right", "last")
    return _choose(rng, (f"Furthest to the {side}:", f"The {order} one:")), f"{scene.sign[0 if first else -1]}."


def _sign_length(scene: Scene, rng: np.random.Generator) -> Fact:
    return _choose(rng, ("In all", "All marks:")), f"{len(scene.sign)}."


def _shape_name(scene: Scene, rng: np.random.Generator) -> Fact:
    return "Drawn:", f"{article(f'{scene.items[0].colour} {scene.items[0].name}')}."


def _shape_colour(scene: Scene, rng: np.random.Generator) -> Fact:
    return f"The {scene.items[0].name} has the color", f"{scene.items[0].colour}."


def _shape_truth(scene: Scene, rng: np.random.Generator) -> Fact:
    names, true = (scene.items[0].name, scene.items[0].colour), bool(rng.random() < 0.5)
    choice = _choose(rng, [o for o in (*sprites.SHAPES, *sprites.SHAPE_COLOURS) if (o in names) == true])
    claim = article(choice if choice in sprites.SHAPES else f"{choice} shape")
    return _claim(claim, rng), _truth(true)


def _fallback_fact(scene: Scene, rng: np.random.Generator) -> Fact:
    return _ground(scene, rng) if scene.background else _shape_name(scene, rng)


MAKERS: dict[str, Sequence[tuple[Maker, float]]] = {
    "object": (
        (_presence, 4), (_total, 1), (_family_count, 2.5), (_kind, 1), (_furthest, 5), (_quarter, 5), (_size, 1.5),
        (_direction, 7), (_extent, 1), (_family_extent, 1), (_ground, 0.7),
    ),
    "sign": ((_written, 4), (_mark, 2), (_end_mark, 3), (_sign_length, 0.7), (_ground, 0.5)),
    "shape": ((_shape_name, 1), (_shape_colour, 1), (_shape_truth, 2)),
}  # fmt: skip
"""Makers of facts about each kind of scene, with their relative frequencies."""
