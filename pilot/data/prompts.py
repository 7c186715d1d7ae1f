"""Instructions and answers as LLaVA-1.5 words them."""

from collections.abc import Iterable, Sequence

SINGLE_WORD = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."
GROUND = "Please provide the bounding box coordinate of the region this sentence describes: {expression}."


def question(text: str) -> str:
    """A VQA instruction: the question, then LLaVA-1.5's line on the answer's form."""
    return f"{text}\n{SINGLE_WORD}"


def relative_box_text(box: Sequence[float]) -> str:
    """A box in fractions (0..1) as the grounding answer; see `hundredths_text`."""
    return hundredths_text(100 * edge for edge in box)


def hundredths_text(edges: Iterable[float]) -> str:
    """Edges in hundredths of the image's side as the grounding answer: `[0.12, 0.34, 0.56, 0.78]`.

    Two decimals, the far edge written as 0.99 (one format, always "0." and two digits); the exact box is kept
    beside it for scoring, and the two overlap by far more than any threshold unless the box is tiny.
    """
    return f"[{', '.join(f'0.{min(99, round(edge)):02d}' for edge in edges)}]"
