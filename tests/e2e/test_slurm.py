"""The pipeline as SLURM would run it: a dry run with the shipped Snakemake profile."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ON_GPU = ("features", "train", "answers")
HAS_PLUGIN = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None


def resources(profile: str, folder: Path) -> dict[str, dict[str, str]]:
    """The resources of one job of each rule, by rule, as a dry run with the SLURM profile prints them.

    Without the executor plugin, an option `pip install 'pilot-bench[slurm]'`, the local executor stands in; what the
    profile says apart from `executor` is read either way.
    """
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", "pipelines/profiles/slurm"]
    command += [] if HAS_PLUGIN else ["--executor", "local"]
    command += ["--config", f"profile={profile}", f"results={folder}", "--", "scenario2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    found, job = {}, re.compile(r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", re.MULTILINE)
    for rule, line in job.findall(result.stdout + result.stderr):
        found[rule] = dict(part.split("=", 1) for part in line.split(", "))
    return found


@pytest.mark.slow
def test_jobs_ask_for_what_they_need(tmp_path: Path) -> None:
    """The profile `llava` needs a GPU where the model runs, and nowhere else; `embedded` needs none."""
    llava, embedded = resources("llava", tmp_path), resources("embedded", tmp_path)
    assert {"data", "partition", "score", "tables", "draw", *ON_GPU} <= llava.keys()
    for rule, asked in llava.items():
        assert int(asked["mem_mb"]) >= 2000 and int(asked["runtime"]) >= 30, rule
        assert asked.get("gpu", "0") == ("1" if rule in ON_GPU else "0"), rule
    assert {llava[rule]["mem_mb"] for rule in ON_GPU} == {"64000"}
    assert {asked.get("gpu", "0") for asked in embedded.values()} == {"0"}


def test_profile_names_the_executor() -> None:
    values = yaml.safe_load((ROOT / "pipelines/profiles/slurm/config.yaml").read_text())
    assert values["executor"] == "slurm" and values["rerun-incomplete"] is True
