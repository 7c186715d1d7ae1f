"""The value of one metric over one set of answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

OK = "ok"
UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class MetricResult:
    """A metric that was computed, or the reason why it was not.

    Attributes:
        value: The metric over the whole set; None if and only if `status` is "unavailable".
        per_example: Value of each example by id, where the metric has one; None otherwise.
        status: "ok" or "unavailable".
        reason: Why the metric is unavailable, or a remark on the value; otherwise empty.
    """

    value: float | None
    per_example: Mapping[str, float] | None = None
    status: str = OK
    reason: str = ""

    def __post_init__(self) -> None:
        """Assert that the value is None exactly if the metric is unavailable, and finite otherwise."""
        assert (self.value is None) == (self.status == UNAVAILABLE), "only an unavailable metric has no value"
        assert self.value is None or math.isfinite(self.value), f"a metric cannot be {self.value}"


def unavailable(reason: str) -> MetricResult:
    """Return the result of a metric that could not be computed, with the reason."""
    return MetricResult(None, None, UNAVAILABLE, reason)


def mean_result(per_example: Mapping[str, float]) -> MetricResult:
    """Return the mean of per-example values, summed exactly, so that the order of the examples does not matter.

    Raises:
        ValueError: there are no examples (the accuracy of no examples is not 0).
    """
    if not per_example:
        raise ValueError("no examples to score")
    return MetricResult(math.fsum(per_example.values()) / len(per_example), dict(per_example))


def check_ids(predictions: Mapping[str, object], references: Mapping[str, object]) -> None:
    """Require one prediction for every reference and no others.

    Raises:
        ValueError: the set is empty, or an id has a prediction but no reference, or the reverse.
    """
    if not references:
        raise ValueError("no examples to score")
    missing = sorted(set(references) - set(predictions))
    extra = sorted(set(predictions) - set(references))
    if missing:
        raise ValueError(f"{len(missing)} of {len(references)} examples have no prediction, first: {missing[0]!r}")
    if extra:
        raise ValueError(f"{len(extra)} predictions have no reference, first: {extra[0]!r}")
