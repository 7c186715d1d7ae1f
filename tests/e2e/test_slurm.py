"""The pipeline as SLURM would run it: a dry run with the shipped Snakemake profile."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..pipelines.workflow import ROOT, dry_run

ON_GPU = ("features", "train", "answers")
HAS_PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None


def resources(profile: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The resources of one job of each rule, by rule, in a dry run with the SLURM profile.

    Without the executor plugin, an option `pip install 'pilot-bench[slurm]'`, the local executor stands in; what the
    profile says apart from `executor` is read either way.
    """
    options = [] if HAS_PLUGIN else ["--executor", "local"]
    done = dry_run(
        "scenario2", "--profile", "pipelines/profiles/slurm", *options,
        "--config", f"profile={profile}", f"results={folder}",
    )  # fmt: skip
    return {job["rule_name"]: job["resources"] for job in done.jobs}


@pytest.mark.slow
def test_jobs_ask_for_what_they_need(tmp_path: Path) -> None:
    """The profile `llava` needs a GPU where the model runs, and nowhere else; `embedded` needs none."""
    llava, embedded = resources("llava", tmp_path), resources("embedded", tmp_path)
    assert {"data", "partition", "score", "tables", "draw", *ON_GPU} <= llava.keys()
    for rule, asked in llava.items():
        if rule != "scenario2":
            assert asked["mem_mb"] >= 2000 and asked["runtime"] >= 30, rule
        assert asked.get("gpu", 0) == (1 if rule in ON_GPU else 0), rule
    assert {llava[rule]["mem_mb"] for rule in ON_GPU} == {64000}
    assert llava["features"]["disk_mb"] > 116_790  # what `pilot-bench plan` counts for llava-scenario2
    assert {asked.get("gpu", 0) for asked in embedded.values()} == {0}


def test_profile_names_the_executor() -> None:
    values = yaml.safe_load((ROOT / "pipelines/profiles/slurm/config.yaml").read_text())
    assert values["executor"] == "slurm" and values["rerun-incomplete"] is True
