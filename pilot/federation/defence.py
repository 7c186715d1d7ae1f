"""Server-side defences against updates that are valid but wrong: clipping, multi-Krum, robust means.

Off by default. Clipping bounds the distance of an update from the values that its client received; multi-Krum selects
the updates nearest to each other; the median or the trimmed mean replaces the weighted mean wherever a method averages.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pilot.config.federation import DefenceConfig
from pilot.errors import UserError
from pilot.methods.base import Mean, Phase, State, Update, weighted_mean
from pilot.methods.robust import clip_update, coordinate_median, multi_krum, trimmed_mean

DIGITS = 6


def refuse_unknown_starts(defence: DefenceConfig, phases: Iterable[Phase], where: str, method: str) -> None:
    """Refuse to clip updates whose start the server does not know, and to compare messages about different choices.

    Raises:
        UserError: the method has such a phase; the message names it.
    """
    for phase in phases:
        if defence.clip_norm is not None and phase.starts_from != "payload":
            raise UserError(
                f"{where}.defence.clip_norm: in phase {phase.name}, clients of method {method} start from values that "
                f"they have kept ({phase.starts_from}), so the server cannot measure how far an update has moved. "
                "Leave clip_norm out, or choose another method."
            )
        if defence.aggregation == "multi_krum" and phase.choices:
            raise UserError(
                f"{where}.defence.aggregation: in phase {phase.name}, clients of method {method} send choices "
                f"({', '.join(sorted(phase.choices))}), so distances between messages are none between models. "
                "Choose median or trimmed_mean, or another method."
            )


class Defence(DefenceConfig):
    """Treatment of updates before and during aggregation."""

    @property
    def mean(self) -> Mean:
        """The function with which methods average."""
        if self.aggregation == "median":
            return coordinate_median
        return partial(trimmed_mean, trim=self.trim) if self.aggregation == "trimmed_mean" else weighted_mean

    def apply(
        self, updates: Iterator[Update], received: Callable[[int], State], note: dict[str, Any]
    ) -> Iterator[Update]:
        """Return the updates to aggregate, in order; record in `note` what was done to them.

        Only multi-Krum holds all updates at once. If there are too few for it, all are kept, and the note says so.
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
