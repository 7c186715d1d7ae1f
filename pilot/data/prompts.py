"""The wording of the scenarios' instructions, after LLaVA-1.5, and small helpers for English."""

from collections.abc import Iterable, Sequence

from pilot.data.scene import SIZE, PixelBox

SINGLE_WORD = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."
GROUND = "Please provide the bounding box coordinate of the region this sentence describes: {expression}."
FAMILY_PLURALS = {"animal": "animals", "food": "foods", "vehicle": "vehicles", "tool": "tools"}


def question(text: str) -> str:
    """A VQA instruction: the question, then LLaVA-1.5's line on the answer's form."""
    return f"{text}\n{SINGLE_WORD}"


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def enumeration(phrases: Sequence[str]) -> str:
    """`x`, `x and y`, `x, y and z`."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def relative_box(box: PixelBox) -> tuple[float, float, float, float]:
    """A box in pixels as exact fractions (0..1) of the image's side."""
    x1, y1, x2, y2 = (edge / SIZE for edge in box)
    return x1, y1, x2, y2


def box_text(box: PixelBox) -> str:
    """A box in pixels of a scene as the grounding answer; see `hundredths_text`."""
    return hundredths_text(100 * edge / SIZE for edge in box)


def relative_box_text(box: Sequence[float]) -> str:
    """A box in fractions (0..1) as the grounding answer; see `hundredths_text`."""
    return hundredths_text(100 * edge for edge in box)


def hundredths_text(edges: Iterable[float]) -> str:
    """Edges in hundredths of the image's side as the grounding answer: `[0.12, 0.34, 0.56, 0.78]`.

    Two decimals, the far edge written as 0.99 (one format, always "0." and two digits); the exact box is kept
    beside it for scoring, and the two overlap by far more than any threshold unless the box is tiny.
    """
    return f"[{', '.join(f'0.{min(99, round(edge)):02d}' for edge in edges)}]"
