"""Every command of README.md, CONTRIBUTING.md and docs/: run at smoke size, planned, or held against its parser.

`rules.py` says which, with the reason. What is run starts from the results of `snakemake smoke`; each page has a copy
of them, in which its commands run in their order. One dry run plans all targets (tests/pipelines/test_dry_run.py).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pilot.cli.main import app

from ..marks import few_of
from ..pipelines.test_dry_run import TARGETS as TARGETS_PLANNED
from . import parsing
from .pages import ROOT, Command, commands, commands_of, mentions, pages
from .rules import BEFORE, ELSEWHERE, TARGETS, TWINS, Class, at_smoke_size, classify

COMMANDS = commands()
TO_RUN = [command for command in COMMANDS if (found := classify(command)) and found[0] is Class.RUN]
TO_PLAN = [command for command in COMMANDS if (found := classify(command)) and found[0] is Class.DRY]
TO_MAKE = [command for command in COMMANDS if (found := classify(command)) and found[0] is Class.CI]
TO_PARSE = [command for command in COMMANDS if (found := classify(command)) and found[0] is Class.PARSED]
EXTRAS = [command for command in COMMANDS if command.page == "clusters.md" and command.program == "pip"]
LONG = ("other-tools.md", "first-hour.md", "studies.md", "figures.md", "report.md", "add-a-method.md", "scenarios.md")
"""Pages that take longest, and run for the most part what other tests run, too."""
PAGES_TO_RUN = few_of([page for page in dict.fromkeys(command.page for command in TO_RUN) if page not in LONG], LONG)
PROJECT = ("pyproject.toml", "README.md", "LICENSE", "pilot", "baselines", "pipelines")
LINKED = ("pipelines", "pilot", "examples", ".pre-commit-config.yaml")
_SHELL = re.compile(r"[|<>;&]")


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A bash script in a folder, with this environment's programs and these sources."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    bash = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True)


def planned(text: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A `snakemake` command exactly as it stands, behind options for a dry run in an empty folder."""
    more = ["--executor", "local"] if "--profile " in text and not _has_slurm() else []
    before = " ".join([*options, f"--snakefile {ROOT}/Snakefile --directory {folder}", *more])
    return shell(text.replace("snakemake ", f"python -m snakemake {before} ", 1), ROOT)


def _has_slurm() -> bool:
    import importlib.util

    return importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None


def execute(text: str, folder: Path) -> None:
    """Run a command; those of `pilot-bench` in this process, so that nothing is imported again."""
    if text.startswith("pilot-bench ") and not _SHELL.search(text):
        expanded = shell(f"printf '%s\\0' {text.split(' ', 1)[1]}", folder)
        arguments = expanded.stdout.split("\0")[:-1]
        assert not app(arguments, standalone_mode=False), text
        return
    done = shell(text, folder)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_every_command_has_a_class() -> None:
    unknown = [str(command) for command in COMMANDS if classify(command) is None]
    assert unknown == [], "no rule of tests/docs/rules.py knows these commands"
    counts = Counter(found[0].name for command in COMMANDS if (found := classify(command)))
    print(dict(sorted(counts.items())))  # pytest -rP shows it
    assert counts.keys() == {kind.name for kind in Class} and sum(counts.values()) == len(COMMANDS)
    assert counts["PARSED"] <= 1


