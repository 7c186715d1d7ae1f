"""What is to be removed is gone, or a run says that it is not."""

import os
from pathlib import Path
from typing import Any

import pytest

from pilot.errors import UserError
from pilot.io.atomic import remove_folder


def test_folder_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("text")
    remove_folder(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    remove_folder(tmp_path / "a")  # is not there any more


def test_file_that_stays_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left in silence, an old round would stand among a run's files."""
    (tmp_path / "round-1").mkdir()
    (tmp_path / "round-1/server.safetensors").write_text("x")

    def unlink(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(UserError, match=r"round-1: cannot be removed \(Permission denied\)"):
        remove_folder(tmp_path / "round-1")
