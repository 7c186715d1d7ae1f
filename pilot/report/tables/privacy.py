"""Tables and figure of what messages reveal: `privacy/tables/`, `privacy/figures/`. Equal results give equal bytes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pilot.evaluation.audit.findings import OWN
from pilot.evaluation.audit.judge_inputs import OTHER
from pilot.evaluation.audit.judge_messages import PRIOR, RECEIVED, SHUFFLED
from pilot.evaluation.audit.judge_models import NOT_PLANTED
from pilot.io.atomic import write_text
from pilot.io.layout import PRIVACY
from pilot.report.numbers.privacy import COMPLETED, Audited, PrivacyRow, load_audits, privacy_rows, row_of
from pilot.report.plots import privacy as plot
from pilot.report.plots.style import save_pages
from pilot.report.tables.render import DIGITS, amount, column_names, markdown_table, to_csv

REAL = (
    ("images", "image span", "round *", OTHER),
    ("words", "word span", "one step after training*", OTHER),
    ("task", "task attribution", "round *", SHUFFLED),
    ("client", "client attribution", "round *", SHUFFLED),
    ("answers", "closed answers", "round 1", RECEIVED),
    ("membership", "membership", "round *", OTHER),
    ("canaries", "canaries", "round *", NOT_PLANTED),
)
"""Columns of the main table: title, attack, setting (see `row_of`) and the control that is shown."""
THEORY = (
    ("images, batch 1", "image span", "one step of descent, batch 1", OTHER),
    ("images, batch 8", "image span", "one step of descent, batch 8", OTHER),
    ("exact, batch 4", "image span, exact", "one step of descent, batch 4", ""),
    ("exact, batch 8", "image span, exact", "one step of descent, batch 8", ""),
    ("images, AdamW", "image span", "one step of AdamW, batch 1", OTHER),
    ("images, noise 1", "image span", "one step of descent, batch 1, noise 1", OTHER),
    ("words, rank 8, batch 4", "word span", "one step, rank 8, batch 4", OTHER),
    ("words, rank 128, batch 1", "word span", "one step, rank 128, batch 1", OTHER),
    ("answers, batch 1", "closed answers", "one step of descent, batch 1", PRIOR),
)


def write_privacy(folders: Sequence[Path], paper: bool = False) -> list[Path]:
    """Write tables and figure of the audits in scenario folders to `privacy/` of the first; return the paths.

    Further folders have runs of the same scenario with other profiles, such as with noise.

    Raises:
        UserError: see `load_audits`.
    """
    scenario, audits = load_audits(folders)
    rows = privacy_rows(scenario, audits)
    texts = {"privacy.csv": to_csv(rows, column_names(PrivacyRow)), "privacy.md": markdown(scenario, audits, rows)}
    target = folders[0] / PRIVACY
    for name, text in texts.items():
        write_text(target / "tables" / name, text)
    draw = partial(plot.draw, scenario, audits, rows, [column[:3] for column in REAL])
    figures = save_pages(draw, target / "figures", "privacy", target / "paper" if paper else None)
    return [*(target / "tables" / name for name in texts), *figures]


def markdown(scenario: str, audits: Sequence[Audited], rows: Sequence[PrivacyRow]) -> str:
    """Format quality, bytes and leakage of real rounds, then attacks on single steps, then notes."""
    tasks = list(dict.fromkeys(task for audit in audits for task in audit.quality))
    head = ["method", "profile", "seeds", "epsilon", *tasks, "MB sent"]
    starts = [
        [
            audit.method, audit.profile, str(len(audit.seeds)),
            "none" if audit.epsilon is None else f"{audit.epsilon:.3g}",
            *(amount(audit.quality.get(task), f".{DIGITS}f") for task in tasks), amount(audit.megabytes, ".1f"),
        ]
        for audit in audits
    ]  # fmt: skip
    out = [f"## {scenario}: what messages reveal", ""]
    real = [[*start, *_cells(rows, audit, REAL)] for start, audit in zip(starts, audits, strict=True)]
    out += markdown_table([*head, *(column[0] for column in REAL)], real, left=2)
    out += ["", "### Single steps, for which theory says what is possible", ""]
    theory = [[audit.method, audit.profile, *_cells(rows, audit, THEORY)] for audit in audits]
    out += markdown_table(["method", "profile", *(column[0] for column in THEORY)], theory, left=2)
    return "\n".join([*out, "", *(f"- {note}" for note in NOTES)]) + "\n"


NOTES = (
    "Cells: value [widest ends of the seeds' 95 % bootstrap intervals]; the control. Images, words, membership: AUC, "
    "with another client's message or model as the control. Task and client: accuracy, with shuffled labels. Answers: "
    "accuracy among at most six candidates, with the model that the client received or, in single steps, the most "
    "frequent answer. Canaries: bits of exposure, 1.40 for guessing, at most 6.64, with an answer not planted.",
    "Quality: headline metrics, mean over clients and the seeds that are evaluated; MB sent: by all clients in a run.",
    "An attack that fails proves nothing: a better one may succeed (docs/privacy-audit.md says what is shown).",
    "Every attack, setting, control, interval and status is in privacy.csv.",
)


def _cells(rows: Sequence[PrivacyRow], audit: Audited, columns: Sequence[tuple[str, str, str, str]]) -> list[str]:
    return [_cell(rows, audit, *column[1:]) for column in columns]


def _cell(rows: Sequence[PrivacyRow], audit: Audited, attack: str, setting: str, control: str) -> str:
    row = row_of(rows, audit, attack, setting, OWN)
    if row is None:
        return "-"
    if row.status != COMPLETED:
        return row.status.replace("_", " ")
    text = f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
    other = row_of(rows, audit, attack, setting, control)
    return text if other is None or other.value is None else f"{text}; {other.value:.2f}"
