"""What is done with each command of the pages. A command that no rule knows fails `test_commands.py`.

A rule is a page (or "*"), a pattern that the command's text begins with, and a reason. The first that fits counts.
"""

import re
import sys
from enum import StrEnum

from .pages import Command


class Class(StrEnum):
    """What is done with a command."""

    RUN = "run for real, at smoke size"
    DRY = "snakemake: planned as documented"
    ELSEWHERE = "run by another test"
    CI = "a target of make that continuous integration runs, or one of its kind"
    PARSED = "not run: program, sub-command and options checked"


RUN_PROGRAMS = (
    "pilot-bench", "lm_eval", "python", "export", "sed", "mkdocs", ".venv/bin/pre-commit", ".",
)  # fmt: skip
"""Everything of these is run unless a rule says otherwise."""

SUBSTITUTIONS = (
    (r"results/embedded/scenario2", "results/smoke/smoke"),
    (r"pipelines/scenarios/scenario2\.yaml", "pipelines/scenarios/smoke.yaml"),
    (r"(--scenario |-s )scenario2\b", r"\1smoke"),
    (r"--profile embedded\b", "--profile smoke"),
    (r"\{fedavg,fedmedian_lora\}", "{fedavg,fedmoe}"),
    (r"(?<=\"clients\": )100000", "300"),
    (r"^lm_eval ", "PILOT_DATA=results/smoke/smoke/data lm_eval "),  # it looks into scenario2's by default
    (r"^\.venv/bin/", ""),
    (r"^\. \.venv/bin/activate", f". {sys.prefix}/bin/activate"),
    (r"(?<=tune --scenario smoke --profile )smoke --method fedmedian_lora", "smoke-grid.yaml --method fedavg"),
    (r"--layers 8 --hidden 512 --intermediate 1376 --heads 8", "--layers 2 --hidden 64 --intermediate 96 --heads 4"),
)
"""What is other than on the page when a command is run: scenario2 and embedded become smoke, the example's method one
of the suite, 100,000 clients 300, a random LLaVA of 8 layers one of 2; the environment is the one at hand."""

NEEDS_PROFILE = re.compile(
    r"^pilot-bench (?:data build|partition|backbone features|train|study|deploy (?:local|nodes|app run))\b"
)
"""Without --profile these take `embedded`: --profile smoke is added."""

SAMPLES = """python -c "
import json
from pilot.data.record import read_records
records = read_records(__import__('pathlib').Path('results/smoke/smoke/data/scene-caption/records.parquet'))
test = [record for record in records if record.split == 'test']
lines = [{'doc_id': 0, 'doc': {'id': r.id}, 'target': r.answer, 'filtered_resps': ['a dog']} for r in test]
open('samples.jsonl', 'w').write(''.join(json.dumps(line) + chr(10) for line in lines))
"
"""
GRID = r"tuning_grid: [{text_adapter: 0.003, connector: 0.003}, {text_adapter: 0.001, connector: 0.002}]\n"
BEFORE = (
    (r"pilot-bench import --format lm-eval samples", SAMPLES),
    (r"pilot-bench compare .*pilot\+no-ata", "pilot-bench evaluate results/smoke/smoke/runs/pilot+no-ata/seed0"),
    (r"pilot-bench compare results-before ", "mkdir -p results-before && cp -r results/. results-before"),
    (r"pilot-bench tune ", f"cp pipelines/profiles/smoke.yaml smoke-grid.yaml; printf '{GRID}' >> smoke-grid.yaml"),
    (
        r"pilot-bench compare \S+ --reference",
        "mkdir -p reference/smoke; cp -r results/smoke/smoke/tables reference/smoke/smoke",
    ),
    (r".venv/bin/pre-commit", "git init --quiet ."),
)
"""What is made first because its page takes it for granted."""

TWINS = {
    **dict.fromkeys(("scenario1", "scenario2", "scenario3", "smoke"), "smoke"),
    **dict.fromkeys(("zoo", "ablation", "heterogeneity", "asynchrony", "smoke_study"), "smoke_study"),
    **dict.fromkeys(("faults", "smoke_faults"), "smoke_faults"),
    "privacy": "tests/evaluation/audit/test_audit.py",
    "tuning": "tests/test_tuning.py",
    "figures": "tests/e2e/test_snakemake.py",
}
"""Target of Snakemake -> what is run for real in its place: a target of continuous integration, or a test."""

TARGETS = {
    **dict.fromkeys(("install", "test"), ()), "docs": ("test",),
    "scenario2": ("smokes",), "check": ("lint", "types", "test"), "test-fast": ("test",), "test-exhaustive": ("test",),
}  # fmt: skip
"""Target of make -> those that continuous integration runs in its place; itself where there are none."""

