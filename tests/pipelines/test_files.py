"""What the workflow ships beside its rules: captions, environment, catalogue entry; and that the package has it all."""

import re
import tomllib
from importlib.metadata import metadata

import yaml
from packaging.specifiers import SpecifierSet

from pilot.report.plots.write import FIGURES

from .workflow import ROOT

PIPELINES = ROOT / "pipelines"


def test_every_figure_has_a_caption_of_its_own() -> None:
    text = (PIPELINES / "report/figures.rst").read_text()
    assert sorted(re.findall(r'figure == "(\w+)"', text)) == sorted(FIGURES)


def test_every_caption_is_used() -> None:
    rules = "".join(path.read_text() for path in PIPELINES.glob("*.smk"))
    captions = {path.name for path in (PIPELINES / "report").iterdir()}
    assert captions == set(re.findall(r'caption="report/([\w.]+)"', rules)) | {"workflow.rst"}


def test_environment_holds_the_locked_dependencies_and_this_package() -> None:
    """From the file itself and from Snakemake's copy in .snakemake/conda, the repository is two levels up."""
    environment = PIPELINES / "envs/pilot-bench.yaml"
    python, _, pip = yaml.safe_load(environment.read_text())["dependencies"]
    assert python == "python=3.11"
    (lock, package) = (line.split()[1] for line in pip["pip"])
    assert (environment.parent / lock).resolve() == ROOT / "requirements.lock"
    assert (environment.parent / package).resolve() == ROOT


def test_locked_versions_install_on_the_oldest_python() -> None:
    """Of Python 3.11 people have any release; Debian 12's is 3.11.2."""
    oldest = (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=") + ".0"
    )
    locked = [line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()]
    needs = {name: metadata(name).get("Requires-Python") or "" for name in locked}
    assert len(needs) > 100
    assert {name: needed for name, needed in needs.items() if oldest not in SpecifierSet(needed)} == {}


def test_the_package_has_every_file_of_the_workflow() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["pipelines"]
    packed = {path for pattern in patterns for path in PIPELINES.glob(pattern)}
    there = {path for path in PIPELINES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert there - packed == set()


def test_catalogue_entry() -> None:
    """The Snakemake workflow catalogue finds workflows by these words in the README, and reads the file's options."""
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True and not usage["mandatory-flags"]["flags"]
