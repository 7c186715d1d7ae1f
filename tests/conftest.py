"""What several folders of tests share: one small scenario with data, partition and features, built once."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported

import pytest
from hypothesis import settings

from .differences import differences
from .small import Small

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small scenario; its files are not to be changed."""
    scenario = Small(tmp_path_factory.mktemp("small"))
    scenario.build()
    return scenario


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Two runs' files (name to bytes) are megabytes that nobody reads: what differs, a line for each file."""
    if op != "==" or not (_is_files(left) and _is_files(right)):
        return None
    assert isinstance(left, dict) and isinstance(right, dict)
    return ["the files of two runs", *differences(left, right)]


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, bytes) for each in value.values())
