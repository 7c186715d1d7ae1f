"""What the server does against updates that are valid but wrong: clipping, multi-Krum, robust means.

Off by default. Clipping bounds how far one update may be from what its client received; multi-Krum chooses the updates
nearest to each other; the median and the trimmed mean take the place of the weighted mean wherever a method averages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pilot.methods.base import Mean, State, Update, weighted_mean
from pilot.methods.robust import clip_update, coordinate_median, multi_krum, trimmed_mean

Aggregation = Literal["mean", "median", "trimmed_mean", "multi_krum"]
DIGITS = 6


@dataclass(frozen=True)
class Defence:
    """How updates are treated before and while they are aggregated.

    Attributes:
        aggregation: `multi_krum` selects, then means as usual.
        trim: share that the trimmed mean cuts from each end.
        num_byzantine: f of multi-Krum; it keeps K - f updates.
        clip_norm: largest L2 norm of an update's difference to what its client received; None for no bound.
    """

    aggregation: Aggregation = "mean"
    trim: float = 0.1
    num_byzantine: int = 1
    clip_norm: float | None = None

    @property
    def mean(self) -> Mean:
        """What a method averages with."""
        if self.aggregation == "median":
            return coordinate_median
        return partial(trimmed_mean, trim=self.trim) if self.aggregation == "trimmed_mean" else weighted_mean

    def apply(
        self, updates: Iterator[Update], received: Callable[[int], State], note: dict[str, Any]
    ) -> Iterator[Update]:
        """The updates to aggregate, in their order; what was done to them goes into `note`.

        All updates are held at once for multi-Krum only. Too few for it: all are kept, and the note says so.
        """
        if self.clip_norm is not None:
            updates = self._clipped(updates, received, self.clip_norm, note)
        return self._selected(updates, note) if self.aggregation == "multi_krum" else updates

    def _clipped(
        self, updates: Iterator[Update], received: Callable[[int], State], bound: float, note: dict[str, Any]
    ) -> Iterator[Update]:
        norms = note.setdefault("norms", {})
        for update in updates:
            state, norm = clip_update(update.state, received(update.client), bound)
            norms[str(update.client)] = float(f"{norm:.{DIGITS}g}")
            yield replace(update, state=state)

    def _selected(self, updates: Iterator[Update], note: dict[str, Any]) -> Iterator[Update]:
        held = list(updates)
        if len(held) < 2 * self.num_byzantine + 3:
            note["multi_krum"] = f"{len(held)} updates are too few for {self.num_byzantine} byzantine ones: all kept"
            yield from held
            return
        common = set.intersection(*(set(update.state) for update in held))
        states = [{name: update.state[name] for name in sorted(common)} for update in held]
        chosen = multi_krum(states, self.num_byzantine, len(held) - self.num_byzantine)
        note["multi_krum"] = [held[position].client for position in sorted(chosen)]
        yield from (held[position] for position in sorted(chosen))