_OWN, _METHOD = "tests/e2e/test_own_data.py", "tests/e2e/test_add_a_method.py"
_SNAKEMAKE, _OFFICIAL = "tests/e2e/test_snakemake.py", "tests/e2e/test_official_files.py"
_RIVALS = "tests/benchmarks/test_rivals.py"
ELSEWHERE = (
    ("own-data.md", r"", f"{_OWN}::test_the_page_works_as_it_stands"),
    ("deploy.md", r"", "tests/e2e/test_deploy_page.py::test_the_page_from_first_to_last"),
    ("federation.md", r"(git archive|tar) ", "tests/deployment/test_app_format.py::test_the_hub_takes"),
    ("federation.md", r"(export|flwr run) ", "tests/e2e/test_flower_simulation.py::test_flwr_run_as_documented"),
    ("add-a-method.md", r"pip install ", f"{_METHOD}::folder"),
    ("add-a-method.md", r"snakemake ", f"{_METHOD}::test_snakemake_makes_its_runs"),
    ("add-a-method.md", r"(sed |PROFILE=|RUN=|cp |cmp |for |pilot-bench .*mine)", f"{_METHOD}::test_the_method_is"),
    ("clusters.md", r"pip install ", "tests/docs/test_commands.py::test_extras_resolve"),
    ("clusters.md", r"snakemake --report ", f"{_SNAKEMAKE}::test_report_has_every_figure_and_table_with_its_caption"),
    ("run.md", r"(pip|mkdir|cd|pilot-bench run smoke)", "tests/pipelines/test_run.py::test_the_wheel_makes"),
    ("run.md", r"pilot-bench run ", "tests/pipelines/test_run.py::test_commands_of_the_page"),
    ("protocols.md", r"pilot-bench compare .*unseen", "tests/report/test_protocols.py::test_every_format_shows"),
    ("protocols.md", r"pilot-bench compare .*scenario3", "tests/report/test_protocols.py::test_every_format_shows"),
    ("metrics.md", r"pilot-bench power ", "tests/report/test_retraining.py::test_power_of_made_up_runs"),
    ("metrics.md", r"pilot-bench replication ", "tests/report/test_replication.py::test_summary_counts_the_rows"),
    ("publish.md", r"pilot-bench publish ", "tests/report/test_publish.py::test_the_pages_commands"),
    ("llava.md", r"pilot-bench .*llava-scenario2", f"{_OFFICIAL}::test_official_files_to_comparison"),
    ("privacy-audit.md", r"pilot-bench ", "tests/evaluation/audit/test_audit.py::test_audits_and_their_table"),
    ("llava.md", r"pilot-bench bench gpu ", "tests/benchmarks/test_gpu.py::test_every_part"),
    ("llava.md", r"tests/benchmarks/gpu/", "tests/benchmarks/test_gpu.py::test_a_bare_machine"),
    ("submit.md", r"pilot-bench verify --rerun ", "tests/report/test_entries.py::test_a_seed_trained_again"),
    ("submit.md", r"pilot-bench verify ", "tests/report/test_entries.py::test_a_score_that_does_not_follow"),
    ("smol.md", r"pip install ", "tests/backbone/test_smol.py::test_without_packages_there_is_one_message"),
    ("smol.md", r"pilot-bench (data|partition|backbone|train|evaluate)", "tests/federation/test_smol.py::test_a_round"),
    ("smol.md", r"python -m pilot.pretraining", "tests/backbone/test_smol.py::test_a_killed_recipe"),
    ("notes/many-clients.md", r"pilot-bench bench federation", "tests/scale/test_bench.py::test_the_"),
    ("notes/data-at-full-size.md", r"pilot-bench bench data", "tests/scale/test_data.py::test_the_command"),
    ("notes/rivals.md", r"python tests/benchmarks/rivals/build.py", f"{_RIVALS}::test_an_environment_is_built"),
    ("notes/rivals.md", r"pilot-bench bench rivals ", f"{_RIVALS}::test_the_pages_commands"),
)
"""The last column: the test, or the beginning of the names of tests, in a file."""

PARSED = (("llava.md", r"pilot-bench bench llava-random --full", "needs a GPU"),)


def classify(command: Command) -> tuple[Class, str] | None:
    """The class of a command and the reason; None where no rule knows it."""
    if command.program == "make":
        return Class.CI, " ".join(command.text.split()[1:])
    for kind, rules in ((Class.ELSEWHERE, ELSEWHERE), (Class.PARSED, PARSED)):
        for page, pattern, reason in rules:
            if page in ("*", command.page) and re.match(pattern, command.text):
                return kind, reason
    if command.program == "snakemake":
        return Class.DRY, "planned as it stands"
    return (Class.RUN, "") if command.program in RUN_PROGRAMS else None


def at_smoke_size(text: str) -> str:
    """A command as it is run."""
    needs_profile = NEEDS_PROFILE.match(text) and "--profile" not in text and "-p " not in text
    for pattern, replacement in SUBSTITUTIONS:
        text = re.sub(pattern, replacement, text)
    return text + (" --profile smoke" if needs_profile else "")
