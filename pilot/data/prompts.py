"""Instructions and answers in the wording of LLaVA-1.5."""

from collections.abc import Iterable, Sequence

SINGLE_WORD = "Answer the question using a single word or phrase."
CAPTION = "Provide a one-sentence caption for the provided image."
GROUND = "Please provide the bounding box coordinate of the region this sentence describes: {expression}."


def question(text: str) -> str:
    """Write a VQA instruction: the question, then LLaVA-1.5's answer-format line."""
    return f"{text}\n{SINGLE_WORD}"


def box_answer(box: Sequence[float], unit: int = 1) -> str:
    """Write a box in fractions (0..1) as a grounding answer: see `hundredths_text`, or integers of `unit` per side."""
    if unit == 1:
        return hundredths_text(100 * edge for edge in box)
    return f"[{', '.join(str(min(unit, max(0, round(unit * edge)))) for edge in box)}]"


def hundredths_text(edges: Iterable[float]) -> str:
    """Write edges in hundredths of the image's side as a grounding answer: `[0.12, 0.34, 0.56, 0.78]`.

    The format is always "0." and two digits, so the far edge is written as 0.99. The exact box is kept separately for
    scoring; the two overlap by far more than any threshold unless the box is tiny.
    """
    return f"[{', '.join(f'0.{min(99, round(edge)):02d}' for edge in edges)}]"
