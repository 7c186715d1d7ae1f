"""Nothing that a user can name reaches a shell unquoted: folders with spaces, `&`, quotes or dollar signs."""

import re
from pathlib import Path

import pytest
import yaml

from .workflow import PARTS, ROOT, copy_repository, snakemake

RULES = sorted((ROOT / "pipelines").glob("*.smk"))
HOSTILE = 'Müller\'s "results" & $HOME; `more` [*]?'
_SHELL = re.compile(r"^    shell:\n((?:        .*\n)+)", re.MULTILINE)
_SUBSTITUTION = re.compile(r"(?<!\{)\{([^{}]+)\}(?!\})")


def unquoted(text: str) -> list[str]:
    """The substitutions in the shell commands of a file of rules that Snakemake would not quote."""
    commands = "".join(_SHELL.findall(text))
    return [name for name in _SUBSTITUTION.findall(commands) if not name.endswith(":q")]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_substitution_is_quoted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert unquoted(text) == []
    assert len(_SHELL.findall(text)) == text.count("shell:"), "a shell command in another form"
    assert not re.search(r"\b(?:shell|os\.system)\(", text), "a shell command in a function"


def test_what_is_unquoted_is_found() -> None:
    assert unquoted('rule a:\n    shell:\n        "tool {params.x:q} {{print}} {output}"\n') == ["output"]


def test_clusters_are_told_numbers_and_names_of_rules_alone() -> None:
    """Snakemake formats these commands without quoting; the script's path is appended by the plugin."""
    values = yaml.safe_load((ROOT / "pipelines/profiles/kubernetes/config.yaml").read_text())
    names = _SUBSTITUTION.findall(values["cluster-generic-submit-cmd"])
    assert set(names) <= {"rule", "threads"} | {f"resources.{name}" for name in ("mem_mb", "runtime", "gpu")}


@pytest.mark.exhaustive
def test_the_whole_pipeline_in_a_folder_with_a_hostile_name(tmp_path: Path) -> None:
    """A clone and results whose names a shell would take apart; nothing is written beside them."""
    copy = copy_repository(tmp_path / f"{HOSTILE} clone", methods="pilot, fedavg, fedmoe")
    targets = ("smoke", "smoke_faults", "smoke_study", "smoke_figures")
    done = snakemake(*targets, "--cores", "1", "--config", f"results={HOSTILE}", folder=copy)
    assert done.code == 0, done.text
    assert {path.name for path in copy.iterdir()} == {*PARTS, "Snakefile", ".snakemake", HOSTILE}
    assert {path.name for path in tmp_path.iterdir()} == {copy.name}
    assert (copy / HOSTILE / "smoke/smoke/report.html").is_file()
