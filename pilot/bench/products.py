"""Bare matrix products: what a computation would take if it were nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """(rows, inner) times (inner, columns), `times` times, in `batch` independent ones at once.

    A transposed operand lies in memory as its transpose, as a layer's weight does where activations meet it.
    """

    rows: int
    inner: int
    columns: int
    times: int = 1
    batch: int = 1
    left_transposed: bool = False
    right_transposed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions of all of them."""
        return 2 * self.rows * self.inner * self.columns * self.batch * self.times


def flops(products: Sequence[Product]) -> int:
    """Multiplications and additions of all products."""
    return sum(product.flops for product in products)


def bare(products: Sequence[Product]) -> Callable[[], None]:
    """Work that computes all products, one after the other, into memory that was taken before."""
    jobs = [(product.times, *_operands(product)) for product in products]

    def work() -> None:
        for times, left, right, out in jobs:
            multiply = torch.bmm if out.ndim == 3 else torch.mm
            for _ in range(times):
                multiply(left, right, out=out)

    return work


def _operands(product: Product) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def operand(rows: int, columns: int, transposed: bool) -> Tensor:
        shape = (product.batch, columns, rows) if transposed else (product.batch, rows, columns)
        values = torch.randn(shape, generator=generator)
        values = values.transpose(1, 2) if transposed else values
        return values if product.batch > 1 else values[0]

    left = operand(product.rows, product.inner, product.left_transposed)
    right = operand(product.inner, product.columns, product.right_transposed)
    return left, right, torch.empty(*left.shape[:-1], product.columns)
