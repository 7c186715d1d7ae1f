"""States on disk: the bytes of safetensors' own writer, their digest, and what a full disk leaves."""

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save

from pilot.errors import UserError
from pilot.io import checkpoint
from pilot.io.checkpoint import load_state, save_state
from pilot.io.digest import sha256_bytes

WIDE = torch.arange(12.0).reshape(3, 4)
STATE = {
    "b": WIDE.T,  # not contiguous
    "a": WIDE[1:],  # shares memory with it
    "empty": torch.empty(0, 5),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "step": torch.tensor(7),
    "trained": torch.nn.Parameter(torch.ones(2)),
}


def test_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.safetensors"
    digest = save_state(path, STATE)
    plain = {name: STATE[name].detach().contiguous().clone() for name in sorted(STATE)}
    assert load_state(path).keys() == STATE.keys()
    assert digest == sha256_bytes(path.read_bytes()) == path.with_suffix(".sha256").read_text().strip()
    assert path.read_bytes() == save(plain)
    for name, value in load_state(path).items():
        assert torch.equal(value, plain[name]) and value.dtype == plain[name].dtype
    assert (path.stat().st_mode & 0o777) == (path.with_suffix(".sha256").stat().st_mode & 0o777)


def test_no_tensors_at_all(tmp_path: Path) -> None:
    save_state(tmp_path / "none.safetensors", {})
    assert (tmp_path / "none.safetensors").read_bytes() == save({})
    assert load_state(tmp_path / "none.safetensors") == {}


def test_a_disk_that_fills_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.ones(3)})

    def full(specs: object, part: Path) -> None:
        part.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "serialize_file", full)
    with pytest.raises(UserError, match=r"state.safetensors: writing failed \(I/O error: No space left on device"):
        save_state(path, {"a": torch.zeros(3)})
    assert torch.equal(load_state(path)["a"], torch.ones(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.safetensors", "state.sha256"]
