"""The fake scenario, built once; tests that change it take `scenario_copy`."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from pilot.report.tables.write import write_tables

from ..smoke import shared_folder
from .synthetic import build_scenario


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario folder with tables, not to be changed: a copy of what the first process that asks makes."""
    made = shared_folder(tmp_path_factory) / "made-up"
    with FileLock(f"{made}.lock"):
        if not (made / "done").is_file():
            write_tables(build_scenario(made, protocols=True), "fedavg")
            (made / "done").touch()
    return Path(shutil.copytree(made / "embedded/scenario2", tmp_path_factory.mktemp("results") / "embedded/scenario2"))


@pytest.fixture
def scenario_copy(scenario: Path, tmp_path: Path) -> Path:
    """A copy of the fake scenario that a test may break."""
    return Path(shutil.copytree(scenario, tmp_path / "copy" / "embedded" / "scenario2"))
