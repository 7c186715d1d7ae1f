"""The packaged Snakemake workflow, run in the current folder."""

import re
from collections.abc import Sequence
from itertools import takewhile

from pilot.config.files import PACKAGED, check_known, known_names
from pilot.config.load import load_scenario, scenario_for_profile
from pilot.config.study import load_study
from pilot.config.variant import base_name
from pilot.errors import UserError
from pilot.workflow_config import WorkflowConfig, read_workflow_config

WORKFLOW = PACKAGED / "workflow.smk"
OUTPUTS = ("tables/main.csv", "figures", "report.html")
"""Of a scenario that has no rule; the job that writes one table writes them all."""


def run_workflow(words: Sequence[str], cores: str, dry_run: bool, settings: Sequence[str]) -> int:
    """Run Snakemake with the packaged workflow in the current folder; return its exit code.

    Args:
        words: targets (rules of the workflow, scenarios, studies or files), then options for Snakemake, the first of
            which begins with a dash.
        cores: a number, or `all`.
        dry_run: whether to list jobs only.
        settings: the workflow's configuration, as `KEY=VALUE`.

    Raises:
        UserError: a target, the number of cores or a setting is invalid; nothing runs then.
    """
    from snakemake.cli import main, parse_config

    targets = list(takewhile(lambda word: not word.startswith("-"), words))
    if not targets:
        raise UserError("command line: no target. Name one before `--`, such as scenario2; options follow it.")
    if not re.fullmatch("all|[1-9][0-9]*", cores):
        raise UserError(f"--cores {cores}: expected a number of cores, or all. Correct it.")
    for entry in settings:
        if not re.fullmatch(r"[A-Za-z_]\w+=.*", entry, re.DOTALL):
            raise UserError(f"--config {entry}: expected KEY=VALUE, such as profile=smoke. Correct it.")
    config = read_workflow_config(parse_config(settings))
    names = [name for target in targets for name in _with_files(target, config)]
    options = [*words[len(targets) :], "--snakefile", str(WORKFLOW), "--cores", cores, *["--dry-run"] * dry_run]
    try:
        main([*options, *(("--config", *settings) if settings else ()), "--", *names])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    raise AssertionError("Snakemake's main function exits")


def rules() -> list[str]:
    """Return the names of the workflow's targets."""
    return re.findall(r"^rule (\w+):", WORKFLOW.read_text(encoding="utf-8"), re.MULTILINE) + ["backbone"]


def _with_files(target: str, config: WorkflowConfig) -> list[str]:
    """Return a rule or a file as it is, and the files of a scenario or study that has no rule.

    Raises:
        UserError: there is no such target, or the file of the scenario or study is invalid.
    """
    if "/" in target or target in (targets := rules()):
        return [target]
    scenarios, studies = known_names("scenarios"), known_names("studies")
    check_known("command line", "TARGET", [base_name(target)], {*targets, *scenarios, *studies})
    if target in studies:
        load_study(target)
        return [f"{config.results}/{config.profile}/studies/{target}/index.md"]
    name = scenario_for_profile(load_scenario(target).name, config.profile)
    return [f"{config.results}/{config.profile}/{name}/{output}" for output in OUTPUTS]
