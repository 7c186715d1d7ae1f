"""`pilot-bench bench difference-loss`: the Gram form beside the explicit C x C matrix, forward and backward.

Both compute ||A^T B||_F^2. The Gram form needs N x N matrices, the explicit form C x C matrices; time and memory are
measured over C.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pilot.backbone.numerics import Numerics, configure_torch
from pilot.bench.kernels.compare import compare_sides
from pilot.bench.kernels.references import reference
from pilot.bench.kernels.report import Report, Row
from pilot.bench.scale.measure import slope
from pilot.connector.losses import difference_loss
from pilot.io.seeding import seed_for

TOLERANCE = 1e-4
"""Tolerance for a float32 sum over C^2 products, relative to the largest value."""
MIN_SECONDS = 0.01
WIDE = 4096
"""Smallest width with only a fifth of the repetitions, since the explicit form takes a second there."""
NOTE = "MiB: peak memory of tensors allocated forward and backward, including gradients; exponents are over C."


@dataclass(frozen=True)
class Sizes:
    """Samples, tokens, and the widths C to measure."""

    B: int = 4
    N: int = 16
    widths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096, 8192)


QUICK = Sizes(2, 3, (8, 16, 32))


def bench_difference_loss(sizes: Sizes, repeats: int, advance: Callable[[int, int], None]) -> Report:
    """Measure time and memory over C.

    Args:
        sizes: sizes to measure.
        repeats: number of repetitions at every width below `WIDE`.
        advance: called with the finished and total numbers of widths.

    Raises:
        UserError: the sides disagree, or the references are missing.
    """
    configure_torch(Numerics())
    rows = []
    for number, width in enumerate(sizes.widths):
        rows.append(_row(sizes, width, repeats if width < WIDE else max(1, repeats // 5)))
        advance(number + 1, len(sizes.widths))
    widths = list(sizes.widths)
    exponents = {
        f"{side} {what} exponent": slope(widths, values)
        for side in ("ours", "explicit")
        for what, values in (
            ("memory", [row.values[f"{side} MiB"] for row in rows]),
            ("time", [1000 * row.seconds[side].median for row in rows]),
        )
    }
    settings = {"B": sizes.B, "N": sizes.N, "repeats": repeats, "tolerance": TOLERANCE, "dtype": "float32"}
    return Report("difference-loss", settings, rows, exponents, [NOTE])


def _row(sizes: Sizes, width: int, repeats: int) -> Row:
    generator = torch.Generator().manual_seed(seed_for("bench difference-loss", width))
    inputs = [torch.randn(sizes.B, sizes.N, width, generator=generator, requires_grad=True) for _ in range(2)]
    forms = {"ours": difference_loss, "explicit": reference("difference_loss").difference_loss}

    def backward(form: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        loss = form(*inputs)
        x_t, x_s = torch.autograd.grad(loss, inputs)
        return {"loss": loss.detach(), "x_t": x_t, "x_s": x_s}

    sides = {name: lambda form=form: backward(form) for name, form in forms.items()}
    return compare_sides(
        f"bench difference-loss, C {width}", {"C": width}, sides, repeats,
        tolerance=TOLERANCE, min_seconds=MIN_SECONDS,
    )  # fmt: skip
