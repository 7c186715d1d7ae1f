"""Tensors on disk: safetensors with a digest of their payload."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save

from pilot.errors import UserError
from pilot.io.atomic import write_bytes
from pilot.io.digest import sha256_bytes

Tensor = torch.Tensor


def save_state(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Write `state` as safetensors, and beside it `<name>.sha256` with the digest, which is also returned."""
    tensors = {name: state[name].detach().contiguous().clone() for name in sorted(state)}
    data = save(tensors, metadata=dict(sorted((metadata or {}).items())) or None)
    digest = sha256_bytes(data)
    write_bytes(path, data)
    write_bytes(_digest_path(path), (digest + "\n").encode())
    return digest


def load_state(path: Path) -> dict[str, Tensor]:
    """Read what `save_state` wrote.

    Raises:
        UserError: the file is missing, truncated or altered (its digest differs).
    """
    try:
        data = path.read_bytes()
        expected = _digest_path(path).read_text().strip()
    except OSError as error:
        raise UserError(f"{path}: checkpoint is incomplete ({error.strerror}: {error.filename}).") from error
    if sha256_bytes(data) != expected:
        raise UserError(f"{path}: checkpoint is damaged (its sha256 is not the recorded one). Remove it and resume.")
    state: dict[str, Tensor] = load(data)
    return state


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")
