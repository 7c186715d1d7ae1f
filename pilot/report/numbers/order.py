"""Order of methods, metrics and protocols in all tables and figures, and the reference rows."""

from collections.abc import Iterable

from pilot.config.model import FRAMES
from pilot.config.variant import base_name
from pilot.methods.families import CORE, FAMILIES
from pilot.methods.families import REFERENCES as LAST

REFERENCES = ("central", "untuned", "majority")
"""Methods that federated methods are read against; never marked as best."""

REFERENCE_NOTES = {
    "central": "all clients' data pooled, the same total number of optimiser steps",
    "untuned": "the backbone as shipped, no training",
    "majority": "blind: most frequent training answer, mean training box, medoid training caption",
}

PRIMARY_METRIC = {"vqa": "exact_match", "caption": "CIDEr", "ground": "acc@0.5"}
"""Task kind -> metric of the headline table, unless `OFFICIAL_METRIC` replaces it; for boxes, the frame is appended."""

OFFICIAL_METRIC = "vqa_official"
"""Headline metric of questions with ten references, to which exact match does not apply."""

_LARGEST = {"CIDEr": 10.0}

PARSE_FAILURES = "parse_failure_rate"
"""Reported as a separate column, never as a row: an unparsed box already counts as a miss."""

PROTOCOLS = ("personalised", "local", "worst_client")

_FIRST, _LAST = tuple(FAMILIES[CORE]), tuple(FAMILIES[LAST])
_METRICS = (
    *(
        "exact_match",
        "vqa_official",
        "vqa_always_normalised",
        "CIDEr",
        "BLEU-1",
        "BLEU-2",
        "BLEU-3",
        "BLEU-4",
    ),
    *("METEOR", "ROUGE-L", "SPICE"),
    *(f"{metric}[{frame}]" for frame in FRAMES for metric in ("acc@0.5", "mean_iou")),
)


def is_reference(method: str, untrained: bool) -> bool:
    """Return whether a method is a reference: pooled data, no training of ours, or imported answers."""
    return method in REFERENCES or untrained


def metric_bounds(metric: str) -> tuple[float, float]:
    """Return the smallest and largest possible value of a metric: 0 and 1; for CIDEr, 0 and 10."""
    return 0.0, _LARGEST.get(metric, 1.0)


def method_key(name: str) -> tuple[int, str]:
    """Return a sort key: pilot, fedavg, fedprox, fedmoe, others by name, local, central, untuned, majority.

    Variants sort with their base.
    """
    base = base_name(name.split(" ", 1)[0])
    if base in _FIRST:
        return _FIRST.index(base), name
    if base in _LAST:
        return len(_FIRST) + 1 + _LAST.index(base), name
    return len(_FIRST), name


def sort_methods(names: Iterable[str]) -> list[str]:
    """Return the distinct names in `method_key` order."""
    return sorted(set(names), key=method_key)


def metric_key(name: str) -> tuple[int, str]:
    """Return a sort key: known metrics in table order, others by name after them."""
    return (_METRICS.index(name) if name in _METRICS else len(_METRICS)), name
