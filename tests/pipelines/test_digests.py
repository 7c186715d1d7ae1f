"""Rules and stages: every rule passes the digest of what its command calls, and an edit plans the right jobs."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pilot.cli.main import app
from pilot.methods.catalogue import METHODS
from pilot.provenance import STAGES, stage_sources

from .workflow import ROOT, copy_repository, dry_run, snakemake

CONFIGURATION = ("--config", "results=out", "fault_methods=fedavg", "zoo_methods=fedmoe")
TARGETS = ("smoke", "smoke_faults", "smoke_study", "smoke_figures", "tuning", "smoke_privacy", *CONFIGURATION)
METHOD_RULES = ("train", "train_fault", "tune")
"""Rules whose stage depends on the method; `answers` follows from `train`."""
CASES: list[tuple[str, str | None]] = [*((stage, None) for stage in STAGES), *(("train", name) for name in METHODS)]
FILES = sorted({file for case in CASES for file in stage_sources(*case)})


def rules() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Of every rule that runs a job: its command, and the stages and methods whose digests it passes."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    files = sorted(
        set((ROOT / "pipelines").glob("*.smk")) - {ROOT / "pipelines/workflow.smk"}
    )  # which has targets only
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    blocks = [block.partition(":") for block in re.split(r"^(?:use )?rule ", text, flags=re.MULTILINE)[1:]]
    for head, _, block in sorted(blocks, key=lambda parts: " as " in parts[0]):  # what is inherited from comes first
        base, _, name = head.removesuffix(" with").partition(" as ")
        commands = re.findall(r"pilot-bench ((?:[a-z]+ )+)", block)
        digests = re.findall(r'stage_digest\("(\w+)"(?:, (wildcards\.method))?\)', block)
        command, inherited = found.get(base, ("", [])) if name else (commands[0].strip(), [])
        found[name or base] = command, digests or inherited
    return found


def called_by(command: str) -> set[str]:
    """What the function of a command imports, as `module:name`."""
    group: Any = typer.main.get_command(app)
    for word in command.split():
        group = group.commands.get(word, group) if hasattr(group, "commands") else group
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(group.callback))))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {f"{node.module}:{alias.name}" for node in nodes for alias in node.names}


def test_every_rule_passes_the_digest_of_what_its_command_calls() -> None:
    stages = {rule: digests for rule, (_, digests) in rules().items()}
    del stages["backbone"]  # its recipe has a digest of its own
    assert all(len(digests) == 1 for digests in stages.values())
    assert {stage for ((stage, _),) in stages.values()} == set(STAGES)
    assert {rule for rule, ((_, method),) in stages.items() if method} == set(METHOD_RULES)
    for rule, ((stage, _),) in stages.items():
        assert set(STAGES[stage]) <= called_by(rules()[rule][0]), rule


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A copy of the repository in which every job counts as done, and the jobs; their files are empty.

    Every method is trained, so that an edit of any file is followed by a job.
    """
    trained = ", ".join(name for name in METHODS if name not in ("untuned", "majority"))  # these two always are
    copy = copy_repository(tmp_path_factory.mktemp("edits") / "copy", methods=trained)
    jobs = dry_run(*TARGETS, folder=copy).jobs
    for output in (copy / name for job in jobs for name in job["output"]):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch() if output.suffix else output.mkdir()
    done = snakemake(*TARGETS, "--touch", "--forceall", "--cores", "1", folder=copy)
    assert done.code == 0, done.text
    return copy, jobs


def names(jobs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Rules and outputs of jobs, sorted."""
    return sorted((job["rule_name"], " ".join(job["output"])) for job in jobs)


def expected(jobs: list[dict[str, Any]], file: str) -> Iterator[dict[str, Any]]:
    """The jobs whose stage imports a file, and those that read what these make; jobs come before what reads them."""
    stages = {rule: digests[0][0] for rule, (_, digests) in rules().items() if digests}
    made: set[str] = set()
    for _ in jobs:
        for job in jobs:
            rule = job["rule_name"]
            method = job["wildcards"]["method"] if rule in METHOD_RULES else None
            imports = rule in stages and file in stage_sources(stages[rule], method)
            if imports or made & {*job["input"]}:
                made |= {*job["output"], f"job {names([job])}"}
    return (job for job in jobs if f"job {names([job])}" in made)


@pytest.mark.exhaustive
@pytest.mark.parametrize("file", FILES)
def test_an_edit_plans_the_jobs_that_import_the_file(planned: tuple[Path, list[dict[str, Any]]], file: str) -> None:
    copy, jobs = planned
    text = (copy / file).read_text()
    (copy / file).write_text(text + "\n# changed\n" if file.endswith((".py", ".yaml")) else text + "\n")
    try:
        found = names(dry_run(*TARGETS, folder=copy).jobs)
    finally:
        (copy / file).write_text(text)
    assert found == names(list(expected(jobs, file))) != []
