"""Tensors on disk: safetensors files, each with a digest in a second file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file
from safetensors.torch import load

from pilot.errors import UserError
from pilot.io import atomic
from pilot.io.digest import sha256_bytes, sha256_file

Tensor = torch.Tensor


def save_state(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write `state` as safetensors, and beside it `<name>.sha256` with the file's digest; return the digest.

    Tensors are written straight from memory: for many small ones, a copy of them all would take as long as the rest.

    Raises:
        UserError: the folder cannot be written to.
    """
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    specs = {name: _spec(value) for name, value in tensors.items()}

    def fill(part: Path) -> str:
        try:
            serialize_file(specs, part)
        except SafetensorError as error:  # a disk error: the tensors are well-formed
            raise OSError(0, str(error)) from error
        return sha256_file(part)

    digest = atomic.replace_file(path, fill)
    atomic.write_bytes(_digest_path(path), (digest + "\n").encode())
    return digest


def _spec(value: Tensor) -> TensorSpec:
    """Describe a contiguous tensor in host memory, which must stay alive until it is written."""
    return TensorSpec(
        dtype=str(value.dtype).removeprefix("torch."), shape=value.shape, data_ptr=value.data_ptr(),
        data_len=value.nbytes,
    )  # fmt: skip


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state that `save_state` wrote; check its digest.

    Raises:
        UserError: the file is missing, truncated or altered (its digest differs).
    """
    try:
        data = path.read_bytes()
        expected = _digest_path(path).read_bytes().strip()
    except OSError as error:
        raise UserError(f"{path}: checkpoint is incomplete ({error.strerror}: {error.filename}).") from error
    if sha256_bytes(data).encode() != expected:
        raise UserError(f"{path}: checkpoint is damaged (sha256 differs from the recorded one). Remove it and resume.")
    state: dict[str, Tensor] = load(data)
    return state


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")
