"""Aggregation drift: the distance between the product of averaged LoRA factors and the average of the products.

    || mean(B A) - mean(B) mean(A) ||_F / || mean(B A) ||_F

over all layers together, with means over the clients whose updates were accepted, weighted by number of examples.
Averaging A and B separately, as FedAvg does, causes this error. It is a property of the updates: methods that average
differently are measured in the same way. Factors of a lower rank are padded with zeros.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pilot.backbone.lora import GROUP
from pilot.methods.base import Update

MAX_ELEMENTS = 2**24
"""Maximum number of elements of all products together: layers are measured in order of name while they fit."""
A, B = ".lora_A", ".lora_B"
DIGITS = 6


class Drift:
    """Running sums over the updates of a phase."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._total, self._complete = 0.0, True

    def add(self, update: Update) -> None:
        """Add one client's factors; if any client sends no complete pair, the drift of the phase is not measured."""
        own = sorted(name for name in update.state if name.startswith(f"{GROUP}.") and name.endswith(A))
        pairs = [name.removesuffix(A) for name in own]
        pairs = [name for name in pairs if name + B in update.state]
        if not pairs:
            self._complete = False
            return
        weight, room = float(update.num_examples), MAX_ELEMENTS
        self._total += weight
        for name in pairs:
            a_RI, b_OR = update.state[name + A].float(), update.state[name + B].float()
            room -= len(b_OR) * a_RI.shape[1]
            if room < 0 and name != pairs[0]:
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

    def value(self) -> float | None:
        """Return the ratio to six significant digits.

        It is None without updates, if a client sent no pairs, or if all products are 0.
        """
        if not (self._complete and self._sums):
            return None
        error = whole = 0.0
        for sum_a_RI, sum_b_OR, product_OI in self._sums.values():
            mean_OI = product_OI.double() / self._total
            apart_OI = mean_OI - (sum_b_OR.double() / self._total) @ (sum_a_RI.double() / self._total)
            error, whole = error + float(apart_OI.square().sum()), whole + float(mean_OI.square().sum())
        return float(f"{(error / whole) ** 0.5:.{DIGITS}g}") if whole > 0 else None


def _rows(matrix_RX: Tensor, num_rows: int) -> Tensor:
    """Append rows of zeros to the matrix until it has `num_rows` rows."""
    missing = num_rows - len(matrix_RX)
    return functional.pad(matrix_RX, (0, 0, 0, missing)) if missing else matrix_RX
