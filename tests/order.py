"""Which tests share a process, and what is started first."""

import os
from collections.abc import Iterator

import pytest

from .smoke import VARIABLE

HEAVY = tuple(
    f"tests/{name}.py"
    for name in (
        *("e2e/test_deployed_runs", "federation/test_wire", "faults/test_kills", "e2e/test_deploy_page"),
        *("docs/test_commands", "e2e/test_flower_simulation", "federation/test_runs", "e2e/test_deploy"),
        *("e2e/test_add_a_method", "e2e/test_snakemake", "e2e/test_own_data", "e2e/test_study"),
        *("pipelines/test_kubernetes", "federation/test_llava_random", "pipelines/test_dry_run"),
        *("report/test_page_in_browser", "docs/test_site", "e2e/test_official_files", "conformance/test_java"),
        *("faults/test_kills_of_llava_random", "scale/test_scaling", "evaluation/test_answers", "plan/test_memory"),
    )
)
"""The files that take longest, longest first: whatever process is free last should be left with a short one."""


def arrange(items: list[pytest.Item]) -> None:
    """Sort by weight and group by file, so that fixtures of a module are made once.

    Without results of the smoke targets to read, all tests that need them share one process, which makes them once.
    """
    shared = set() if os.environ.get(VARIABLE) else {_file(item) for item in items if "smoke_run" in _fixtures(item)}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("smoke" if _file(item) in shared else _file(item)))
    place = {file: number for number, file in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(_file(item), len(place)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::")[0]


def _fixtures(item: pytest.Item) -> Iterator[str]:
    yield from getattr(item, "fixturenames", ())
