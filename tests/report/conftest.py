"""The fake scenario, built once; tests that change it take `scenario_copy`."""

import shutil
from pathlib import Path

import pytest

from pilot.report.tables.write import write_tables

from .synthetic import build_scenario


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fake scenario folder with tables; not to be changed."""
    folder = build_scenario(tmp_path_factory.mktemp("results"), protocols=True)
    write_tables(folder, "fedavg")
    return folder


@pytest.fixture
def scenario_copy(scenario: Path, tmp_path: Path) -> Path:
    """A copy of the fake scenario that a test may break."""
    return Path(shutil.copytree(scenario, tmp_path / "copy" / "embedded" / "scenario2"))
