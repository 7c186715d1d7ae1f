"""Runs Snakemake on this repository or on a copy of it, and reads the jobs that it announces."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOGGERS = Path(__file__).parent / "loggers"
PARTS = ("pilot", "baselines", "pipelines")


@dataclass(frozen=True)
class Done:
    """A finished call of Snakemake."""

    code: int
    output: str
    errors: str
    jobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All it printed, without the lines of the tests' own logger."""
        return "\n".join(line for line in (self.output + self.errors).splitlines() if not line.startswith("job {"))

    def rules(self) -> set[str]:
        """The rules of its jobs."""
        return {job["rule_name"] for job in self.jobs}


def snakemake(*arguments: str | Path, folder: Path = ROOT, **variables: str) -> Done:
    """Run `snakemake` in a folder, with the sources that lie in it."""
    paths = [str(folder), str(LOGGERS), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    jobs = [json.loads(line[4:]) for line in done.stderr.splitlines() if line.startswith("job {")]
    return Done(done.returncode, done.stdout, done.stderr, jobs)


def dry_run(*arguments: str | Path, folder: Path = ROOT) -> Done:
    """A dry run that must work."""
    done = snakemake(*arguments, "--dry-run", "--logger", "jobs", folder=folder)
    assert done.code == 0, done.text
    return done


def copy_repository(folder: Path, methods: str = "pilot, fedavg, fedmoe") -> Path:
    """A copy of the repository whose smoke scenario has the given methods."""
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    scenario = folder / "pipelines/scenarios/smoke.yaml"
    text = scenario.read_text()
    assert "methods: [pilot, fedavg, fedmoe]" in text
    scenario.write_text(text.replace("methods: [pilot, fedavg, fedmoe]", f"methods: [{methods}]"))
    return folder
