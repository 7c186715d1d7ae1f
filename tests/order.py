"""Which files of tests are started first."""

import pytest

HEAVY = tuple(
    f"tests/{name}.py"
    for name in (
        *("e2e/test_deployed_runs", "pipelines/test_digests", "federation/test_runs", "crashes/test_kills"),
        *("e2e/test_flower_simulation", "e2e/test_deploy", "e2e/test_deploy_page", "docs/test_commands"),
        *("report/test_paper_figures", "federation/test_wire", "report/test_studies"),
        *("federation/test_evaluated_rounds", "pipelines/test_dry_run", "report/test_page_in_browser"),
        *("e2e/test_engines_end", "conformance/test_java", "report/test_tables", "federation/test_families"),
        *("federation/test_federation_settings", "report/test_protocols", "federation/test_unseen"),
        *("e2e/test_own_data", "e2e/test_add_a_method", "e2e/test_snakemake", "e2e/test_study"),
        *(
            "evaluation/test_importing",
            "test_tuning",
            "report/test_environment",
            "report/test_faults",
            "report/test_compare",
        ),
        *("plan/test_memory", "pipelines/test_kubernetes", "federation/test_llava_random", "e2e/test_official_files"),
        *("scale/test_scaling", "benchmarks/test_commands", "scale/test_bench", "plan/test_plan"),
        *("data/test_conditions", "export/test_stock", "federation/test_flower_transport", "report/test_changes"),
        *("docs/test_site", "crashes/test_kills_of_llava_random", "evaluation/test_answers", "report/test_page"),
        *("report/test_pack", "test_damage", "report/test_retraining", "report/test_frames", "pipelines/test_logs"),
        *("evaluation/test_scoring", "conformance/test_properties", "export/test_write", "report/test_coverage"),
    )
)
"""The files that take longest, longest first: whatever process is free last should be left with a short one."""


def arrange(items: list[pytest.Item]) -> None:
    """Sort by weight; the tests of a file stay together, and `--dist loadfile` gives them to one process."""
    place = {file: number for number, file in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))
