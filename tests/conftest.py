"""What several folders of tests share: one small scenario with data, partition and features, built once."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it when it is imported

import pytest
from hypothesis import settings

from .small import Small

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small scenario; its files are not to be changed."""
    scenario = Small(tmp_path_factory.mktemp("small"))
    scenario.build()
    return scenario
