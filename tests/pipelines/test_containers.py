"""Dockerfile, apptainer.def and the conda environment: what they copy is there and enough; no engine is needed."""

import os
import re
from pathlib import Path

import pytest

from .test_files import PIPELINES
from .workflow import ROOT, snakemake

DOCKER, APPTAINER = ROOT / "Dockerfile", ROOT / "apptainer.def"
NEEDED = {
    "requirements.lock", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "pilot", "baselines", "pipelines",
}  # fmt: skip
STUB = """#!/usr/bin/env bash
if [ "$1" = --version ]; then echo "apptainer version 1.3.0"; exit; fi
echo "$@" >> "$STUB_LOG"
exec "${@: -3}"
"""
"""Runs the command, which Snakemake passes behind the image, on this machine."""
CONDA = """#!/usr/bin/env bash
case "$*" in
    --version) echo "conda 25.1.0" ;;
    "info --json") echo "{\\"conda_prefix\\": \\"$STUB_PREFIX\\", \\"platform\\": \\"linux-64\\"}" ;;
    "config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
    "env create "*) echo "$@" >> "$STUB_LOG"; mkdir -p "${@: -1}" ;;
    "clean "*) ;;
    *) exit 9 ;;
esac
"""


def test_both_images_copy_what_the_package_is_made_of() -> None:
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", DOCKER.read_text(), re.MULTILINE) for name in line.split()
    }
    files = re.search(r"^%files\n((?:    .*\n)+)", APPTAINER.read_text(), re.MULTILINE)
    assert files and copied == {line.split()[0] for line in files[1].splitlines()} == NEEDED
    assert all((ROOT / name).exists() for name in NEEDED)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == NEEDED


def test_both_images_install_alike() -> None:
    base = re.findall(r"^FROM (\S+)$", DOCKER.read_text(), re.MULTILINE)
    assert base == re.findall(r"^From: (\S+)$", APPTAINER.read_text(), re.MULTILINE)
    commands = re.findall(r"pip (?:install|check)[^&\n]*", DOCKER.read_text())
    assert [each.strip() for each in commands] == re.findall(r"pip (?:install|check).*", APPTAINER.read_text())
    lock = (ROOT / "requirements.lock").read_text()
    assert "torch==" in commands[0], "with its libraries, which the lock leaves to the build for a GPU or without one"
    assert "--no-build-isolation" in commands[2] and re.search(r"^setuptools==", lock, re.MULTILINE)


def build_data_with(folder: Path, program: str, stand_in: str, **variables: str) -> str:
    """Make smoke data under `--sdm` with a stand-in for `program`; return what the stand-in was called with."""
    (folder / "bin").mkdir(exist_ok=True)
    (stub := folder / "bin" / program).write_text(stand_in)
    stub.chmod(0o755)
    made = folder / "results/smoke/smoke/data/manifest.json"
    options = ("--cores", "1", "--sdm", program, "--directory", folder, "--snakefile", PIPELINES / "workflow.smk")
    done = snakemake(
        str(made), *options, "--config", f"results={folder}/results",
        STUB_LOG=str(folder / "log"), PATH=f"{folder}/bin:{os.environ['PATH']}", **variables,
    )  # fmt: skip
    assert done.code == 0, done.text
    assert made.is_file()
    return (folder / "log").read_text()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_jobs_run_in_the_image(tmp_path: Path) -> None:
    """With a stand-in for apptainer, since no engine is needed here."""
    (image := tmp_path / "my.sif").touch()
    log = build_data_with(tmp_path, "apptainer", STUB, PILOT_BENCH_CONTAINER=str(image))
    assert str(image) in log and "pilot-bench data build" in log


@pytest.mark.slow
@pytest.mark.exhaustive
def test_jobs_run_in_the_conda_environment(tmp_path: Path) -> None:
    """With a stand-in for conda, whose channels are not needed here: what Snakemake has it make, and activates."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/activate").write_text('echo "activate $1" >> "$STUB_LOG"\n')
    made, activated = build_data_with(tmp_path, "conda", CONDA, STUB_PREFIX=str(tmp_path)).splitlines()
    (file,) = re.findall(r"--file (\S+)", made)
    assert Path(file).read_bytes() == (PIPELINES / "envs/pilot-bench.yaml").read_bytes()
    assert made.endswith(f"--prefix {activated.removeprefix('activate ')}")
