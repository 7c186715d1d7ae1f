"""The page of all entries: a table per setting, sorted by the mean rank over its tasks."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.evaluation.metrics import PRIMARY
from pilot.io.digest import sha256_file
from pilot.report.entries.submit import Entry
from pilot.report.entries.verify import Verified
from pilot.report.tables.render import markdown_table

PROTOCOL = "personalised"


@dataclass(frozen=True)
class Line:
    """An entry in the table: its file, and the headline rows of its `main.csv` by task."""

    file: Path
    entry: Entry
    tuned: bool
    scores: Mapping[str, Mapping[str, str]]


def leaderboard(entries: Mapping[Path, Verified]) -> str:
    """Return the page in Markdown; equal entries give equal bytes.

    Args:
        entries: verified ones without problems, by file.
    """
    lines = [Line(file, found.entry, found.tuned, _headline(found.table)) for file, found in sorted(entries.items())]
    settings = sorted({(line.entry.profile, line.entry.scenario) for line in lines})
    parts = [part for setting in settings for part in _setting(setting, lines)]
    return "\n".join([_HEAD, *parts]) + "\n"


_HEAD = """# Leaderboard

Written by `pilot-bench leaderboard` from the entries in `leaderboard/`. `pilot-bench verify` has checked each of them:
its settings and budget are those of the profile, its data and test sets those of the reference, and its scores follow
from its answers. That its training gives these answers is known only of entries that were trained again
(`pilot-bench verify --rerun`). Values are means over seeds with the standard deviation; rank is the mean over tasks. A
difference between two lines may be chance: `pilot-bench unpack` both and use `pilot-bench compare`.
[How to enter](submit.md).
"""


def _headline(table: str) -> dict[str, dict[str, str]]:
    """Return the rows of the tasks' headline metrics by task."""
    rows = csv.DictReader(io.StringIO(table))
    headline = set(PRIMARY.values())
    return {
        row["task"]: row for row in rows
        if row["protocol"] == PROTOCOL and row["metric"].partition("[")[0] in headline
    }  # fmt: skip


def _setting(setting: tuple[str, str], lines: Sequence[Line]) -> list[str]:
    profile, scenario = setting
    own = [line for line in lines if (line.entry.profile, line.entry.scenario) == setting]
    tasks = list(dict.fromkeys(task for line in own for task in line.scores))
    places = {id(line): _mean_rank(line, own, tasks) for line in own}
    rows = [
        [f"{places[id(line)]:.2f}", line.entry.method, *(_score(line.scores.get(task)) for task in tasks),
         str(len(line.entry.seeds)), "yes" if line.tuned else "no", line.entry.by or "-", _about(line)]
        for line in sorted(own, key=lambda line: (places[id(line)], line.entry.method, line.file.name))
    ]  # fmt: skip
    metrics = [f"{task} ({own[0].scores[task]['metric']})" for task in tasks]
    titles = ["rank", "method", *metrics, "seeds", "trials shown", "by", "entry"]
    return [f"## {scenario}, profile {profile}", "", *markdown_table(titles, rows, left=2), ""]


def _mean_rank(line: Line, lines: Sequence[Line], tasks: Sequence[str]) -> float:
    """Return the mean over tasks of 1 + the number of better entries."""
    ranks = [1 + sum(_value(other, task) > _value(line, task) for other in lines) for task in tasks]
    return sum(ranks) / len(ranks)


def _value(line: Line, task: str) -> float:
    return float(line.scores[task]["mean"]) if task in line.scores else float("-inf")


def _score(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "-"
    return f"{float(row['mean']):.3f}" + (f" ± {float(row['std']):.3f}" if row["std"] else "")


def _about(line: Line) -> str:
    text = f"`{line.file.name}` {sha256_file(line.file)[:12]}"
    text += f"; [link]({line.entry.url})" if line.entry.url else ""
    return text + (f"; {line.entry.note}" if line.entry.note else "")
