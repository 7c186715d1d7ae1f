"""The memory that a method's objective takes besides the model, computed from its loss terms at full size.

`Method.penalty` and `Method.distillation` run on tensors of the meta device, which have sizes, but no memory: what
autograd still refers to afterwards is what training would hold.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pilot.methods.base import Method, Phase, State
from pilot.plan.phases import FLOAT32


class _Allocations(TorchDispatchMode):
    """Record the memory of all results of operations on the meta device; `alive` tells what is still in use."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.is_meta:
                storage = value.untyped_storage()
                reference = StorageWeakRef(storage)
                self._made.setdefault(reference.cdata, (reference, storage.nbytes()))
        return result

    def alive(self, known: Iterable[Tensor]) -> int:
        """Return the bytes in use, except those of `known` and of single numbers."""
        own = {StorageWeakRef(value.untyped_storage()).cdata for value in known}
        made = self._made.items()
        return sum(size for key, (reference, size) in made if key not in own and not reference.expired() and size > 8)


def count_saved_numbers(method: Method, phase: Phase, trainable: State, received: State) -> int:
    """Count the float32 numbers that a method's own loss terms keep for the backward pass.

    A term that cannot be computed without values is assumed to keep as much as is trained.

    Args:
        method: the method.
        phase: the phase.
        trainable: the parameters in training, as `pilot.plan.miniature.Miniature.full` returns them.
        received: see `Method.penalty`.
    """
    if type(method).penalty is Method.penalty and not phase.distils:
        return 0
    current = {name: value.requires_grad_() for name, value in trainable.items()}
    kept: list[object] = []  # what the loss refers to until its backward pass
    logits_MV = torch.zeros(1, 2, requires_grad=True)

    def logits_of(values: State) -> Tensor:
        kept.append(values)
        return torch.zeros(1, 2)

    try:
        with _Allocations() as allocations:
            kept.append(method.penalty(current, received))
            if phase.distils:
                kept.append(method.distillation(phase, logits_MV, received, logits_of))
    except (RuntimeError, NotImplementedError):
        return sum(value.numel() for value in current.values())
    return allocations.alive([*current.values(), *received.values()]) // FLOAT32