def test_no_block_of_commands_is_overlooked() -> None:
    """Blocks in a language that is none of a shell hold no line that begins with one of our programs."""
    for page in pages():
        for language, block in re.findall(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```", page.read_text(), re.M | re.S):
            if language not in ("sh", "bash", "console", "shell"):
                found = re.findall(r"^\s*\$?\s*(?:pilot-bench|snakemake|make|flwr|lm_eval) \S.*", block, re.MULTILINE)
                assert not found, f"{page.name}: {found} in a block of {language or 'no language'}"


def test_statements_by_hand() -> None:
    """A continuation, a comment, two commands in one line, a loop; # inside quotes is no comment."""
    text = "x\n```sh\na \\\n  -b 'c # d'  # comment\ne && f\nfor i in 1; do\n    g $i\ndone\n```\n```text\nno\n```\n"
    found = [(command.line, command.text.split()) for command in commands_of("p", text)]
    assert found[:3] == [(3, ["a", "-b", "'c", "#", "d'"]), (5, ["e"]), (5, ["f"])]
    assert found[3:] == [(6, ["for", "i", "in", "1;", "do", "g", "$i", "done"])]


@pytest.mark.parametrize("command", TO_PARSE, ids=str)
def test_what_is_not_run_would_be_taken(command: Command) -> None:
    parsing.takes(command)


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", EXTRAS, ids=str)
def test_extras_resolve(command: Command, tmp_path: Path) -> None:
    """The lines of docs/clusters.md, by the package registry that the installation came from, without installing.

    Not in the repository: pip writes this package's metadata anew, which runs of other tests read meanwhile.
    """
    for name in PROJECT:
        (tmp_path / name).symlink_to(ROOT / name)
    done = shell(command.text.replace("pip install", "python -m pip install --dry-run", 1), tmp_path)
    assert (tmp_path / "pilot_bench.egg-info/PKG-INFO").is_file(), "metadata were made elsewhere"
    assert done.returncode == 0, done.stderr
    extra = re.search(r"\.\[(\w+)\]", command.text)
    assert extra and f"does not provide the extra '{extra[1]}'" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    ["pilot-bench bench llava-random --no-such-option", "pilot-bench tune --tests 3 -s a -m b", "make scenario9"],
)
def test_a_renamed_option_is_noticed(wrong: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)):
        parsing.takes(Command("page", 1, wrong))


@pytest.mark.parametrize("mention", mentions(), ids=str)
def test_mentions_in_sentences(mention: Command) -> None:
    """Sub-commands, options and targets that stand inside sentences are there."""
    words = [word.split("|")[0] for word in mention.text.split()[1:]]
    parsing.has_options(words) if mention.program == "pilot-bench" else parsing.snakemake_takes(words)


@pytest.mark.parametrize(("page", "_", "where"), ELSEWHERE)
def test_what_runs_elsewhere_runs_there(page: str, _: str, where: str) -> None:
    file, name = where.split("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert f"docs/{page}" in source and re.search(rf"^def {name}", source, re.MULTILINE)


@pytest.mark.parametrize("command", TO_MAKE, ids=str)
def test_continuous_integration_makes_it(command: Command) -> None:
    parsing.takes(command)
    (target,) = command.text.split()[1:]
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert all(re.search(rf"^make {twin}\b(?!-)", ci, re.MULTILINE) for twin in TARGETS[target] or (target,))


def test_targets_have_a_twin_that_runs() -> None:
    """Whatever target is documented, one of its kind is run by this file, by continuous integration or by a test."""
    assert "\nmake smokes\n" in (ROOT / ".ci/run").read_text()
    recipe = re.search(r"^smokes: install\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = parsing.snakemake_takes(recipe[1].replace("$(CORES)", "all").split()[1:]) if recipe else []
    for command in TO_PLAN:
        targets = parsing.snakemake_takes(shlex.split(command.text, comments=True)[1:])
        assert targets, f"{command}: no target"
        for target in targets:
            twin = TWINS[target]
            assert twin in made or (ROOT / twin).is_file(), f"{target}: {twin}"


def test_documented_targets_are_planned() -> None:
    """One dry run plans them all; each command by itself is exhaustive."""
    for command in TO_PLAN:
        assert {*parsing.snakemake_takes(shlex.split(command.text, comments=True)[1:])} <= TARGETS_PLANNED, command


@pytest.mark.exhaustive
@pytest.mark.parametrize("text", sorted({command.text for command in TO_PLAN}))
def test_snakemake_plans_it_as_documented(text: str, tmp_path: Path) -> None:
    done = planned(text, tmp_path, "-n --quiet rules")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^total +\d+$", done.stdout + done.stderr, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_TO_RUN)
def test_the_page_at_smoke_size(page: str, smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = shutil.ignore_patterns("faults", "pilot+no-ata", "scores-*.json")  # of the other smoke targets
    shutil.copytree(smoke_run / "results/smoke/smoke", tmp_path / "results/smoke/smoke", ignore=beside)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PILOT_DATASETS", raising=False)
    monkeypatch.setattr("pilot.report.compare.reference.REFERENCE", tmp_path / "reference")
    own = [command for command in TO_RUN if command.page == page]
    for command in own:
        for pattern, preparation in BEFORE:
            if re.match(pattern, command.text):
                execute(preparation, tmp_path)
        execute(at_smoke_size(command.text), tmp_path)
