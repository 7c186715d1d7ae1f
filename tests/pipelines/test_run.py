"""`pilot-bench run`: the packaged workflow in any folder; a wheel makes what the repository makes, by equal digests."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pilot.config.load import load_profile, load_scenario
from pilot.methods.catalogue import METHODS
from pilot.provenance import STAGES, stage_digest

from ..command_line import call
from .workflow import ROOT, copy_repository

DIGESTS = """
import json
from pilot.methods.catalogue import METHODS
from pilot.provenance import STAGES, stage_digest
print(json.dumps([*map(stage_digest, STAGES), *(stage_digest("train", name) for name in METHODS)]))
"""


def run(folder: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """`pilot-bench run` in a process in `folder`."""
    command = [python, "-c", "from pilot.cli.main import main; main()", "run", *arguments]
    paths = str(ROOT) if python == sys.executable else ""
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def write_own(folder: Path) -> None:
    """A scenario `mine`, and a profile that replaces the one of the package, in `folder`."""
    for kind, base, name in (("scenarios", "smoke", "mine"), ("profiles", "smoke", "smoke")):
        text = (ROOT / f"pipelines/{kind}/{base}.yaml").read_text()
        (folder / "pipelines" / kind).mkdir(parents=True)
        changed = text.replace("name: smoke", f"name: {name}").replace("rounds: 2", "rounds: 3")
        (folder / "pipelines" / kind / f"{name}.yaml").write_text(changed)


def test_files_of_the_current_folder_replace_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_profile("smoke").rounds == 2
    write_own(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_profile("smoke").rounds == 3 and load_scenario("mine").name == "mine"
    assert load_scenario("smoke").name == "smoke", "the others are still those of the package"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smokee"], "command line: field TARGET: unknown name 'smokee'. Did you mean 'smoke'?"),
        (["--", "--keep-going"], "command line: no target."),
        (["smoke", "--cores", "few"], "--cores few: expected a number of cores, or all."),
        (["smoke", "--config", "smoke"], "--config smoke: expected KEY=VALUE"),
        (["smoke", "--config", "profil=smoke"], "field profil: unknown name 'profil'. Did you mean 'profile'?"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("run", *arguments)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())


def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets and options of docs/run.md, as they reach Snakemake."""
    page = (ROOT / "docs/run.md").read_text()
    lines = re.findall(r"^pilot-bench (run scenario.*)$", page, re.MULTILINE)
    taken: list[list[str]] = []
    monkeypatch.chdir(tmp_path)

    def main(words: list[str]) -> None:
        taken.append(words)
        raise SystemExit(1)

    monkeypatch.setattr("snakemake.cli.main", main)
    assert [call(*line.split()).returncode for line in lines] == [1, 1, 1]
    ours = ["--snakefile", str(ROOT / "pipelines/workflow.smk"), "--cores"]
    assert taken == [
        [*ours, "all", "--dry-run", "--", "scenario2"],
        [*ours, "8", "--config", "profile=embedded", "seeds=10", "--", "scenario1", "scenario2"],
        ["--keep-going", "--quiet", "host", "reason", *ours, "all", "--", "scenario2"],
    ]


@pytest.mark.slow
def test_own_scenario_and_profile_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    folder.mkdir()
    write_own(folder)
    options = ("--config", "profile=smoke", "--config", "results=my results", "--cores", "1")
    done = run(folder, "mine", "--dry-run", *options, "--", "--quiet", "host", "reason")
    assert done.returncode == 0, done.stderr
    assert "train pilot, seed 0, mine (smoke)" in done.stdout + done.stderr
    assert "write report.html of mine (smoke)" in done.stdout + done.stderr
    assert {path.name for path in folder.iterdir()} == {"pipelines", ".snakemake"}


@pytest.mark.slow
@pytest.mark.java
@pytest.mark.exhaustive
def test_the_wheel_makes_what_the_repository_makes(smoke_run: Path, tmp_path: Path) -> None:
    """Built, installed alone in an environment whose other packages are links, and run in an empty folder."""
    source, home = copy_repository(tmp_path / "source"), tmp_path / "an environment"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build, check=True)
    venv.create(home, with_pip=False)
    python = str(home / "bin/python")
    packages = next((home / "lib").glob("*/site-packages"))
    for path in Path(next(entry for entry in sys.path if entry.endswith("site-packages"))).iterdir():
        if "pilot_bench" not in path.name:
            (packages / path.name).symlink_to(path)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    empty = tmp_path / "my runs"
    empty.mkdir()
    printed = subprocess.run([python, "-c", DIGESTS], cwd=empty, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == [*map(stage_digest, STAGES), *(stage_digest("train", name) for name in METHODS)]
    done = run(empty, "smoke", "--cores", "2", python=python)
    assert done.returncode == 0, done.stderr
    made, expected = (folder / "results/smoke/smoke" for folder in (empty, smoke_run))
    assert (made / "report.html").is_file() and (made / "figures/bars.pdf").is_file()
    assert (made / "tables/main.csv").read_text() == (expected / "tables/main.csv").read_text()
