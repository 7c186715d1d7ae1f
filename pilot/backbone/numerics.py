"""Device, precision and kernels of a backbone."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pilot.config.model import Attention, Precision
from pilot.config.profile import Profile
from pilot.errors import UserError


@dataclass(frozen=True)
class Numerics:
    """Device, precision and kernels of a backbone; the defaults are those of the embedded profile.

    Attributes:
        device: device of the frozen weights and of a client's model.
        precision: type of the frozen weights and of activations. LoRA and connectors are always float32: with
            `bfloat16` they are master weights that PyTorch's autocast rounds for each product.
        attention: transformers' name of the attention kernel.
        gradient_checkpointing: keep only the inputs of the LLM's layers for the backward pass, and recompute the rest.
        token_space: compute LoRA beside the frozen product instead of inside the weight; see `pilot.backbone.lora`.
        generation_batch: images per pass of the vision tower, and prompts answered at once (twice as many if answers
            are packed).
    """

    device: torch.device = torch.device("cpu")
    precision: Precision = "float32"
    attention: Attention = "eager"
    gradient_checkpointing: bool = False
    token_space: bool = False
    generation_batch: int = 96

    @classmethod
    def from_profile(cls, profile: Profile) -> "Numerics":
        """Return the numerics of a profile.

        Raises:
            UserError: the profile asks for a GPU and there is none.
        """
        has_gpu = torch.cuda.is_available()
        if profile.device == "cuda" and not has_gpu:
            raise UserError(
                f"profile {profile.name}: field device: cuda, but PyTorch finds no GPU. Use a machine with a GPU, or "
                "set device to cpu or auto."
            )
        name = "cuda" if profile.device != "cpu" and has_gpu else "cpu"
        return cls(
            torch.device(name), profile.precision, profile.attention, profile.gradient_checkpointing,
            profile.lora.space == "token", profile.generation_batch,
        )  # fmt: skip

    @property
    def can_pack(self) -> bool:
        """Whether training and answers are packed (`pilot.backbone.packed.llama`).

        Requires a CPU, LoRA in weight space, float32 and no gradient checkpointing.
        """
        plain = self.precision == "float32" and not self.gradient_checkpointing
        return self.device.type == "cpu" and plain and not self.token_space

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which float32 parameters are combined with bfloat16 activations; a no-op for float32."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def synchronise(self) -> None:
        """Wait until a GPU has computed everything that was started; a clock read before that is too early."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def to_device(self, values: Tensor) -> Tensor:
        """Move values to the device; cast floating-point ones to the frozen weights' type."""
        dtype = self.dtype if values.is_floating_point() else values.dtype
        if self.device.type == "cuda":
            return values.pin_memory().to(self.device, non_blocking=True).to(dtype)
        return values.to(dtype)


def fast_matmul_precision() -> Literal["medium", "highest"]:
    """Return the setting with which this processor multiplies float32 matrices fastest without rounding the factors.

    `medium` lets oneDNN multiply, which takes half of MKL's time on AMD processors with AVX-512 and is full float32
    there. On processors with instructions for bfloat16 matrices (AMX, ARM) it rounds the factors to eight bits, and
    results would depend on the processor far more than they do through the order of sums (2e-3 of a product's largest
    value). The last phase of pre-training always sets `medium` (`consolidation.py`, whose code is part of the recipe's
    digest): repeated on such a processor, it would give another checkpoint.
    """
    has = torch.cpu.get_capabilities()
    full = has.get("architecture") == "x86_64" and has.get("avx512_f") and not has.get("amx_tile")
    return "medium" if full else "highest"


@contextmanager
def default_matmul_precision() -> Iterator[None]:
    """Restore PyTorch's default setting within the context, for code that is measured for comparison.

    PyTorch's flash attention is slow with `medium`.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers of glibc's mallopt, from its malloc.h."""


def configure_torch(numerics: Numerics) -> None:
    """Set one thread and deterministic kernels, and keep freed memory for the next step.

    In deterministic mode PyTorch fills every new tensor; this is turned off, because no code here reads memory that it
    has not written.

    PyTorch's flash attention is slow with `fast_matmul_precision` at the embedded size; plain attention is not. On a
    GPU, a kernel without a deterministic form warns instead of failing, cuBLAS must be configured before it starts, and
    float32 products are not rounded (there `medium` means TF32 or bfloat16, whatever the processor).
    """
    on_gpu = numerics.device.type == "cuda"
    if on_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest" if on_gpu else fast_matmul_precision())
    torch.set_deterministic_debug_mode("warn" if on_gpu else "error")  # does not import torch's compiler (1 s)
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 (untyped in torch)
    if numerics.can_pack and platform.libc_ver()[0] == "glibc":  # larger models would keep far more than they use
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)
