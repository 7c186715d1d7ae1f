"""`snakemake --lint` has nothing to say about the workflow, and would."""

from pathlib import Path

import pytest

from .workflow import copy_repository, snakemake


@pytest.mark.slow
def test_workflow_is_in_good_condition() -> None:
    done = snakemake("--lint")
    assert done.code == 0 and "good condition" in done.text, done.text


@pytest.mark.slow
def test_a_rule_without_log_is_found(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path / "copy", methods="fedavg")
    with (copy / "pipelines/report.smk").open("a") as file:
        file.write('\n\nrule bare:\n    output:\n        "bare.txt",\n    shell:\n        "touch {output}"\n')
    done = snakemake("--lint", folder=copy)
    assert done.code == 1
    assert "Lints for rule bare" in done.text and "No log directive defined" in done.text
