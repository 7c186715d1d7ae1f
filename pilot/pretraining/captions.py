"""Captions of the public corpus: generic sentences about scenes, positions as whole percentages of the side."""

import numpy as np

from pilot.data.scenes import sprites
from pilot.data.scenes.scene import SIZE, Item, Scene
from pilot.pretraining.corpus import PublicScene

NUMBER_WORDS = ("no", "one", "two", "three", "four")


def percent(pixel: float) -> int:
    """Convert a pixel coordinate to whole percent of the image's side, at most 99."""
    return min(99, round(100 * pixel / SIZE))


def extent(item: Item) -> str:
    """Format an item's box as in the public corpus: `x12-40 y55-90`."""
    x1, y1, x2, y2 = (percent(edge) for edge in item.box)
    return f"x{x1:02d}-{x2:02d} y{y1:02d}-{y2:02d}"


def caption(public: PublicScene, num_sentences: int) -> str:
    """Write several sentences about one scene, of different kinds, in random order."""
    scene, rng = public.scene, public.rng
    makers = {"object": _OBJECT_SENTENCES, "sign": _SIGN_SENTENCES, "shape": _SHAPE_SENTENCES}[public.kind]
    order = [makers[int(i)] for i in rng.permutation(len(makers))]
    sentences = [sentence for maker in order if (sentence := maker(scene, rng))]
    return " ".join(sentences[:num_sentences])


def list_objects(scene: Scene) -> str:
    """Write `Seen: a dog, an apple.`, from left to right; repeated objects are repeated."""
    return f"Seen: {', '.join(article(item.name) for item in scene.objects)}."


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return the noun's plural."""
    irregular = {"fish": "fish", "cheese": "cheeses", "corn": "corn", "food": "foods", "strawberry": "strawberries"}
    if noun in irregular:
        return irregular[noun]
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def _pick(scene: Scene, rng: np.random.Generator) -> Item | None:
    """Pick an object whose name occurs once; return None if there is none."""
    names = [item.name for item in scene.objects]
    single = [item for item in scene.objects if names.count(item.name) == 1]
    return single[int(rng.integers(len(single)))] if single else None


def _seen(scene: Scene, rng: np.random.Generator) -> str:
    return list_objects(scene)


def _extents(scene: Scene, rng: np.random.Generator) -> str:
    item = _pick(scene, rng)
    return f"The {item.name} spans {extent(item)}." if item else ""


def _second_extents(scene: Scene, rng: np.random.Generator) -> str:
    return _extents(scene, rng)


def _spot(scene: Scene, rng: np.random.Generator) -> str:
    if not scene.objects:
        return ""
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    return f"At x{percent(item.centre[0]):02d} y{percent(item.centre[1]):02d}: {article(item.name)}."


def _relation(scene: Scene, rng: np.random.Generator) -> str:
    item, other = _pick(scene, rng), _pick(scene, rng)
    if item is None or other is None or item is other:
        return ""
    dx, dy = item.centre[0] - other.centre[0], item.centre[1] - other.centre[1]
    if abs(dx) > abs(dy):
        return f"The {item.name} lies {'left' if dx < 0 else 'right'} of the {other.name}."
    return f"The {item.name} lies {'above' if dy < 0 else 'below'} the {other.name}."


def _extreme(scene: Scene, rng: np.random.Generator) -> str:
    if len(scene.objects) < 2:
        return ""
    side = str(rng.choice(["left", "right", "top", "bottom"]))
    axis, sign = (0 if side in ("left", "right") else 1), (1 if side in ("left", "top") else -1)
    item = min(scene.objects, key=lambda candidate: sign * candidate.centre[axis])
    return f"Furthest to the {side}: {item.name}."


def _number(scene: Scene, rng: np.random.Generator) -> str:
    families = [item.family for item in scene.objects]
    parts = [
        f"{families.count(f)} {f if families.count(f) == 1 else plural(f)}" for f in sprites.FAMILIES if f in families
    ]
    names = [item.name for item in scene.objects]
    repeated = sorted({name for name in names if names.count(name) > 1})
    tail = "".join(f" {names.count(name)} {plural(name)}." for name in repeated)
    return f"In all {len(families)}: {', '.join(parts)}.{tail}" if families else ""


def _absent(scene: Scene, rng: np.random.Generator) -> str:
    present = {item.name for item in scene.objects}
    if rng.random() < 0.5 and present:
        return f"With {article(str(rng.choice(sorted(present))))}: true."
    return f"With {article(str(rng.choice([n for n in sprites.OBJECTS if n not in present])))}: false."


def _ground(scene: Scene, rng: np.random.Generator) -> str:
    return f"All on {scene.background}."


def _kind_of(scene: Scene, rng: np.random.Generator) -> str:
    item = _pick(scene, rng)
    return f"The {item.name} shown belongs to {plural(item.family)}." if item else ""


def _written(scene: Scene, rng: np.random.Generator) -> str:
    return f"Written: {scene.sign}."


def _letters(scene: Scene, rng: np.random.Generator) -> str:
    position = int(rng.integers(len(scene.sign)))
    return f"Mark {position + 1} of {len(scene.sign)}: {scene.sign[position]}."


def _shape_name(scene: Scene, rng: np.random.Generator) -> str:
    item = scene.items[0]
    return f"Drawn: {article(f'{item.colour} {item.name}')}."


def _shape_colour(scene: Scene, rng: np.random.Generator) -> str:
    item = scene.items[0]
    return f"The {item.name} has the color {item.colour}."


def _shape_extent(scene: Scene, rng: np.random.Generator) -> str:
    item = scene.items[0]
    return f"The {item.name} spans {extent(item)}."


def _shape_truth(scene: Scene, rng: np.random.Generator) -> str:
    item, true = scene.items[0], bool(rng.random() < 0.5)
    names = (item.name, item.colour)
    options = [o for o in (*sprites.SHAPES, *sprites.SHAPE_COLOURS) if (o in names) == true]
    choice = str(rng.choice(options))
    claim = article(choice if choice in sprites.SHAPES else f"{choice} shape")
    return f"With {claim}: {'true' if true else 'false'}."


_OBJECT_SENTENCES = (
    _seen, _extents, _second_extents, _spot, _relation, _extreme, _number, _absent, _ground, _kind_of,
)  # fmt: skip
_SIGN_SENTENCES = (_written, _letters, _ground, _extents, _spot, _written)
_SHAPE_SENTENCES = (_shape_name, _shape_colour, _shape_extent, _shape_truth)
