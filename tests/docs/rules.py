"""What is done with each command of the pages. A command that no rule knows fails `test_commands.py`.

A rule is a page (or "*"), a pattern that the command's text begins with, and a reason. The first that fits counts.
"""

import re
from enum import StrEnum

from .pages import Command


class Class(StrEnum):
    """What is done with a command."""

    RUN = "run for real, at smoke size"
    DRY = "snakemake: planned as documented"
    ELSEWHERE = "run by another test or by continuous integration"
    PARSED = "not run: program, sub-command and options checked"


RUN_PROGRAMS = (
    "pilot-bench", "lm_eval", "python", "openssl", "printf", "export", "sed", "mkdocs", ".venv/bin/pre-commit",
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
)
"""What is other than on the page when a command is run: scenario2 and embedded become smoke, the example's method one
of the suite, 100,000 clients 300."""

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
BEFORE = (
    (r"pilot-bench import --format lm-eval samples", SAMPLES),
    (r"pilot-bench compare .*pilot\+no-ata", "pilot-bench evaluate results/smoke/smoke/runs/pilot+no-ata/seed0"),
    (r"pilot-bench compare results-before ", "mkdir -p results-before && cp -r results/. results-before"),
    (r"openssl", "mkdir -p tls"),
    (r".venv/bin/pre-commit", "git init --quiet ."),
)
"""What is made first because its page takes it for granted."""

TWINS = {
    **dict.fromkeys(("scenario1", "scenario2", "smoke"), "smoke"),
    **dict.fromkeys(("zoo", "ablation", "heterogeneity", "smoke_study"), "smoke_study"),
    **dict.fromkeys(("faults", "smoke_faults"), "smoke_faults"),
    "tuning": "tests/test_tuning.py",
    "figures": "tests/e2e/test_snakemake.py",
}
"""Target of Snakemake -> what is run for real in its place: a target of continuous integration, or a test."""

_OWN, _METHOD = "tests/e2e/test_own_data.py", "tests/e2e/test_add_a_method.py"
ELSEWHERE = (
    ("own-data.md", r"", f"{_OWN}::test_the_page_works_as_it_stands"),
    ("add-a-method.md", r"snakemake ", f"{_METHOD}::test_snakemake_makes_its_runs"),
    (
        "clusters.md",
        r"snakemake --report ",
        "tests/e2e/test_snakemake.py::test_report_has_every_figure_and_table_with_its_caption",
    ),
    (
        "add-a-method.md",
        r"(sed |PROFILE=|RUN=|cp |cmp |for |pilot-bench .*mine)",
        f"{_METHOD}::test_the_method_is",
    ),
)
"""The last column: the test, or the beginning of the names of tests, in a file."""

PARSED = (
    ("*", r"make ", "makes an environment, which is .ci's first step, or is what runs this test"),
    ("*", r"\. \.venv/bin/activate", "the environment that the tests run in"),
    (
        "*",
        r"pilot-bench compare \S+ --reference",
        "smoke has no reference; see tests/report/test_reference.py",
    ),
    ("add-a-method.md", r"pip install ", "would change the environment; the test of the page installs beside it"),
    ("clusters.md", r"pip install ", "would change the environment; the lock has what continuous integration needs"),
    ("*", r"pilot-bench tune ", "four trainings, and smoke has no grid; see tests/test_tuning.py"),
    ("llava.md", r"pilot-bench .*llava-scenario2", "needs the weights and the public data"),
    ("llava.md", r"pilot-bench bench llava-random", "a GPU, or minutes of memory and time"),
    (
        "scale.md",
        r"pilot-bench bench federation",
        "an hour, or a minute; tests/scale/test_bench.py is quicker",
    ),
    ("deploy.md", r"pilot-bench deploy local ", "a dozen processes; tests/e2e/test_deployed_runs.py has them"),
    (
        "deploy.md",
        r"(pilot-bench deploy superlink|while |flwr )",
        "several machines; see tests/e2e/test_deploy.py",
    ),
    ("deploy.md", r"pilot-bench deploy collect", "needs the folders of nodes; see tests/e2e/test_deployed_runs.py"),
    (
        "federation.md",
        r"flwr run ",
        "starts a SuperLink that stays; see tests/e2e/test_flower_simulation.py",
    ),
)


def classify(command: Command) -> tuple[Class, str] | None:
    """The class of a command and the reason; None where no rule knows it."""
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
