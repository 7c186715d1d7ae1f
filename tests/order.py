"""Which files of tests are started first."""

import pytest

HEAVY = tuple(
    f"tests/{name}.py"
    for name in (
        *(
            "pipelines/test_digests",
            "e2e/test_deployed_runs",
            "docs/test_commands",
            "e2e/test_flower_simulation",
            "e2e/test_deploy_page",
        ),
        *("e2e/test_deploy", "e2e/test_engines_end", "federation/test_wire", "crashes/test_kills"),
        *("e2e/test_own_data", "report/test_page_in_browser", "pipelines/test_dry_run"),
        *("federation/test_runs", "e2e/test_add_a_method", "e2e/test_snakemake"),
        *("e2e/test_study", "conformance/test_java", "plan/test_memory", "report/test_studies"),
        *("federation/test_federation_settings", "report/test_paper_figures", "pipelines/test_kubernetes"),
        *("federation/test_llava_random", "e2e/test_official_files", "scale/test_scaling"),
        *("evaluation/test_importing", "docs/test_site", "crashes/test_kills_of_llava_random"),
        *("evaluation/test_answers", "scale/test_bench", "report/test_faults", "benchmarks/test_commands"),
        "evaluation/test_scoring",
    )
)
"""The files that take longest, longest first: whatever process is free last should be left with a short one."""


def arrange(items: list[pytest.Item]) -> None:
    """Sort by weight; the tests of a file stay together, and `--dist loadfile` gives them to one process."""
    place = {file: number for number, file in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))
