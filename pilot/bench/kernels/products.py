"""Bare matrix products: the time that a computation would take if it consisted of nothing else."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Product:
    """Matrix product (rows, inner) x (inner, columns), computed `times` times with batches of `batch` products.

    A transposed operand is stored in memory as its transpose, like a layer's weight when activations are multiplied
    by it.
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
        """Multiplications and additions in total."""
        return 2 * self.rows * self.inner * self.columns * self.batch * self.times


def flops(products: Sequence[Product]) -> int:
    """Count the multiplications and additions of all products."""
    return sum(product.flops for product in products)


def make_product_runner(products: Sequence[Product]) -> Callable[[], None]:
    """Return a function that computes all products in sequence, into memory allocated beforehand."""
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


class _Recorder(TorchDispatchMode):
    """Dispatch mode that counts all matrix products computed in its context, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        aten = torch.ops.aten
        self.operands = {
            aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.addmm_: (1, 2), aten.baddbmm: (1, 2),
            aten.baddbmm_: (1, 2),
        }  # fmt: skip
        self.counts: Counter[Product] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        places = self.operands.get(func.overloadpacket)
        if places is not None:
            left, right = (args[place] for place in places)
            batch = left.shape[0] if left.ndim == 3 else 1
            shape = (left.shape[-2], left.shape[-1], right.shape[-1])
            self.counts[Product(*shape, 1, batch, _is_transposed(left), _is_transposed(right))] += 1
        return func(*args, **(kwargs or {}))


def record_products(work: Callable[[], object]) -> list[Product]:
    """Record the products that `work` computes; equal ones are counted together."""
    with _Recorder() as recorder:
        work()
    return [replace(product, times=times) for product, times in recorder.counts.items()]


def _is_transposed(matrix: Tensor) -> bool:
    return matrix.stride(-1) != 1 and matrix.stride(-2) == 1
