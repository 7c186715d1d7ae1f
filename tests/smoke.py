"""Results of the smoke targets: those that continuous integration has made, or a run of Snakemake for these tests."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from .pipelines.workflow import ROOT, snakemake

VARIABLE = "PILOT_SMOKE_RESULTS"
"""Names the results folder of a finished `snakemake smoke smoke_faults smoke_study` of these sources."""


def make_smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Snakemake has run, with `results` and `.snakemake`; the first process that asks makes it."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).resolve().parent
    folder = shared_folder(tmp_path_factory) / "smoke"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").is_file():
            folder.mkdir(exist_ok=True)
            arguments = ("--cores", "2", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--quiet", "all")
            done = snakemake("smoke", "smoke_faults", "smoke_study", *arguments)  # --quiet takes all words after it
            assert done.code == 0, done.text
            (folder / "done").touch()
    return folder


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run that all of its processes see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


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
