"""Scenes: images composed from sprites, shapes and glyphs, with exact ground truth.

A scene is drawn from a generator; its boxes are the opaque extents of the pasted graphics, in pixels of an
80x80 image. Objects never overlap, and are not repeated unless requested (counting needs repeated objects).
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pilot.data.scenes import sprites

SIZE = 80
"""Side of every scene in pixels."""
OBJECT_SIZES = (20, 23, 26, 29, 32)
GLYPH_SIZES = (17, 19, 21)
PLACEMENT_ATTEMPTS = 60

PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class Item:
    """A visible item: a sprite (kind `object`), a plain shape or a glyph, with its box in pixels."""

    kind: str
    name: str
    box: PixelBox
    colour: str = ""

    @property
    def family(self) -> str:
        return sprites.FAMILY_OF[self.name]

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> int:
        """Area of the box in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Scene:
    """An image and its items; `items` are ordered from left to right."""

    image: Image.Image
    background: str
    items: tuple[Item, ...]

    @property
    def objects(self) -> tuple[Item, ...]:
        """Sprites, from left to right."""
        return tuple(item for item in self.items if item.kind == "object")

    @property
    def sign(self) -> str:
        """Characters on the sign, from left to right; empty without a sign."""
        return "".join(item.name for item in self.items if item.kind == "glyph")

    def png(self) -> bytes:
        """Encode the image as PNG."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()


def object_scene(rng: np.random.Generator, *, num_objects: int | None = None, duplicates: float = 0.0) -> Scene:
    """Draw a scene of 1 to 4 sprites; with probability `duplicates`, each further sprite repeats an earlier one."""
    canvas, colour = _canvas(rng)
    items: list[Item] = []
    for _ in range(num_objects or int(rng.choice([1, 2, 3, 4], p=[0.1, 0.3, 0.35, 0.25]))):
        taken = [item.name for item in items]
        repeat = bool(taken) and rng.random() < duplicates
        pool = taken if repeat else [name for name in sprites.OBJECTS if name not in taken]
        _add_object(rng, canvas, items, str(rng.choice(pool)))
    return _finish(canvas, colour, items)


def sign_scene(rng: np.random.Generator) -> Scene:
    """Draw a sign with two or three characters, and up to two sprites around it."""
    canvas, colour = _canvas(rng)
    items: list[Item] = []
    _add_sign(rng, canvas, items)
    frame = _union(items)
    blocked = [Item("frame", "sign", (frame[0] - 4, frame[1] - 4, frame[2] + 4, frame[3] + 4))]
    for _ in range(int(rng.integers(0, 3))):
        names = [name for name in sprites.OBJECTS if name not in {item.name for item in blocked}]
        _add_object(rng, canvas, blocked, str(rng.choice(names)))
    return _finish(canvas, colour, items + blocked[1:])


def shape_scene(rng: np.random.Generator) -> Scene:
    """Draw one plain coloured shape on a pale background, as in public shape data sets."""
    ground = tuple(int(value) for value in rng.integers(228, 256, 3))
    canvas = sprites.background((ground[0], ground[1], ground[2]), SIZE, 8).copy()
    kind, colour = str(rng.choice(sprites.SHAPES)), str(rng.choice(list(sprites.SHAPE_COLOURS)))
    width = int(rng.integers(12, 44))
    height = int(rng.integers(12, 44)) if kind == "rectangle" else width if kind == "circle" else round(width * 0.9)
    x, y = int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height))
    picture = sprites.shape(kind, colour, width, height)
    canvas.paste(picture, (x, y), picture)
    return Scene(canvas, "", (Item("shape", kind, (x, y, x + width, y + height), colour),))


def _canvas(rng: np.random.Generator) -> tuple[Image.Image, str]:
    colour = str(rng.choice(list(sprites.BACKGROUNDS)))
    return sprites.background(colour, SIZE, int(rng.integers(0, 9))).copy(), colour


def _add_object(rng: np.random.Generator, canvas: Image.Image, items: list[Item], name: str) -> None:
    """Paste `name` at a place where it overlaps nothing; leave it out if the scene is full."""
    for _ in range(PLACEMENT_ATTEMPTS):
        picture = sprites.sprite(name, int(rng.choice(OBJECT_SIZES)))
        x, y = int(rng.integers(0, SIZE - picture.width + 1)), int(rng.integers(0, SIZE - picture.height + 1))
        box = (x, y, x + picture.width, y + picture.height)
        if not any(_overlap(box, item.box, gap=1) for item in items):
            canvas.paste(picture, (x, y), picture)
            items.append(Item("object", name, box))
            return


def _add_sign(rng: np.random.Generator, canvas: Image.Image, items: list[Item]) -> None:
    size = int(rng.choice(GLYPH_SIZES))
    letters = [str(letter) for letter in rng.choice(sprites.GLYPHS, int(rng.integers(2, 4)))]
    pictures = [sprites.glyph(letter, size) for letter in letters]
    gap = int(rng.integers(3, 6))
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    height = max(picture.height for picture in pictures)
    x, y = int(rng.integers(5, SIZE - width - 5)), int(rng.integers(5, SIZE - height - 5))
    canvas.paste((252, 250, 240), (x - 4, y - 4, x + width + 4, y + height + 4))
    for letter, picture in zip(letters, pictures, strict=True):
        canvas.paste(picture, (x, y), picture)
        items.append(Item("glyph", letter, (x, y, x + picture.width, y + picture.height)))
        x += picture.width + gap


def _finish(canvas: Image.Image, colour: str, items: list[Item]) -> Scene:
    return Scene(canvas, colour, tuple(sorted(items, key=lambda item: (item.centre, item.name))))


def _union(items: list[Item]) -> PixelBox:
    boxes = np.array([item.box for item in items])
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    return int(left), int(top), int(right), int(bottom)


def _overlap(a: PixelBox, b: PixelBox, gap: int) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap
