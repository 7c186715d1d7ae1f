"""`pilot-bench bench ct-moa`: CT-MoA forward and backward, as trained in stage 2, beside a plain loop.

It is also compared with its matrix products alone. With M = B N tokens and T tasks, forward: the two layers of 2 T MLPs
(task adapter, T - 1 peers' adapters, T - 1 cross-task adapters, client adapter) and the router. Backward: for each of
the T trained MLPs, the gradients of both weights and of the hidden units; the gradient of the router's weight. Features
and frozen adapters get no gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pilot.backbone.numerics import Numerics, configure_torch, default_matmul_precision
from pilot.bench.kernels.paired import Spread, alternate, largest_difference, ratios
from pilot.bench.kernels.products import Product, flops, make_product_runner
from pilot.bench.kernels.references import reference
from pilot.bench.kernels.report import Report, Row
from pilot.connector.base import set_trainable
from pilot.connector.ct_moa import CrossTaskMixture
from pilot.connector.projector import Projector
from pilot.io.seeding import seed_for

TOLERANCE = 1e-5
OWN_TASK = 1
MIN_SECONDS = 0.01
LOSS_WEIGHTS = {"load_balance": 0.1, "router_z": 0.01}


@dataclass(frozen=True)
class Shape:
    """Samples, tokens per sample, widths of features and tokens, tasks; share of the repetitions that are run."""

    B: int
    N: int
    D: int
    C: int
    T: int = 3
    share: float = 1.0


SHAPES = (
    *(Shape(B, N, D, 128) for B in (16, 32) for N, D in ((16, 96), (25, 96), (25, 128))),
    Shape(1, 576, 1024, 4096, share=0.2),
)
"""Shapes of the embedded profile, and that of LLaVA-1.5-7B."""
QUICK = (Shape(2, 3, 4, 8), Shape(1, 5, 8, 16))


def bench_ct_moa(shapes: Sequence[Shape], repeats: int, advance: Callable[[int, int], None]) -> Report:
    """Time all shapes.

    Args:
        shapes: shapes to time.
        repeats: number of repetitions for a shape whose share is 1.
        advance: called with the finished and total numbers of shapes.

    Raises:
        UserError: the sides disagree, or the references are missing.
    """
    configure_torch(Numerics())
    rows = []
    for number, shape in enumerate(shapes):
        rows.append(_row(shape, max(1, round(repeats * shape.share))))
        advance(number + 1, len(shapes))
    return Report("ct-moa", {"repeats": repeats, "tolerance": TOLERANCE, "dtype": "float32"}, rows)


def products(shape: Shape) -> list[Product]:
    """List the matrix products of a step; see the module's docstring."""
    tokens, trained = shape.B * shape.N, shape.T
    return [
        Product(tokens, shape.D, shape.C, times=2 * shape.T, right_transposed=True),
        Product(tokens, shape.C, shape.C, times=2 * shape.T, right_transposed=True),
        Product(tokens, shape.D, shape.T, right_transposed=True),
        Product(shape.C, tokens, shape.C, times=trained, left_transposed=True),
        Product(tokens, shape.C, shape.C, times=trained),
        Product(shape.C, tokens, shape.D, times=trained, left_transposed=True),
        Product(shape.T, tokens, shape.D, left_transposed=True),
    ]


def _row(shape: Shape, repeats: int) -> Row:
    sides = Sides(shape)
    difference = largest_difference(
        f"bench ct-moa, {shape}", sides.results(sides.ours), sides.results(sides.loop), TOLERANCE
    )
    listed = products(shape)
    works = {"ours": sides.ours, "loop": sides.loop, "products": make_product_runner(listed)}
    seconds = alternate(works, repeats, min_seconds=MIN_SECONDS)
    case = {name: value for name, value in asdict(shape).items() if name != "share"}
    spreads = {name: Spread.of(values) for name, values in seconds.items()}
    return Row(
        case, spreads,
        {"loop / ours": ratios(seconds, "loop", "ours"), "ours / products": ratios(seconds, "ours", "products")},
        difference, repeats, {"GFLOP": flops(listed) / 1e9},
    )  # fmt: skip


class Sides:
    """Both sides over the same parameters; each stores its gradients in them."""

    def __init__(self, shape: Shape) -> None:
        generator = torch.Generator().manual_seed(seed_for("bench ct-moa"))

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator)

        self.mixture = CrossTaskMixture(Projector(shape.D, shape.C), shape.T, OWN_TASK)
        with torch.no_grad():
            for parameter in self.mixture.parameters():
                parameter.copy_(normal(*parameter.shape) * parameter.shape[-1] ** -0.5)
        set_trainable(self.mixture, {"task_adapter", "cross_task_adapter", "router"})
        self.parameters = dict(self.mixture.named_parameters())
        self.features_BND, self.grad_BNC = normal(shape.B, shape.N, shape.D), normal(shape.B, shape.N, shape.C)
        self._loop, self._num_tasks = reference("ct_moa").forward, shape.T

    def ours(self) -> Tensor:
        """Run the connector forward and backward; return tokens (B, N, C)."""
        output = self.mixture(self.features_BND)
        return self._backward(output.tokens_BNC, output.terms)

    def loop(self) -> Tensor:
        """Run the reference with PyTorch's default precision of matrix products; return tokens (B, N, C)."""
        with default_matmul_precision():
            tokens_BNC, terms = self._loop(self.parameters, self.features_BND, OWN_TASK, self._num_tasks)
            return self._backward(tokens_BNC, terms)

    def _backward(self, tokens_BNC: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Backpropagate `grad_BNC`, in place of the LLM's gradient, and the weighted losses."""
        for parameter in self.parameters.values():
            parameter.grad = None
        loss = torch.stack([weight * terms[name] for name, weight in LOSS_WEIGHTS.items()]).sum()
        torch.autograd.backward([tokens_BNC, loss], [self.grad_BNC, torch.ones(())])
        return tokens_BNC

    def results(self, side: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Run one side; return its tokens, and its gradients by parameter name."""
        tokens_BNC = side().detach()
        grads = {name: value.grad for name, value in self.parameters.items() if value.grad is not None}
        return {"tokens": tokens_BNC, **grads}
