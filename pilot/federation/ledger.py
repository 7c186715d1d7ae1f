"""Costs of a run: bytes by round, client and component; parameters; optimiser steps; tokens and FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot.backbone.language import GROUP as LANGUAGE
from pilot.federation.client import ClientReport
from pilot.methods.base import State, group_of


@dataclass
class Ledger:
    """Running account of a run's costs; `to_json` returns the content of `ledger.json`."""

    num_language_parameters: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    num_trainable: int = 0
    num_activated: int = 0
    steps: int = 0
    tokens: int = 0
    flops: int = 0
    pending: list[dict[str, Any]] = field(default_factory=list)

    def count_message(self, round_number: int, phase: str, client: int, direction: str, *states: State) -> None:
        """Count one message; `direction` is `up` (from the client) or `down`."""
        groups: dict[str, int] = {}
        for state in states:
            for name, value in state.items():
                group = group_of(name)
                groups[group] = groups.get(group, 0) + value.numel() * value.element_size()
        if groups:
            self.pending.append(
                {"round": round_number, "phase": phase, "client": client, "direction": direction, "groups": groups}
            )

    def close_phase(self) -> None:
        """Record the phase's messages sorted by direction (downloads first) and client, not by time of arrival."""
        self.messages += sorted(self.pending, key=lambda message: (message["direction"], message["client"]))
        self.pending = []

    def count_training(self, report: ClientReport) -> None:
        """Add the costs of one client's training.

        FLOPs are an estimate. A token costs, per parameter of the LLM, 2 for the forward pass and 2 for the backward
        pass to the inputs, and 6 per trainable parameter, of which the LLM's own are not counted twice. A token of a
        pass without gradients (of a teacher, or on validation data) costs 2 per parameter.
        """
        frozen = max(0, self.num_language_parameters - report.parameters.get(LANGUAGE, 0))
        self.parameters = dict(sorted(report.parameters.items()))
        self.num_trainable = max(self.num_trainable, report.num_trainable)
        self.num_activated = report.num_activated
        self.steps += report.steps
        self.tokens += report.num_tokens
        self.flops += report.num_tokens * (4 * frozen + 6 * report.num_trainable)
        self.flops += report.num_forward_tokens * 2 * (frozen + report.num_trainable)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `ledger.json`."""
        return {
            "parameters": self.parameters,
            "trainable_parameters": self.num_trainable,
            "activated_parameters": self.num_activated,
            "optimiser_steps": self.steps,
            "training_tokens": self.tokens,
            "training_flops": self.flops,
            "messages": self.messages,
            "totals": {f"bytes_{way}": self._total(way) for way in ("up", "down")},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], num_language_parameters: int) -> "Ledger":
        """Restore the ledger of a resumed run."""
        return cls(
            num_language_parameters,
            list(value["messages"]),
            dict(value["parameters"]),
            value["trainable_parameters"],
            value["activated_parameters"],
            value["optimiser_steps"],
            value["training_tokens"],
            value["training_flops"],
        )

    def _total(self, direction: str) -> int:
        return sum(sum(message["groups"].values()) for message in self.messages if message["direction"] == direction)
