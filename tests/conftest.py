"""What several folders of tests share: one small scenario, one smoke run, and the order in which files are taken."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported

from pathlib import Path

import pytest
from hypothesis import settings

from .differences import differences
from .order import arrange
from .small import Small
from .smoke import make_smoke_run, shared_folder

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small scenario; its files are not to be changed."""
    scenario = Small(tmp_path_factory.mktemp("small"), shared=shared_folder(tmp_path_factory) / "trained")
    scenario.build()
    return scenario


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """As `small`, with one client per task: for engines that start a process per message or per client."""
    shared = shared_folder(tmp_path_factory) / "trained-few"
    scenario = Small(tmp_path_factory.mktemp("few"), clients_per_task=1, shared=shared)
    scenario.build()
    return scenario


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `snakemake smoke smoke_faults smoke_study` has run; not to be changed."""
    return make_smoke_run(tmp_path_factory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the heavy files first."""
    arrange(items)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Two runs' files (name to bytes) are megabytes that nobody reads: what differs, a line for each file."""
    if op != "==" or not (_is_files(left) and _is_files(right)):
        return None
    assert isinstance(left, dict) and isinstance(right, dict)
    return ["the files of two runs", *differences(left, right)]


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, bytes) for each in value.values())
