"""Results of the smoke targets: those that continuous integration has made, or a run of Snakemake for these tests."""

import os
import shutil
from pathlib import Path

import pytest

from .pipelines.workflow import ROOT, snakemake

VARIABLE = "PILOT_SMOKE_RESULTS"
"""Names the results folder of a finished `snakemake smoke smoke_faults smoke_study` of these sources."""


def make_smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Snakemake has run, with `results` and `.snakemake`; made where nobody has."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).resolve().parent
    folder = tmp_path_factory.mktemp("smoke")
    arguments = ("--cores", "2", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--quiet", "all")
    done = snakemake(*arguments, "smoke", "smoke_faults", "smoke_study")
    assert done.code == 0, done.text
    return folder


def copy_smoke_run(source: Path, target: Path) -> None:
    """Results and what Snakemake knows of them, with the times of all files, to a copy of the repository.

    Snakemake knows the shipped checkpoint by its absolute path.
    """
    shutil.copytree(source / "results/smoke", target / "results/smoke")
    for name in ("metadata", "incomplete"):
        (target / ".snakemake" / name).mkdir(parents=True, exist_ok=True)
    for path in (source / ".snakemake/metadata").iterdir():
        known = path.read_text(encoding="utf-8").replace(f"{ROOT}/", f"{target}/")
        (target / ".snakemake/metadata" / path.name).write_text(known, encoding="utf-8")
