"""The fake scenario, built once; tests that change it take `scenario_copy`. What `publish` takes, of smoke results."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from pilot.report.tables.write import write_tables

from ..docs.pages import ROOT
from ..smoke import shared_folder
from .synthetic import build_scenario

PUBLISH_PAGE = (ROOT / "docs/publish.md").read_text(encoding="utf-8")
STATEMENTS = PUBLISH_PAGE.split("```yaml\n")[1].split("```")[0]


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


@pytest.fixture(scope="session")
def publishable(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of two runs of the smoke results, their data and tables; not to be changed."""
    source, target = smoke_run / "results/smoke/smoke", tmp_path_factory.mktemp("publishable") / "smoke/smoke"
    for name in ("data", "partition", "tables", "runs/pilot/seed0", "runs/fedavg/seed0"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("checkpoint", "clients"))
    return target


@pytest.fixture(scope="session")
def statements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of statements that docs/publish.md shows."""
    file = tmp_path_factory.mktemp("statements") / "about.yaml"
    file.write_text(STATEMENTS)
    return file
