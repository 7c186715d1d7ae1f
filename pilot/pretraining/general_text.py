"""Plain text for tiny-llava's language phase: everyday statements, without images and without tasks.

A language model of a million parameters knows only the words that it has read. These sentences teach it the function
words of English, numbers, the families of objects and the words for positions, so that later instructions consist of
tokens with meaning. None of them is a question about an image or an instruction of a scenario.
"""

import numpy as np

from pilot.data.scenes import sprites
from pilot.pretraining.captions import NUMBER_WORDS, article, plural

STATEMENTS = (
    "People ask what, which, where, who, how many and why, and others reply with a word or a sentence.",
    "A picture is an image. An image shows a scene. A photo is a picture too.",
    "Yes means true. No means false. Does it? It does. Is it? It is. Are they? They are not.",
    "A short phrase is a few words. A single word is one word. A sentence is longer than a phrase.",
    "Please answer the letter. Please provide one more. Please describe the road. Describe it briefly.",
    "The region is wide. A box has four sides. Bounding means to hold inside. A coordinate is a number.",
    "A caption describes a picture. This sentence describes the given house. Use using used.",
    "A sign has characters written on it. The first character, the second, the third, the last one.",
    "The background is behind the objects. An object is a thing. A kind of thing. A type of object.",
    "The largest is bigger than the smallest. The biggest, the smaller, the large, the small.",
    "There is a corner at the top left, the top right, the bottom left and the bottom right.",
    "The leftmost comes first, the rightmost last. The topmost is highest, the bottommost lowest.",
    "It is on the left side, to the right of it, above it, below it, in the middle, in the center.",
    "Next to it, near it, beside it, with it, in front of it, placed against it, together with it.",
    "The image contains a shape. It does not contain one. A shape is present in it. No shape is present.",
    "The color of it is known. It is colored. A plain color. The sky is blue, grass is green.",
    "Look here. We see it. It can be seen. It shows this. Shown are these. It has some. They have many.",
    "Find it, point to it, name it, count it, read it, say it. How far, how much, how many.",
    "This is one of the things that appear. Furthest away, closest, nearest, at the edge, along the top.",
    "It says so. It reads so. What it says is written down. Letters and digits are characters.",
    "A scene with nothing, a scene with something, a simple view, a drawing over a plain background.",
    "They stand, sit, lie and appear on a surface. It features, includes, displays and depicts them.",
    "What it is, it is. Answer it, answer them. A question, the question, questions. The furthest, for this.",
    "From here to there, there it is. On that day we go, and there we stay. A bounding line, bounding boxes.",
    "It is provided. Provide a one-sentence story. yes, no, yes, no. Is that so? Are these? How? What? Which?",
    "Which one is it? Where is it? What is that? Who are they? Why not? And how? Or else.",
)
TOKENIZER_ONLY = ("USER:", " ASSISTANT:", " [0.", ", 0.", "]")
"""Strings that the tokenizer keeps whole; these texts contain only `, 0.` of them, in lists of decimals."""


def general_sentence(rng: np.random.Generator) -> str:
    """Generate one plain sentence."""
    makers = (_statement, _statement, _family, _list, _decimals, _numbers, _colours, _sorted_places)
    return makers[int(rng.integers(len(makers)))](rng)


def _statement(rng: np.random.Generator) -> str:
    return STATEMENTS[int(rng.integers(len(STATEMENTS)))]


def _family(rng: np.random.Generator) -> str:
    name = str(rng.choice(sprites.OBJECTS))
    return f"{article(name).capitalize()} is a kind of {sprites.FAMILY_OF[name]}. {plural(name).capitalize()} are so."


def _list(rng: np.random.Generator) -> str:
    names = [article(str(name)) for name in rng.choice(sprites.OBJECTS, int(rng.integers(2, 5)), replace=False)]
    return f"There are {', '.join(names[:-1])} and {names[-1]}."


def _decimals(rng: np.random.Generator) -> str:
    values = ", ".join(f"0.{int(value):02d}" for value in np.sort(rng.integers(0, 100, int(rng.integers(3, 7)))))
    return f"Rising numbers: {values}."


def _numbers(rng: np.random.Generator) -> str:
    value = int(rng.integers(1, 5))
    return f"{value} is {NUMBER_WORDS[value]}, one more is {value + 1}."


def _colours(rng: np.random.Generator) -> str:
    colour, shape = str(rng.choice(list(sprites.SHAPE_COLOURS))), str(rng.choice(sprites.SHAPES))
    return f"{colour.capitalize()} is a color, {article(shape)} is a shape, a {colour} {shape} is both."


def _sorted_places(rng: np.random.Generator) -> str:
    colour, family = str(rng.choice(list(sprites.BACKGROUNDS))), str(rng.choice(list(sprites.FAMILIES)))
    return f"A {colour} background. Many {plural(family)}, one {family}, the {family}."
