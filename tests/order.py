"""Which files of tests are started first."""

import pytest

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
    """Sort by weight; the tests of a file stay together, and `--dist loadfile` gives them to one process."""
    place = {file: number for number, file in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))
