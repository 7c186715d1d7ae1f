"""Aggregation drift: how far averaging moves LoRA's products away from their mean over clients.

    || mean(B A) - X ||_F / || mean(B A) ||_F

over all layers together, with means over the clients whose updates were accepted, weighted by number of examples.

- Of a method that means its server to hold the mean product (`Method.mean_product`), X is what the server made:
  B A of its new factors, plus the growth of its offset D if it has one. A factor that clients do not send is the one
  that the server held before; one that it does not hold, either, is common to all clients and counts as the identity.
- Of all others, X = mean(B) mean(A): the error of averaging both factors separately, as FedAvg does. It is a property
  of the updates, also where the method averages over some clients only. Without pairs there is no such value.

Factors of a lower rank are padded with zeros.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from pilot.backbone.lora import GROUP
from pilot.backbone.offsets import GROUP as OFFSET
from pilot.methods.base import Update

MAX_ELEMENTS = 2**24
"""Maximum number of elements of all products together: layers are measured in order of name while they fit."""
A, B = ".lora_A", ".lora_B"
DIGITS = 6


class Drift:
    """Running sums over the updates of a phase.

    Args:
        before: the server's tensors before the phase, for a method with `mean_product`; None for all others.
    """

    def __init__(self, before: Mapping[str, Tensor] | None = None) -> None:
        self._before = before
        self._sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._total, self._complete = 0.0, True

    def add(self, update: Update) -> None:
        """Add one client's factors; if they are incomplete, the drift of the phase is not measured."""
        layers = _layers(update.state, both=self._before is None)
        if not layers:
            self._complete = False
            return
        weight, room = float(update.num_examples), MAX_ELEMENTS
        self._total += weight
        known = {**(self._before or {}), **update.state}
        for name in layers:
            a_RI, b_OR = _pair(known, name)
            room -= len(b_OR) * a_RI.shape[1]
            if room < 0 and name != layers[0]:
                break
            if name not in self._sums:
                self._sums[name] = (
                    torch.zeros_like(a_RI),
                    torch.zeros_like(b_OR),
                    b_OR.new_zeros(len(b_OR), a_RI.shape[1]),
                )
            sum_a_RI, sum_b_OR, product_OI = self._sums[name]
            rank = max(len(a_RI), len(sum_a_RI))
            sum_a_RI, sum_b_OR = _rows(sum_a_RI, rank), _rows(sum_b_OR.T, rank).T
            self._sums[name] = (
                sum_a_RI.add_(_rows(a_RI, rank), alpha=weight), sum_b_OR.add_(_rows(b_OR.T, rank).T, alpha=weight),
                product_OI.addmm_(b_OR, a_RI, alpha=weight),
            )  # fmt: skip

    def value(self, after: Mapping[str, Tensor]) -> float | None:
        """Return the ratio to six significant digits.

        It is None without updates, if a client sent no pairs, or if all products are 0.

        Args:
            after: the server's tensors after the phase.
        """
        if not (self._complete and self._sums):
            return None
        error = whole = 0.0
        for name, (sum_a_RI, sum_b_OR, product_OI) in self._sums.items():
            mean_OI = product_OI.double() / self._total
            if self._before is None:
                made_OI = (sum_b_OR.double() / self._total) @ (sum_a_RI.double() / self._total)
            else:
                made_OI = _made(self._before, after, name)
            apart_OI = mean_OI - made_OI
            error, whole = error + float(apart_OI.square().sum()), whole + float(mean_OI.square().sum())
        return float(f"{(error / whole) ** 0.5:.{DIGITS}g}") if whole > 0 else None


def _layers(state: Mapping[str, Tensor], *, both: bool) -> list[str]:
    """Return the sorted prefixes of the layers of which a client has sent both factors, or at least one."""
    sent = {part: {name.removesuffix(part) for name in state if name.endswith(part)} for part in (A, B)}
    layers = sent[A] & sent[B] if both else sent[A] | sent[B]
    return sorted(name for name in layers if name.startswith(f"{GROUP}."))


def _pair(known: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return A (r, I) and B (O, r) of a layer; a factor that nobody has sent is the identity."""
    a_RI, b_OR = known.get(name + A), known.get(name + B)
    if a_RI is None:
        a_RI = torch.eye(known[name + B].shape[1])
    if b_OR is None:
        b_OR = torch.eye(len(a_RI))
    return a_RI.float(), b_OR.float()


def _made(before: Mapping[str, Tensor], after: Mapping[str, Tensor], name: str) -> Tensor:
    """Return what the server made of a layer's mean product (O, I)."""
    offset = f"{OFFSET}.{name.removeprefix(GROUP + '.')}.weight"
    made_OI = torch.zeros(())
    if name + A in after or name + B in after:
        a_RI, b_OR = _pair(after, name)
        made_OI = b_OR.double() @ a_RI.double()
    if offset in after:
        made_OI = made_OI + after[offset].double() - (before[offset].double() if offset in before else 0.0)
    return made_OI


def _rows(matrix_RX: Tensor, num_rows: int) -> Tensor:
    """Append rows of zeros to the matrix until it has `num_rows` rows."""
    missing = num_rows - len(matrix_RX)
    return functional.pad(matrix_RX, (0, 0, 0, missing)) if missing else matrix_RX
